// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IOpenings} from "./interfaces/IOpenings.sol";
import {Entries} from "./libraries/Entries.sol";
import {Rfc9162} from "./libraries/Rfc9162.sol";

/// @title Openings of step receipts
/// @notice See `IOpenings`.
contract Openings is IOpenings {
    bytes32 private constant STEP = keccak256(
        "StepV1(uint16 schema,bytes32 run,address worker,uint32 lane,uint64 sequence,bytes32 previous,"
        "bytes32 delegation,uint64 time,uint64 step,uint32 flags,bytes32 batch,bytes32 samples,"
        "bytes32 contribution,bytes32 gradients,bytes32 parameters,bytes32 optimizer,bytes32 buffers,"
        "bytes32 hyperparameters,bytes32 randomness,bytes32 environment,bytes32 metrics,uint64 workUnits,"
        "bytes32 extensions)"
    );
    bytes32 private constant DOMAIN = keccak256(
        abi.encode(
            keccak256("EIP712Domain(string name,string version,bytes32 salt)"),
            keccak256("Counterfoil"),
            keccak256("1"),
            keccak256("counterfoil.receipts.v1")
        )
    );
    uint256 private constant HEADER = 8;
    uint256 private constant WORDS = 23;
    /// @dev The fields after the header that hold states: batch to metrics, and extensions.
    uint256 private constant STATES = 0x5ffc;
    uint64 private constant CHUNK = 1024;
    uint8 private constant STATE = 2;
    /// @dev SHA-256("state/sha256-rfc9162"), which the compiler would compute at each call.
    bytes32 private constant STATE_ALGORITHM =
        0xec6e768b8513b269cc5b16692068f6127ae6221ef9c6d7326784207eaad11132;

    /// @inheritdoc IOpenings
    function open(Opening calldata opening) external view returns (bytes32 digest, bytes memory name) {
        bytes32 commitment;
        (digest, commitment) = readStep(opening.body, opening.field);
        name = checkChunk(opening);
        (bool fits, bytes32 root) = Rfc9162.climb(
            Rfc9162.leafHash(opening.entry), opening.entryIndex, opening.count, opening.entryProof
        );
        if (!fits) revert WrongProof(opening.entryIndex, opening.count, opening.entryProof.length);
        bytes32 actual = sha256(
            abi.encodePacked(
                "counterfoil.commitment.v1",
                STATE_ALGORITHM,
                STATE,
                opening.count,
                opening.size,
                root,
                opening.blind
            )
        );
        if (actual != commitment) revert WrongCommitment(commitment, actual);
    }

    /// @dev The digest of a step's body, and the word of one of its state fields.
    function readStep(bytes calldata body, uint8 field) private pure returns (bytes32 digest, bytes32 word) {
        if (body.length != 32 * WORDS || number(body, 0) != 1) revert NotStep();
        // worker, lane, sequence, time, step, flags, workUnits: no word is wider than its type.
        uint256 excess = number(body, 2) >> 160 | number(body, 3) >> 32 | number(body, 4) >> 64
            | number(body, 7) >> 64 | number(body, 8) >> 64 | number(body, 9) >> 32 | number(body, 21) >> 64;
        if (excess != 0) revert NotStep();
        if ((STATES >> field) & 1 == 0) revert NotState(field);
        word = bytes32(number(body, HEADER + field));
        digest = keccak256(abi.encodePacked(hex"1901", DOMAIN, keccak256(abi.encodePacked(STEP, body))));
    }

    /// @dev Leads the chunk to the entry's root; returns the tensor's name.
    function checkChunk(Opening calldata opening) private view returns (bytes calldata name) {
        bool isDense;
        bool isBlinded;
        uint64 size;
        bytes32 expected;
        (isDense, isBlinded, name, size, expected) = Entries.read(opening.entry);
        if (!isDense) revert NotDense();
        if (isBlinded != (opening.blind != 0) || isBlinded != (opening.entryBlind != 0)) {
            revert WrongBlinds();
        }
        uint64 count = size / CHUNK + (size % CHUNK == 0 ? 0 : 1);
        uint64 index = opening.chunkIndex;
        uint64 length = index >= count ? 0 : size - index * CHUNK;
        if (length > CHUNK) length = CHUNK;
        if (length == 0 || opening.chunk.length != length) {
            revert WrongChunk(index, length, opening.chunk.length);
        }
        (bool fits, bytes32 root) =
            Rfc9162.climb(Rfc9162.leafHash(opening.chunk), index, count, opening.chunkProof);
        if (!fits) revert WrongProof(index, count, opening.chunkProof.length);
        if (isBlinded) {
            root = sha256(abi.encodePacked("counterfoil.blinded-root.v1", opening.entryBlind, root));
        }
        if (root != expected) revert WrongTensor(expected, root);
    }

    function number(bytes calldata body, uint256 index) private pure returns (uint256) {
        return uint256(bytes32(body[32 * index:32 * index + 32]));
    }
}
