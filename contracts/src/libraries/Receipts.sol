// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IRunLedger} from "../interfaces/IRunLedger.sol";
import {Signatures} from "./Signatures.sol";

/// @title Receipts and tree heads as signed
/// @dev docs/format.md, sections 4 and 5. Every field is one word, so a body is its type's encoded data.
library Receipts {
    bytes32 internal constant GENESIS = keccak256(
        "GenesisV1(uint16 schema,bytes32 run,address worker,uint32 lane,uint64 sequence,bytes32 previous,"
        "bytes32 delegation,uint64 time,address owner,bytes32 specification,uint64 flags,bytes32 nonce,"
        "uint16 minimumSchema,bytes32 recipe,bytes32 dataset,bytes32 initialState,bytes32 environment,"
        "bytes32 policy,bytes32 beacon)"
    );
    bytes32 internal constant STEP = keccak256(
        "StepV1(uint16 schema,bytes32 run,address worker,uint32 lane,uint64 sequence,bytes32 previous,"
        "bytes32 delegation,uint64 time,uint64 step,uint32 flags,bytes32 batch,bytes32 samples,"
        "bytes32 contribution,bytes32 gradients,bytes32 parameters,bytes32 optimizer,bytes32 buffers,"
        "bytes32 hyperparameters,bytes32 randomness,bytes32 environment,bytes32 metrics,uint64 workUnits,"
        "bytes32 extensions)"
    );
    bytes32 internal constant CHECKPOINT = keccak256(
        "CheckpointV1(uint16 schema,bytes32 run,address worker,uint32 lane,uint64 sequence,bytes32 previous,"
        "bytes32 delegation,uint64 time,uint64 step,bytes32 parameters,bytes32 optimizer,bytes32 buffers,"
        "bytes32 hyperparameters,bytes32 randomness,bytes32 environment,bytes32 extensions)"
    );
    bytes32 internal constant CLOSE = keccak256(
        "CloseV1(uint16 schema,bytes32 run,address worker,uint32 lane,uint64 sequence,bytes32 previous,"
        "bytes32 delegation,uint64 time,uint32 reason,uint64 step,uint64 workUnits,bytes32 extensions)"
    );
    bytes32 internal constant HEAD = keccak256(
        "TreeHeadV1(uint16 schema,bytes32 run,address worker,uint32 lane,uint64 size,bytes32 root,"
        "bytes32 previousHead,uint64 time,bytes32 beacon)"
    );
    bytes32 private constant RUN = keccak256("counterfoil.run.v1");
    bytes32 private constant LOG = keccak256("counterfoil.log.v1");
    bytes32 private constant DOMAIN = keccak256(
        abi.encode(
            keccak256("EIP712Domain(string name,string version,bytes32 salt)"),
            keccak256("Counterfoil"),
            keccak256("1"),
            keccak256("counterfoil.receipts.v1")
        )
    );
    /// @dev Words of the header, and where what follows it begins.
    uint256 internal constant HEADER = 8;
    uint256 private constant STEP_WORDS = 23;
    uint256 internal constant CHECKPOINT_WORDS = 16;
    /// @dev The fields after the header that hold states: of a step batch to metrics, and extensions; of a checkpoint,
    /// 16 bits further on, all but the step.
    uint256 private constant STATES = 0xfe5ffc;

    /// @notice What was signed.
    /// @param typeHash Hash of the EIP-712 type.
    /// @param body The type's fields, a word each.
    /// @param signature Of the digest; section 4.
    struct Signed {
        bytes32 typeHash;
        bytes body;
        bytes signature;
    }

    /// @notice A receipt and its way to a tree head.
    struct Included {
        Signed receipt;
        uint64 index;
        bytes32[] proof;
    }

    function digestOf(bytes32 typeHash, bytes calldata body) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", DOMAIN, keccak256(abi.encodePacked(typeHash, body))));
    }

    /// @notice Whose key signed; zero for none.
    function signerOf(Signed calldata signed) internal pure returns (address) {
        return Signatures.recover(digestOf(signed.typeHash, signed.body), signed.signature);
    }

    function leafOf(Signed calldata signed) internal pure returns (bytes memory) {
        return abi.encodePacked(digestOf(signed.typeHash, signed.body), signed.signature);
    }

    function isIncluded(
        IRunLedger ledger,
        bytes32 log,
        uint64 anchor,
        IRunLedger.Head calldata head,
        Included calldata leaf
    ) internal view returns (bool) {
        return ledger.isIncluded(log, anchor, head, leafOf(leaf.receipt), leaf.index, leaf.proof);
    }

    /// @notice Word `index` of a body.
    function word(bytes calldata body, uint256 index) internal pure returns (uint256) {
        return uint256(bytes32(body[32 * index:32 * index + 32]));
    }

    /// @notice Whether the bytes can be a receipt or head of a run and worker.
    function isOf(bytes calldata body, bytes32 run, address worker) internal pure returns (bool) {
        return body.length >= 32 * HEADER && bytes32(word(body, 1)) == run && word(body, 2) == uint160(worker);
    }

    /// @notice Whether the bytes are the body of a step whose numbers fit their types.
    function isStep(bytes calldata body) internal pure returns (bool) {
        if (body.length != 32 * STEP_WORDS || word(body, 0) != 1) return false;
        // worker, lane, sequence, time, step, flags, workUnits: no word is wider than its type.
        uint256 excess = word(body, 2) >> 160 | word(body, 3) >> 32 | word(body, 4) >> 64 | word(body, 7)
            >> 64 | word(body, 8) >> 64 | word(body, 9) >> 32 | word(body, 21) >> 64;
        return excess == 0;
    }

    /// @notice Whether a field after the header holds a state: of steps those below 16, of checkpoints from 16 on.
    function isState(uint8 field) internal pure returns (bool) {
        return (STATES >> field) & 1 == 1;
    }

    function runId(address owner, bytes32 specification, uint64 flags, bytes32 nonce)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(RUN, owner, specification, flags, nonce));
    }

    function logId(bytes32 run, address worker, uint32 lane) internal pure returns (bytes32) {
        return keccak256(abi.encode(LOG, run, worker, lane));
    }
}
