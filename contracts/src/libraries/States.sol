// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IOpenings} from "../interfaces/IOpenings.sol";
import {Entries} from "./Entries.sol";
import {Rfc9162} from "./Rfc9162.sol";

/// @title From one kilobyte of one tensor to the digest in a receipt
/// @dev docs/format.md, sections 1 to 3.
library States {
    uint64 private constant CHUNK = 1024;
    uint8 private constant STATE = 2;
    /// @dev SHA-256("state/sha256-rfc9162"), which the compiler would compute at each call.
    bytes32 private constant ALGORITHM = 0xec6e768b8513b269cc5b16692068f6127ae6221ef9c6d7326784207eaad11132;
    /// @dev SHA-256(""): the root over no entries.
    bytes32 private constant EMPTY = 0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855;

    /// @notice The digest of a state that has the opened entry at its place.
    function commitment(IOpenings.Opening calldata opening) internal view returns (bytes32) {
        (bool fits, bytes32 root) = Rfc9162.climb(
            Rfc9162.leafHash(opening.entry), opening.entryIndex, opening.count, opening.entryProof
        );
        if (!fits) {
            revert IOpenings.WrongProof(opening.entryIndex, opening.count, opening.entryProof.length);
        }
        return digest(opening.count, opening.size, root, opening.blind);
    }

    /// @notice The digest of a state without entries.
    function emptyCommitment(bytes32 blind) internal pure returns (bytes32) {
        return digest(0, 0, EMPTY, blind);
    }

    /// @notice The root of a tensor as its entry has it, from the tensor's own root.
    function entryRoot(IOpenings.Opening calldata opening, bytes32 root, bool isBlinded)
        internal
        pure
        returns (bytes32)
    {
        if (isBlinded != (opening.blind != 0) || isBlinded != (opening.entryBlind != 0)) {
            revert IOpenings.WrongBlinds();
        }
        if (!isBlinded) return root;
        return sha256(abi.encodePacked("counterfoil.blinded-root.v1", opening.entryBlind, root));
    }

    /// @notice Chunks of a tensor of `size` bytes.
    function chunksOf(uint64 size) internal pure returns (uint64) {
        return size / CHUNK + (size % CHUNK == 0 ? 0 : 1);
    }

    /// @notice Leads the chunk to the entry's root; returns the tensor's name.
    function checkChunk(IOpenings.Opening calldata opening) internal view returns (bytes calldata name) {
        bool isDense;
        bool isBlinded;
        uint64 size;
        bytes32 expected;
        (isDense, isBlinded, name, size, expected) = Entries.read(opening.entry);
        if (!isDense) revert IOpenings.NotDense();
        uint64 count = chunksOf(size);
        uint64 index = opening.chunkIndex;
        uint64 length = index >= count ? 0 : size - index * CHUNK;
        if (length > CHUNK) length = CHUNK;
        if (length == 0 || opening.chunk.length != length) {
            revert IOpenings.WrongChunk(index, length, opening.chunk.length);
        }
        (bool fits, bytes32 root) =
            Rfc9162.climb(Rfc9162.leafHash(opening.chunk), index, count, opening.chunkProof);
        if (!fits) revert IOpenings.WrongProof(index, count, opening.chunkProof.length);
        root = entryRoot(opening, root, isBlinded);
        if (root != expected) revert IOpenings.WrongTensor(expected, root);
    }

    function digest(uint64 count, uint64 size, bytes32 root, bytes32 blind) private pure returns (bytes32) {
        return
            sha256(abi.encodePacked("counterfoil.commitment.v1", ALGORITHM, STATE, count, size, root, blind));
    }
}
