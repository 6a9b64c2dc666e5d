// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IRunLedger} from "./interfaces/IRunLedger.sol";
import {Rfc9162} from "./libraries/Rfc9162.sol";

/// @title The run ledger
/// @notice See `IRunLedger`.
contract RunLedger is IRunLedger {
    bytes32 private constant RUN = keccak256("counterfoil.run.v1");
    bytes32 private constant LOG = keccak256("counterfoil.log.v1");
    uint64 private constant MAXIMUM_SIZE = 1 << 40;
    uint256 private constant LEAF_LENGTH = 97;

    /// @dev One slot and one per anchor. Every anchor grows the size, so there can be 2^40 at most.
    struct Log {
        uint48 count;
        uint48 size;
        address anchorer;
        mapping(uint64 index => bytes32) anchors;
    }

    struct Revocation {
        uint64 blockNumber;
        uint64 time;
    }

    /// @inheritdoc IRunLedger
    mapping(bytes32 run => address) public ownerOf;
    mapping(bytes32 log => Log) private logs;
    mapping(address worker => mapping(address key => Revocation)) private revocations;

    /// @inheritdoc IRunLedger
    function register(address owner, bytes32 specification, uint64 flags, bytes32 nonce)
        external
        returns (bytes32 run)
    {
        if (owner == address(0)) revert NoOwner();
        if (flags != 0) revert UnsupportedFlags(flags);
        run = keccak256(abi.encode(RUN, owner, specification, flags, nonce));
        if (ownerOf[run] != address(0)) return run;
        ownerOf[run] = owner;
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
        Log storage known = logs[log];
        (uint48 count, uint48 size, address anchorer) = (known.count, known.size, known.anchorer);
        if (msg.sender != a.worker && msg.sender != anchorer) revert NotAllowed(log, msg.sender);
        bytes32 value = keccak256(abi.encode(a.root, a.size, a.headDigest));
        if (a.index != count) {
            if (known.anchors[a.index] == value) return log;
            revert WrongIndex(log, count, a.index);
        }
        if (a.size <= size || a.size > MAXIMUM_SIZE) revert WrongSize(log, size, a.size);
        // A log that has an anchor belongs to a registered run; asking once saves a storage read per anchor.
        if (count == 0 && ownerOf[a.run] == address(0)) revert UnknownRun(a.run);
        (known.count, known.size) = (count + 1, uint48(a.size));
        known.anchors[a.index] = value;
        emit Anchored(log, a.run, a.worker, a.lane, a.index, a.size, a.headDigest, a.root);
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
    ) external view returns (bool) {
        bytes32 value = keccak256(abi.encode(anchored.root, anchored.size, anchored.headDigest));
        return logs[log].anchors[index] == value && leaf.length == LEAF_LENGTH
            && Rfc9162.includes(anchored.root, anchored.size, Rfc9162.leafHash(leaf), leafIndex, proof);
    }

    function logId(bytes32 run, address worker, uint32 lane) private pure returns (bytes32) {
        return keccak256(abi.encode(LOG, run, worker, lane));
    }
}
