// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IJobEscrow} from "./IJobEscrow.sol";
import {ISubmissions} from "./ISubmissions.sol";

/// @title What people decide about a submitted run
/// @notice Whether a step was computed rightly no contract can see: verifiers that a later block draws execute it
/// again and vote. Their verdict is attested, not shown: it withholds the reward, and slashes nobody.
interface IDisputes is ISubmissions {
    /// @dev The words of docs/format.md, section 16.
    enum Outcome {
        None,
        Upheld,
        Refuted
    }

    /// @param index Place of the disputed receipt in the submitted log.
    /// @param epoch Whose roll of verifiers is drawn from.
    /// @param isAppealed Whether the second round was begun.
    /// @param verdict None until it is settled.
    struct Dispute {
        bytes32 job;
        uint64 index;
        uint64 epoch;
        bool isAppealed;
        Outcome verdict;
    }

    /// @param by Who paid the bond: the challenger of the first round, the appellant of the second.
    /// @param drawEnds Until then a panel is drawn; without one the round ends.
    /// @param commitEnds Until then, once there is a panel, votes are promised; at once when all have.
    /// @param revealEnds Until then they are revealed; at once when all that were promised are.
    /// @param promised How many votes were promised.
    /// @param revealed How many of them were revealed.
    /// @param beacon What drew the panel: the beacon of replay receipts.
    struct Round {
        address by;
        uint256 bond;
        uint64 drawEnds;
        uint64 commitEnds;
        uint64 revealEnds;
        uint8 promised;
        uint8 revealed;
        bytes32 beacon;
        address[] panel;
    }

    event Enlisted(uint64 indexed epoch, address indexed verifier, uint128 seats);
    event Disputed(bytes32 indexed job, bytes32 indexed id, address indexed by, uint64 index);
    event Drawn(bytes32 indexed id, uint8 round, bytes32 beacon, address[] panel, uint64 commitEnds);
    event Committed(bytes32 indexed id, uint8 round, address indexed verifier);
    event Voted(bytes32 indexed id, uint8 round, address indexed verifier, Outcome outcome, bytes32 answer);
    event Appealed(bytes32 indexed id, address indexed by);
    event Settled(bytes32 indexed id, Outcome verdict);
    /// @notice No stake of this account fills a seat, or it is on the roll already.
    error NotEnlisted(address account);
    /// @notice Nobody is on the roll of this epoch.
    error NobodyEnlisted(uint64 epoch);
    error AlreadyAppealed(bytes32 id);
    error NotOnPanel(address account);
    error WrongVote(bytes32 expected, bytes32 actual);

    function disputeOf(bytes32 id) external view returns (Dispute memory);
    function roundOf(bytes32 id, uint8 round) external view returns (Round memory);
    function EPOCH() external view returns (uint64);
    function SEAT() external view returns (uint128);

    /// @notice What a vote's promise is.
    function voteOf(bytes32 id, uint8 round, address verifier, Outcome outcome, bytes32 answer, bytes32 salt)
        external
        pure
        returns (bytes32);

    /// @notice Puts the caller on the roll of the next epoch, with a seat for each `SEAT` of its stake.
    function enlist() external;

    /// @notice Disputes the receipt at a place of the submitted log: verifiers shall execute a step again. The last
    /// one, the close receipt, speaks of all of them, as does every place behind it: a run that lacks what it was to
    /// have, or that nobody was given, is disputed there. So nothing of the run has to be shown here: the anchored
    /// head says which receipt is meant, and whether there is one the verifiers see.
    function dispute(bytes32 job, IJobEscrow.Terms calldata terms, uint64 index)
        external
        payable
        returns (bytes32 id);

    /// @notice Draws the panel, once a block decides; until then it only names that block. Anybody can.
    function draw(bytes32 id) external returns (bytes32 beacon);

    /// @notice For a panel's members: promises a vote, `voteOf`, once.
    function commit(bytes32 id, bytes32 vote) external;

    /// @notice For a panel's members: opens the vote. `answer` is that of docs/format.md, section 16.
    function reveal(bytes32 id, Outcome outcome, bytes32 answer, bytes32 salt) external;

    /// @notice Asks a larger panel, whose verdict is final.
    function appeal(bytes32 id, IJobEscrow.Terms calldata terms) external payable;

    /// @notice Ends a dispute. Votes for the verdict are paid their fee, out of the bond of their round. A refuted
    /// receipt refuses the job. Anybody can.
    function settle(bytes32 id, IJobEscrow.Terms calldata terms) external;
}
