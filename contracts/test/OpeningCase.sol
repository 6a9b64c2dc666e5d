// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IOpenings} from "../src/interfaces/IOpenings.sol";
import {Case} from "./Case.sol";

/// @title Openings made from docs/format.md
abstract contract OpeningCase is Case {
    bytes32 private constant RECEIPTS = keccak256(
        abi.encode(
            keccak256("EIP712Domain(string name,string version,bytes32 salt)"),
            keccak256("Counterfoil"),
            keccak256("1"),
            keccak256("counterfoil.receipts.v1")
        )
    );
    bytes32 internal constant STEP = keccak256(
        "StepV1(uint16 schema,bytes32 run,address worker,uint32 lane,uint64 sequence,bytes32 previous,bytes32 delegation,uint64 time,uint64 step,uint32 flags,bytes32 batch,bytes32 samples,bytes32 contribution,bytes32 gradients,bytes32 parameters,bytes32 optimizer,bytes32 buffers,bytes32 hyperparameters,bytes32 randomness,bytes32 environment,bytes32 metrics,uint64 workUnits,bytes32 extensions)"
    );

    function opener() internal returns (IOpenings) {
        return IOpenings(deploy("artifacts/Openings.json"));
    }

    /// @dev A step whose 23 words are all valid, and whose `field` holds `commitment`.
    function body(uint8 field, bytes32 commitment) internal pure returns (bytes memory words) {
        for (uint256 n = 0; n < 23; ++n) {
            bytes32 word = keccak256(abi.encode("word", n));
            if (n == 0) word = bytes32(uint256(1));
            if (n == 2) word = word >> 96;
            if (n == 3 || n == 9) word = word >> 224;
            if (n == 4 || n == 7 || n == 8 || n == 21) word = word >> 192;
            if (n == 8 + uint256(field)) word = commitment;
            words = abi.encodePacked(words, word);
        }
    }

    function digestOf(bytes memory words) internal pure returns (bytes32) {
        return digestOf(STEP, words);
    }

    function digestOf(bytes32 typeHash, bytes memory words) internal pure returns (bytes32) {
        bytes32 structure = keccak256(abi.encodePacked(typeHash, words));
        return keccak256(abi.encodePacked(hex"1901", RECEIPTS, structure));
    }

    function entry(bytes memory name, bytes memory shape, uint64 size, bytes32 tensor, bool isBlinded)
        internal
        pure
        returns (bytes memory)
    {
        bytes memory head = abi.encodePacked(
            "counterfoil.entry.v1", uint8(0), uint8(isBlinded ? 1 : 0), uint16(name.length), name
        );
        uint8 dimensions = uint8(shape.length / 8);
        return abi.encodePacked(head, uint8(3), "F32", dimensions, shape, size, tensor, uint16(0));
    }

    function commitmentOf(IOpenings.Opening memory o, bytes32 state) internal pure returns (bytes32) {
        return sha256(
            abi.encodePacked(
                "counterfoil.commitment.v1",
                sha256("state/sha256-rfc9162"),
                uint8(2),
                o.count,
                o.size,
                state,
                o.blind
            )
        );
    }

    /// @dev Chunk `chunkIndex` of an F32 tensor of `floats` numbers, which is entry `entryIndex` of `count`.
    /// Siblings are any hashes: nobody needs what is below them.
    function make(uint64 floats, uint64 chunkIndex, uint64 count, uint64 entryIndex, bool isBlinded)
        internal
        pure
        returns (IOpenings.Opening memory o)
    {
        uint64 size = floats * 4;
        uint64 chunks = (size + 1023) / 1024;
        o.field = 5;
        (o.chunkIndex, o.entryIndex, o.count, o.size) = (chunkIndex, entryIndex, count, size + 77);
        if (isBlinded) (o.blind, o.entryBlind) = (keccak256("blind"), keccak256("entry blind"));
        o.chunk = content(size - chunkIndex * 1024 < 1024 ? size - chunkIndex * 1024 : 1024);
        bytes32 tensor;
        (tensor, o.chunkProof) = lift(sha256(abi.encodePacked(hex"00", o.chunk)), chunkIndex, chunks);
        if (isBlinded) {
            tensor = sha256(abi.encodePacked("counterfoil.blinded-root.v1", o.entryBlind, tensor));
        }
        o.entry = entry("layers.0.weight", abi.encodePacked(floats), size, tensor, isBlinded);
        bytes32 state;
        (state, o.entryProof) = lift(sha256(abi.encodePacked(hex"00", o.entry)), entryIndex, count);
        o.body = body(5, commitmentOf(o, state));
    }

    /// @dev Bytes of which none is zero.
    function content(uint256 size) internal pure returns (bytes memory chunk) {
        chunk = new bytes(size);
        for (uint256 n = 0; n < size; ++n) {
            chunk[n] = bytes1(uint8(1 + n % 255));
        }
    }

    /// @dev The root above a leaf, by the definition of a tree from its top, and the siblings on the way.
    function lift(bytes32 leaf, uint256 index, uint256 size)
        internal
        pure
        returns (bytes32 top, bytes32[] memory proof)
    {
        if (size == 1) return (leaf, new bytes32[](0));
        uint256 left = split(size);
        bytes32 sibling = keccak256(abi.encode(index, size));
        bytes32[] memory below;
        (top, below) = index < left ? lift(leaf, index, left) : lift(leaf, index - left, size - left);
        top = index < left ? node(top, sibling) : node(sibling, top);
        proof = new bytes32[](below.length + 1);
        for (uint256 n = 0; n < below.length; ++n) {
            proof[n] = below[n];
        }
        proof[below.length] = sibling;
    }
}
