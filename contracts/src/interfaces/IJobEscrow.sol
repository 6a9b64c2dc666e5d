// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Receipts} from "../libraries/Receipts.sol";
import {IPurse} from "./IPurse.sol";
import {IRunLedger} from "./IRunLedger.sol";

/// @title Paid training
/// @notice A requester pays in, workers bid in sealed envelopes, the cheapest one trains, and is paid when its
/// anchored run was not refused within the challenge window. The requester has no veto. Every state ends by a
/// time that the terms name, and then anybody can move the money to where it belongs.
interface IJobEscrow is IPurse {
    /// @notice What a job is; its hash names it, so every call brings the terms along.
    /// @param specification SHA-256 of the `spec.json` that is to be trained.
    /// @param pins Root over the values that steps must have (`IChallenge.provePin`); zero for none.
    /// @param pinCount Their number.
    /// @param openable Bit n: field n of a step after the header must be opened on demand; bit 16 + n: field n of a
    /// checkpoint, of which the last one is the result.
    /// @param units Steps that the run must have; what is credited when the job is paid.
    /// @param reward The most that is paid, wei.
    /// @param stake Of the worker's stake, what answers for the job, wei.
    /// @param deposit Of each bid, wei: lost by whoever does not reveal, accept or submit.
    /// @param fee For each verifier whose vote is in the majority, wei.
    /// @param biddingEnds Unix seconds; until then bids are taken.
    /// @param revealEnds Until then they are revealed.
    /// @param acceptEnds Until then the cheapest one accepts.
    /// @param workEnds Until then it submits.
    /// @param challengeWindow Seconds after the submission in which it can be challenged.
    /// @param salt Makes equal jobs different.
    struct Terms {
        bytes32 specification;
        bytes32 pins;
        uint64 pinCount;
        uint32 openable;
        uint64 units;
        uint128 reward;
        uint128 stake;
        uint128 deposit;
        uint128 fee;
        uint64 biddingEnds;
        uint64 revealEnds;
        uint64 acceptEnds;
        uint64 workEnds;
        uint64 challengeWindow;
        bytes32 salt;
    }

    enum State {
        Unknown,
        Posted,
        Accepted,
        Submitted,
        Paid,
        Refused,
        Cancelled
    }

    /// @param worker Who bid least among the bids that were revealed so far; first of equal ones.
    /// @param price What that bid asks for.
    /// @param next What the next one asks for: the price that is paid; the reward if there is none.
    /// @param run The run to be trained, once the job is accepted.
    /// @param anchor Index of the anchor that was submitted.
    /// @param challengeEnds Unix seconds.
    /// @param bids How many were made and not revealed.
    /// @param open Disputes and demands that are not settled: nothing is paid before they are.
    struct Job {
        address requester;
        State state;
        uint32 bids;
        uint32 open;
        address worker;
        uint64 anchor;
        uint128 price;
        uint128 next;
        bytes32 run;
        uint64 challengeEnds;
    }

    event Posted(bytes32 indexed job, address indexed requester, Terms terms);
    event BidMade(bytes32 indexed job, address indexed bidder, bytes32 commitment);
    event BidRevealed(bytes32 indexed job, address indexed bidder, uint128 price, bool isLeading);
    event Accepted(bytes32 indexed job, address indexed worker, bytes32 run, bytes32 nonce);
    event Submitted(
        bytes32 indexed job, address indexed worker, uint64 anchor, uint64 size, uint64 challengeEnds
    );
    event Paid(bytes32 indexed job, address indexed worker, uint256 amount);
    event Refused(bytes32 indexed job, address indexed by, uint256 bounty);
    event Cancelled(bytes32 indexed job);

    error NotAllowed(address caller);
    /// @notice The job is in another state than the call needs.
    error WrongState(bytes32 job, State state);
    error TooEarly(uint64 from);
    error TooLate(uint64 until);
    /// @notice The value sent is not what the call costs.
    error WrongValue(uint256 expected, uint256 actual);
    /// @notice These terms can be no job's; `place` counts their members from 0.
    error WrongTerms(uint8 place);
    error WrongBid(bytes32 expected, bytes32 actual);
    /// @notice Disputes or demands are not settled.
    error StillOpen(uint32 count);
    /// @notice What is submitted is not the job's run, closed without an error, with the steps asked for.
    error WrongClose(uint8 word);
    /// @notice The receipt before is no checkpoint of the run's last step that has parameters.
    error WrongResult(uint8 word);
    /// @notice The receipt is not at the end of the anchored head.
    error NotAnchored(bytes32 log, uint64 anchor);

    function jobOf(bytes32 job) external view returns (Job memory);

    /// @notice The name of the job that `requester` posts, or posted, with these terms.
    function jobId(address requester, Terms calldata terms) external view returns (bytes32);

    /// @notice What posting costs besides the reward, wei: burned when the job is paid, else refunded.
    function burnOf(Terms calldata terms) external view returns (uint256);

    function commitmentOf(bytes32 job, address bidder, uint128 price, bytes32 salt)
        external
        pure
        returns (bytes32);

    /// @notice Pays in the reward and the burn.
    function post(Terms calldata terms) external payable returns (bytes32 job);

    /// @notice Takes the money back while nobody has bid. For the requester alone.
    function cancel(bytes32 job, Terms calldata terms) external;

    /// @notice Bids, in an envelope: `commitmentOf`. Pays in the deposit.
    function bid(bytes32 job, Terms calldata terms, bytes32 commitment) external payable;

    /// @notice Opens the envelope. The leader's stake is locked, and its deposit kept; all others are free again.
    function reveal(bytes32 job, Terms calldata terms, uint128 price, bytes32 salt) external;

    /// @notice The leader takes the job. Registers the run, whose nonce follows from the job and the block before
    /// this one, so that no receipt of it was signed earlier.
    function accept(bytes32 job, Terms calldata terms) external returns (bytes32 run, bytes32 nonce);

    /// @notice Submits the run: its close receipt, which is the last one of an anchored head, and the checkpoint of its
    /// last step, directly before it.
    function submit(
        bytes32 job,
        Terms calldata terms,
        uint64 anchor,
        IRunLedger.Head calldata head,
        Receipts.Included calldata close,
        Receipts.Included calldata result
    ) external;

    /// @notice Pays the worker, after the challenge window, if nothing is open. Anybody can.
    function finalise(bytes32 job, Terms calldata terms) external;

    /// @notice Gives the money back where nobody bid, accepted or submitted in time. Anybody can.
    function reclaim(bytes32 job, Terms calldata terms) external;

    /// @notice For `IChallenge` and `IDisputes` alone: counts what is open.
    function hold(bytes32 job, bool isOpened) external;

    /// @notice For the same two: ends a job that is not settled. A fourth of the reward goes to
    /// `by`, if given, the rest back to the requester; stake is unlocked unless it was slashed.
    function refuse(bytes32 job, Terms calldata terms, address by, bool isSlashed) external;
}
