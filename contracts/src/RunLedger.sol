// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC1271} from "./interfaces/IERC1271.sol";
import {IRunLedger} from "./interfaces/IRunLedger.sol";
import {Rfc9162} from "./libraries/Rfc9162.sol";
import {Signatures} from "./libraries/Signatures.sol";

/// @title The run ledger
/// @notice See `IRunLedger`.
contract RunLedger is IRunLedger {
    bytes32 private constant RUN = keccak256("counterfoil.run.v1");
    bytes32 private constant LOG = keccak256("counterfoil.log.v1");
    bytes32 private constant ANCHOR = keccak256(
        "AnchorV1(bytes32 log,uint64 index,uint64 size,bytes32 headDigest,bytes32 root,uint64 deadline)"
    );
    bytes32 private constant DOMAIN =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant NAME = keccak256("Counterfoil");
    bytes32 private constant VERSION = keccak256("1");
    uint64 private constant APPEND_ONLY = 1;
    uint64 private constant MAXIMUM_SIZE = 1 << 40;
    uint256 private constant LEAF_LENGTH = 97;

    struct Run {
        address owner;
        bool appendOnly;
    }

    /// @dev One slot and one per anchor. Every anchor grows the size, so 40 bits count them all. The
    /// run's promise is copied by the first anchor, so that later ones need not read the run.
    struct Log {
        uint40 count;
        uint48 size;
        bool appendOnly;
        address anchorer;
        mapping(uint64 index => bytes32) anchors;
    }

    struct Revocation {
        uint64 blockNumber;
        uint64 time;
    }

    mapping(bytes32 run => Run) private runs;
    mapping(bytes32 log => Log) private logs;
    mapping(address worker => mapping(address key => Revocation)) private revocations;

    /// @inheritdoc IRunLedger
    function register(address owner, bytes32 specification, uint64 flags, bytes32 nonce)
        external
        returns (bytes32 run)
    {
        if (owner == address(0)) revert NoOwner();
        if (flags > APPEND_ONLY) revert UnsupportedFlags(flags);
        run = keccak256(abi.encode(RUN, owner, specification, flags, nonce));
        Run storage known = runs[run];
        if (known.owner != address(0)) return run;
        (known.owner, known.appendOnly) = (owner, flags == APPEND_ONLY);
        emit Registered(run, owner, specification, flags, nonce);
    }

    /// @inheritdoc IRunLedger
    function setAnchorer(bytes32 run, uint32 lane, address anchorer) external {
        bytes32 log = logId(run, msg.sender, lane);
        logs[log].anchorer = anchorer;
        emit AnchorerSet(log, anchorer);
    }

    /// @inheritdoc IRunLedger
    function revoke(address worker, address key) external {
        if (msg.sender != worker && msg.sender != key) revert NotRevocable(worker, key, msg.sender);
        Revocation storage known = revocations[worker][key];
        if (known.blockNumber != 0) return;
        (known.blockNumber, known.time) = (uint64(block.number), uint64(block.timestamp));
        emit Revoked(worker, key, msg.sender);
    }

    /// @inheritdoc IRunLedger
    function revocation(address worker, address key) external view returns (uint64 blockNumber, uint64 time) {
        Revocation storage known = revocations[worker][key];
        return (known.blockNumber, known.time);
    }

    /// @inheritdoc IRunLedger
    function anchor(Anchor calldata a) external returns (bytes32 log) {
        log = logId(a.run, a.worker, a.lane);
        record(log, a, msg.sender, false);
    }

    /// @inheritdoc IRunLedger
    function anchorWithConsistencyProof(Anchor calldata a, Head calldata previous, bytes32[] calldata proof)
        external
        returns (bytes32 log)
    {
        log = logId(a.run, a.worker, a.lane);
        recordProven(log, a, msg.sender, previous, proof);
    }

    /// @inheritdoc IRunLedger
    function anchorBySig(
        Anchor calldata a,
        Head calldata previous,
        bytes32[] calldata proof,
        address signer,
        uint64 deadline,
        bytes calldata signature
    ) external returns (bytes32 log) {
        if (block.timestamp > deadline) revert Expired(deadline);
        log = logId(a.run, a.worker, a.lane);
        bytes32 message = keccak256(abi.encode(ANCHOR, log, a.index, a.size, a.headDigest, a.root, deadline));
        bytes32 domain = keccak256(abi.encode(DOMAIN, NAME, VERSION, block.chainid, address(this)));
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", domain, message));
        if (!isSigned(signer, digest, signature)) revert InvalidSignature(signer);
        recordProven(log, a, signer, previous, proof);
    }

    /// @inheritdoc IRunLedger
    function ownerOf(bytes32 run) external view returns (address) {
        return runs[run].owner;
    }

    /// @inheritdoc IRunLedger
    function head(bytes32 log) external view returns (uint64 count, uint64 size, address anchorer) {
        Log storage known = logs[log];
        return (known.count, known.size, known.anchorer);
    }

    /// @inheritdoc IRunLedger
    function anchorAt(bytes32 log, uint64 index) external view returns (bytes32) {
        return logs[log].anchors[index];
    }

    /// @inheritdoc IRunLedger
    function isIncluded(
        bytes32 log,
        uint64 index,
        Head calldata anchored,
        bytes calldata leaf,
        uint64 leafIndex,
        bytes32[] calldata proof
    ) public view returns (bool) {
        return leaf.length == LEAF_LENGTH
            && logs[log].anchors[index] == valueOf(anchored.root, anchored.size, anchored.headDigest)
            && Rfc9162.includes(anchored.root, anchored.size, Rfc9162.leafHash(leaf), leafIndex, proof);
    }

    /// @inheritdoc IRunLedger
    function verifyReceipt(
        bytes32 log,
        uint64 index,
        Head calldata anchored,
        bytes calldata leaf,
        uint64 leafIndex,
        bytes32[] calldata proof
    ) external view returns (address signer) {
        if (!isIncluded(log, index, anchored, leaf, leafIndex, proof)) {
            return address(0);
        }
        return Signatures.recover(bytes32(leaf[:32]), leaf[32:]);
    }

    function recordProven(
        bytes32 log,
        Anchor calldata a,
        address by,
        Head calldata previous,
        bytes32[] calldata proof
    ) private {
        bool isProven = proof.length != 0;
        if (!record(log, a, by, isProven) || !isProven) return;
        uint64 last = a.index - 1;
        if (logs[log].anchors[last] != valueOf(previous.root, previous.size, previous.headDigest)) {
            revert NotPrevious(log, last);
        }
        if (!Rfc9162.isConsistent(previous.size, previous.root, a.size, a.root, proof)) {
            revert Inconsistent(log, previous.size, a.size);
        }
    }

    /// @return isNew Whether the anchor was not there before; if so and `isProven`, the caller checks the proof.
    function record(bytes32 log, Anchor calldata a, address by, bool isProven) private returns (bool isNew) {
        Log storage known = logs[log];
        (uint40 count, uint48 size, bool appendOnly, address anchorer) =
            (known.count, known.size, known.appendOnly, known.anchorer);
        if (by != a.worker && by != anchorer) revert NotAllowed(log, by);
        bytes32 value = valueOf(a.root, a.size, a.headDigest);
        if (a.index != count) {
            if (known.anchors[a.index] == value) return false;
            revert WrongIndex(log, count, a.index);
        }
        if (a.size <= size || a.size > MAXIMUM_SIZE) revert WrongSize(log, size, a.size);
        if (count == 0) {
            // A log that has an anchor belongs to a registered run; asking once saves a storage read per anchor.
            Run storage run = runs[a.run];
            if (run.owner == address(0)) revert UnknownRun(a.run);
            if (isProven) revert NotPrevious(log, 0);
            appendOnly = run.appendOnly;
        } else if (appendOnly && !isProven) {
            revert ConsistencyProofRequired(log);
        }
        (known.count, known.size, known.appendOnly) = (count + 1, uint48(a.size), appendOnly);
        known.anchors[a.index] = value;
        emit Anchored(log, a.run, a.worker, a.lane, a.index, a.size, a.headDigest, a.root);
        return true;
    }

    /// @dev A key's own signature counts even where its account has code (EIP-7702): the same key could
    /// send the anchor itself.
    function isSigned(address signer, bytes32 digest, bytes calldata signature) private view returns (bool) {
        address recovered = Signatures.recover(digest, signature);
        if (recovered != address(0) && recovered == signer) return true;
        if (signer.code.length == 0) return false;
        // Not a call by the interface: whatever a contract does, the caller learns whose signature failed.
        (bool answered, bytes memory answer) =
            signer.staticcall(abi.encodeCall(IERC1271.isValidSignature, (digest, signature)));
        return answered && answer.length == 32 && bytes32(answer) == IERC1271.isValidSignature.selector;
    }

    /// @dev keccak256(abi.encode(root, size, headDigest)), which is computed with each anchor and each answer.
    function valueOf(bytes32 root, uint256 size, bytes32 headDigest) private pure returns (bytes32 value) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, root)
            mstore(add(free, 0x20), size)
            mstore(add(free, 0x40), headDigest)
            value := keccak256(free, 0x60)
        }
    }

    function logId(bytes32 run, address worker, uint32 lane) private pure returns (bytes32) {
        return keccak256(abi.encode(LOG, run, worker, lane));
    }
}
