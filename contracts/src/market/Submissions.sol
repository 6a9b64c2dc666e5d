// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IJobEscrow} from "../interfaces/IJobEscrow.sol";
import {ISubmissions} from "../interfaces/ISubmissions.sol";
import {Purse} from "./Purse.sol";

/// @title What disputes and demands have in common
/// @notice See `ISubmissions`.
abstract contract Submissions is ISubmissions, Purse {
    IJobEscrow internal immutable ESCROW;
    /// @inheritdoc ISubmissions
    uint64 public immutable VOTE;
    /// @dev What the first one on a job costs, in fees.
    uint256 private immutable FEES;

    /// @dev How many were made on a job.
    mapping(bytes32 job => uint256) private made;

    constructor(IJobEscrow escrow, uint64 voteSeconds, uint256 fees) {
        (ESCROW, VOTE, FEES) = (escrow, voteSeconds, fees);
    }

    /// @inheritdoc ISubmissions
    function bondOf(bytes32 job, IJobEscrow.Terms calldata terms) public view returns (uint256) {
        return FEES * uint256(terms.fee) << made[job];
    }

    /// @dev Takes the bond, names what it is for, and holds the job's payment.
    function bond(bytes32 job, IJobEscrow.Terms calldata terms) internal returns (bytes32 id) {
        pay(bondOf(job, terms));
        id = keccak256(abi.encode(job, made[job]));
        ++made[job];
        ESCROW.hold(job, true);
    }

    /// @dev The job of these terms, whose run is known.
    function read(bytes32 job, IJobEscrow.Terms calldata terms)
        internal
        view
        returns (IJobEscrow.Job memory known)
    {
        known = ESCROW.jobOf(job);
        if (known.run == 0 || ESCROW.jobId(known.requester, terms) != job) revert WrongTerms(job);
    }

    /// @dev As `read`, of a job in its challenge window.
    function open(bytes32 job, IJobEscrow.Terms calldata terms)
        internal
        view
        returns (IJobEscrow.Job memory known)
    {
        known = read(job, terms);
        if (known.state != IJobEscrow.State.Submitted || block.timestamp >= known.challengeEnds) {
            revert NotChallengeable(job);
        }
    }

    function pay(uint256 expected) internal view {
        if (msg.value != expected) revert WrongValue(expected, msg.value);
    }
}
