// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title One kilobyte of one tensor that a receipt commits to
/// @notice Shows that a step receipt speaks of a chunk: of a gradient, a parameter, a batch. That somebody
/// signed the receipt, and by when, is `IRunLedger.verifyReceipt`'s answer for the same digest.
/// @dev docs/format.md, sections 1 to 4. All leaves are hashed from their bytes, so that no inner node
/// passes for one. The contract has no state.
interface IOpenings {
    /// @param body The body of a `StepV1` receipt.
    /// @param field Index of a state field in the type after the header: 5 is `gradients`.
    /// @param blind The field's blind; zero for a public field.
    /// @param count Entries of the state.
    /// @param size Bytes of all its tensors.
    /// @param entry The tensor's entry, as hashed.
    /// @param entryIndex Its position among the entries, sorted by name.
    /// @param entryBlind HMAC(entry key, name); zero for a public field.
    /// @param entryProof Siblings up to the state's root.
    /// @param chunk The tensor's bytes from 1,024 * `chunkIndex` on: 1,024, or the rest.
    /// @param chunkProof Siblings up to the tensor's root.
    struct Opening {
        bytes body;
        uint8 field;
        bytes32 blind;
        uint64 count;
        uint64 size;
        bytes entry;
        uint64 entryIndex;
        bytes32 entryBlind;
        bytes32[] entryProof;
        bytes chunk;
        uint64 chunkIndex;
        bytes32[] chunkProof;
    }

    /// @notice The bytes are no body of a `StepV1` receipt.
    error NotStep();
    /// @notice No field of a step that holds a state has this index.
    error NotState(uint8 field);
    /// @notice The bytes are no dense entry of a state.
    error NotDense();
    /// @notice A public field has neither blind, a private one has both.
    error WrongBlinds();
    /// @notice Chunk `index` of this tensor has `expected` bytes; 0: there is no such chunk.
    error WrongChunk(uint64 index, uint64 expected, uint256 actual);
    /// @notice Index, count and the proof's length do not belong together.
    error WrongProof(uint64 index, uint64 count, uint256 length);
    /// @notice The chunk leads to another root than the entry's.
    error WrongTensor(bytes32 expected, bytes32 actual);
    /// @notice Entry, count, size and blind lead to another digest than the receipt's.
    error WrongCommitment(bytes32 expected, bytes32 actual);

    /// @notice Reverts unless the chunk belongs to the tensor, the tensor to the field and the field to the
    /// receipt.
    /// @return digest The receipt's digest: what was signed, and the first 32 bytes of its leaf.
    /// @return name The tensor's name, of 1 to 1,024 bytes whose encoding is not checked.
    function open(Opening calldata opening) external view returns (bytes32 digest, bytes memory name);
}
