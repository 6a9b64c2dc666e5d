// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IOpenings} from "../src/interfaces/IOpenings.sol";
import {OpeningCase} from "./OpeningCase.sol";

contract OpeningsTest is OpeningCase {
    IOpenings private openings;

    function setUp() external {
        openings = opener();
    }

    function accepts(IOpenings.Opening memory o) private view returns (bool) {
        try openings.open(o) returns (bytes32, bytes memory) {
            return true;
        } catch {
            return false;
        }
    }

    function refuse(IOpenings.Opening memory o, bytes4 reason) private view {
        try openings.open(o) returns (bytes32, bytes memory) {
            revert("it was opened");
        } catch (bytes memory data) {
            require(bytes4(data) == reason, "another reason");
        }
    }

    function some(uint256 seed) private pure returns (IOpenings.Opening memory) {
        uint64 floats = uint64(1 + seed % 5000);
        uint64 count = uint64(1 + (seed >> 64) % 200);
        uint64 chunks = (floats * 4 + 1023) / 1024;
        uint64 chunk = uint64((seed >> 128) % chunks);
        return make(floats, chunk, count, uint64((seed >> 192) % count), seed >> 255 == 1);
    }

    /// An opening that is made by the format and refused, or another digest than the one that is signed.
    function testFuzz_what_the_format_makes_is_opened(uint256 seed) external view {
        IOpenings.Opening memory o = some(seed);
        (bytes32 digest, bytes memory name) = openings.open(o);
        require(digest == digestOf(o.body), "digest");
        require(keccak256(name) == keccak256("layers.0.weight"), "name");
    }

    /// Any bit of anything: chunk, entry, proofs, numbers, blinds. The body alone may be another receipt's.
    function testFuzz_a_changed_bit_is_refused(uint256 seed, uint256 part, uint256 place) external view {
        IOpenings.Opening memory o = some(seed);
        part %= 12;
        if (part == 0) flip(o.chunk, place);
        if (part == 1) flip(o.entry, place);
        if (part == 2) o.field ^= uint8(1 << (place % 8));
        if (part == 3) o.blind ^= bytes32(1 << (place % 256));
        if (part == 4) o.count ^= uint64(1 << (place % 64));
        if (part == 5) o.size ^= uint64(1 << (place % 64));
        if (part == 6) o.entryIndex ^= uint64(1 << (place % 64));
        if (part == 7) o.entryBlind ^= bytes32(1 << (place % 256));
        if (part == 8) o.chunkIndex ^= uint64(1 << (place % 64));
        if (part == 9) flip(o.body, (8 + 5) * 256 + place % 256);
        if (part == 10) {
            if (o.chunkProof.length == 0) return;
            o.chunkProof[place % o.chunkProof.length] ^= bytes32(1 << (place % 256));
        }
        if (part == 11) {
            if (o.entryProof.length == 0) return;
            o.entryProof[place % o.entryProof.length] ^= bytes32(1 << (place % 256));
        }
        require(!accepts(o), "it was opened");
    }

    function flip(bytes memory data, uint256 place) private pure {
        place %= data.length * 8;
        data[place / 8] ^= bytes1(uint8(1 << (place % 8)));
    }

    /// A body that no StepV1 has: too short, too long, a word wider than its type, another schema.
    function test_only_bodies_of_steps_are_read() external view {
        IOpenings.Opening memory o = make(300, 1, 3, 2, true);
        bytes memory right = o.body;
        o.body = abi.encodePacked(right, bytes32(0));
        refuse(o, IOpenings.NotStep.selector);
        o.body = new bytes(22 * 32);
        refuse(o, IOpenings.NotStep.selector);
        o.body = "";
        refuse(o, IOpenings.NotStep.selector);
        uint8[8] memory words = [0, 2, 3, 4, 7, 8, 9, 21];
        uint8[8] memory widths = [16, 160, 32, 64, 64, 64, 32, 64];
        for (uint256 n = 0; n < 8; ++n) {
            o.body = abi.encodePacked(right);
            uint256 bit = uint256(words[n]) * 256 + 255 - widths[n];
            o.body[bit / 8] ^= bytes1(uint8(128 >> (bit % 8)));
            refuse(o, IOpenings.NotStep.selector);
            // The highest bit of each type is part of the number.
            o.body = abi.encodePacked(right);
            bit += 1;
            o.body[bit / 8] ^= bytes1(uint8(128 >> (bit % 8)));
            require(n == 0 || accepts(o), "a wide number is refused");
        }
        o.body = abi.encodePacked(right);
        o.body[31] = 0x02;
        refuse(o, IOpenings.NotStep.selector);
    }

    /// A number taken for a commitment, or a word outside the body.
    function test_only_fields_that_hold_states_are_opened() external view {
        IOpenings.Opening memory o = make(300, 1, 3, 2, false);
        bytes memory right = o.body;
        bytes32 commitment;
        assembly {
            commitment := mload(add(right, add(32, mul(32, 13))))
        }
        for (uint256 field = 0; field < 256; ++field) {
            o.field = uint8(field);
            bool holdsState = (field >= 2 && field <= 12) || field == 14;
            if (holdsState) {
                o.body = body(uint8(field), commitment);
                require(accepts(o), "a state's field");
            } else {
                refuse(o, IOpenings.NotState.selector);
            }
        }
    }

    /// A private field shown with one of its blinds, or a public one with a blind.
    function test_blinds_come_together() external view {
        for (uint256 n = 1; n < 7; ++n) {
            IOpenings.Opening memory o = make(300, 1, 3, 2, n & 4 != 0);
            o.blind = n & 1 != 0 ? keccak256("blind") : bytes32(0);
            o.entryBlind = n & 2 != 0 ? keccak256("entry blind") : bytes32(0);
            (bytes32 state,) = lift(sha256(abi.encodePacked(hex"00", o.entry)), 2, 3);
            o.body = body(5, commitmentOf(o, state));
            refuse(o, IOpenings.WrongBlinds.selector);
        }
    }

    /// A chunk of another length than its place has, or behind the tensor's end.
    function test_chunks_have_the_length_of_their_place() external view {
        IOpenings.Opening memory o = make(300, 1, 3, 2, false);
        require(o.chunk.length == 1200 - 1024, "the rest");
        o.chunk = content(175);
        refuse(o, IOpenings.WrongChunk.selector);
        o.chunk = content(1024);
        refuse(o, IOpenings.WrongChunk.selector);
        o.chunkIndex = 2;
        refuse(o, IOpenings.WrongChunk.selector);
        o.chunkIndex = type(uint64).max;
        refuse(o, IOpenings.WrongChunk.selector);
        require(accepts(make(512, 1, 3, 2, false)), "a last chunk that is full");
        // An empty tensor has no chunk, whatever its root.
        o = make(1, 0, 1, 0, false);
        o.entry = entry("empty", abi.encodePacked(uint64(0)), 0, sha256(hex"00"), false);
        o.chunk = "";
        refuse(o, IOpenings.WrongChunk.selector);
    }

    /// An inner node of a tensor's tree, 64 bytes under another prefix, shown as a chunk.
    function test_inner_nodes_are_no_leaves() external view {
        bytes32[] memory hashes = new bytes32[](2);
        (hashes[0], hashes[1]) =
        (sha256(abi.encodePacked(hex"00", content(1024))), sha256(abi.encodePacked(hex"00", content(8))));
        IOpenings.Opening memory o = make(16, 0, 1, 0, false);
        o.entry =
            entry("layers.0.weight", abi.encodePacked(uint64(16)), 64, node(hashes[0], hashes[1]), false);
        o.body = body(5, commitmentOf(o, sha256(abi.encodePacked(hex"00", o.entry))));
        o.chunk = abi.encodePacked(hashes[0], hashes[1]);
        refuse(o, IOpenings.WrongTensor.selector);
    }

    /// Entries that the format does not write: each is signed here, so that only reading refuses it.
    function test_entries_have_one_encoding() external view {
        IOpenings.Opening memory o = make(16, 0, 1, 0, false);
        bytes memory right = o.entry;
        // Tag, kind, flag, dtype (length and first letter), dimensions, size, target.
        uint8[8] memory places = [0, 20, 21, 39, 40, 43, 51, 92];
        for (uint256 n = 0; n < places.length; ++n) {
            uint256 place = uint256(places[n]);
            o.entry = abi.encodePacked(right);
            o.entry[place] ^= n == 2 ? bytes1(0x02) : bytes1(0x01);
            (bytes32 state,) = lift(sha256(abi.encodePacked(hex"00", o.entry)), 0, 1);
            o.body = body(5, commitmentOf(o, state));
            refuse(o, IOpenings.NotDense.selector);
        }
        for (uint256 length = 0; length < right.length; ++length) {
            o.entry = new bytes(length);
            for (uint256 n = 0; n < length; ++n) {
                o.entry[n] = right[n];
            }
            refuse(o, IOpenings.NotDense.selector);
        }
        o.entry = abi.encodePacked(right, hex"00");
        refuse(o, IOpenings.NotDense.selector);
    }

    /// Names without a byte or beyond 1,024, shapes beyond 64 dimensions or 64 bits, a dtype's padding.
    function test_entries_keep_the_limits() external view {
        bytes32 chunk = sha256(abi.encodePacked(hex"00", content(64)));
        bytes memory sixteen = abi.encodePacked(uint64(16));
        require(signed(entry("n", sixteen, 64, chunk, false)), "one byte");
        require(signed(entry(content(1024), sixteen, 64, chunk, false)), "1,024 bytes");
        require(!signed(entry("", sixteen, 64, chunk, false)), "no byte");
        require(!signed(entry(content(1025), sixteen, 64, chunk, false)), "1,025 bytes");
        bytes memory ones = abi.encodePacked(uint64(16));
        for (uint256 n = 1; n < 64; ++n) {
            ones = abi.encodePacked(ones, uint64(1));
        }
        require(signed(entry("n", ones, 64, chunk, false)), "64 dimensions");
        require(!signed(entry("n", abi.encodePacked(ones, uint64(1)), 64, chunk, false)), "65 dimensions");
        // 2^62 * 4 * 16 = 2^68, which is 0 in 64 bits.
        bytes memory wide = abi.encodePacked(uint64(16), uint64(1) << 62);
        require(!signed(entry("n", wide, 0, chunk, false)), "beyond 64 bits");
        require(!signed(entry("n", wide, 64, chunk, false)), "another size");
        bytes memory fixedPart = abi.encodePacked("counterfoil.entry.v1", uint16(0), uint16(1), "n");
        bytes memory padded = abi.encodePacked(fixedPart, uint8(4), "F32", uint8(0), uint8(1), sixteen);
        require(!signed(abi.encodePacked(padded, uint64(64), chunk, uint16(0))), "a padded dtype");
    }

    /// Every dtype of the format with its element size, and a few that are none.
    function test_dtypes_are_those_of_the_format() external view {
        string[17] memory tags = [
            "BOOL",
            "U8",
            "I8",
            "F8_E4M3",
            "F8_E5M2",
            "F8_E8M0",
            "I16",
            "U16",
            "F16",
            "BF16",
            "I32",
            "U32",
            "F32",
            "I64",
            "U64",
            "F64",
            "C64"
        ];
        for (uint256 n = 0; n < 17; ++n) {
            uint64 element = n < 6 ? 1 : n < 10 ? 2 : n < 13 ? 4 : 8;
            for (uint64 size = 8; size <= 64; size *= 2) {
                require(signed(typed(tags[n], 8, size)) == (size == 8 * element), tags[n]);
            }
        }
        string[6] memory none = ["", "F", "F33", "f32", "F8_E4M30", "F128"];
        for (uint256 n = 0; n < 6; ++n) {
            for (uint64 size = 0; size <= 64; size += 8) {
                require(!signed(typed(none[n], 8, size)), none[n]);
            }
        }
    }

    function typed(string memory dtype, uint64 extent, uint64 size) private pure returns (bytes memory) {
        bytes memory head = abi.encodePacked("counterfoil.entry.v1", uint16(0), uint16(1), "n");
        bytes memory middle = abi.encodePacked(uint8(bytes(dtype).length), dtype, uint8(1), extent, size);
        return abi.encodePacked(head, middle, sha256(abi.encodePacked(hex"00", content(size))), uint16(0));
    }

    /// @dev Whether the entry, alone in a signed state, opens its only chunk.
    function signed(bytes memory encoded) private view returns (bool) {
        IOpenings.Opening memory o = make(16, 0, 1, 0, false);
        o.entry = encoded;
        uint64 size;
        uint256 end = encoded.length;
        assembly {
            size := shr(192, mload(add(add(encoded, 32), sub(end, 42))))
        }
        o.chunk = content(size <= 1024 ? size : 1024);
        o.body = body(5, commitmentOf(o, sha256(abi.encodePacked(hex"00", encoded))));
        return accepts(o);
    }
}
