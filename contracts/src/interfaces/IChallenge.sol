// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Receipts} from "../libraries/Receipts.sol";
import {IJobEscrow} from "./IJobEscrow.sol";
import {IOpenings} from "./IOpenings.sol";
import {IRunLedger} from "./IRunLedger.sol";
import {ISubmissions} from "./ISubmissions.sol";

/// @title What the chain decides about a submitted run
/// @notice Faults that show in the receipts themselves, and answers that are missing. Such a fault ends the job at
/// once: the worker's stake is slashed, half of it to who showed it, and the reward goes back. A proof is
/// its own bond: one that shows no fault reverts.
/// @dev Receipts that a delegated key signed are judged by whoever verifies the run, not here.
interface IChallenge is ISubmissions {
    /// @notice Where a kilobyte lies.
    /// @param index The receipt. This and the two last are of any size, and taken modulo what there is.
    /// @param field A state of steps, counted after the header; of checkpoints, 16 more.
    struct Place {
        uint64 index;
        uint8 field;
        uint64 entry;
        uint64 chunk;
    }

    struct Demand {
        bytes32 job;
        address by;
        uint64 answerEnds;
        bool isSettled;
        uint256 bond;
        Place place;
    }

    event Demanded(
        bytes32 indexed job, bytes32 indexed id, address indexed by, Place place, uint64 answerEnds
    );
    /// @notice The answer itself is the transaction's input.
    event Answered(bytes32 indexed id);
    /// @notice `fault`: 1 contradiction, 2 misplaced, 3 signature, 4 pinned value, 5 no answer.
    event Convicted(bytes32 indexed job, address indexed worker, uint8 fault, address indexed by);

    /// @notice The field is not one that the job's worker must open.
    error NotOpenable(uint8 field);
    /// @notice The receipt is not at this place of the submitted head.
    error NotSubmitted(uint64 index);
    /// @notice The answer is for another place.
    error WrongPlace(uint64 expected, uint64 actual);
    /// @notice What was shown is no fault.
    error NoFault();

    function demandOf(bytes32 id) external view returns (Demand memory);

    /// @notice Demands one kilobyte of the worker.
    function demand(bytes32 job, IJobEscrow.Terms calldata terms, Place calldata place)
        external
        payable
        returns (bytes32 id);

    /// @notice Answers a demand. Anybody can; the worker has the fee. Of the opening, body and field are not read.
    /// @dev The receipt at the place, taken modulo the head's size; a receipt of another kind, a field that was not
    /// given, a state without entries, an entry without bytes: each is an answer too.
    function answer(
        bytes32 id,
        IJobEscrow.Terms calldata terms,
        IRunLedger.Head calldata head,
        Receipts.Included calldata step,
        IOpenings.Opening calldata opening
    ) external;

    /// @notice A demand that nobody answered in time convicts. Anybody can; the demander has half of the stake.
    function expire(bytes32 id, IJobEscrow.Terms calldata terms) external;

    /// @notice Convicts a worker that signed two receipts for one place, or two roots for one size.
    function proveContradiction(
        bytes32 job,
        IJobEscrow.Terms calldata terms,
        Receipts.Signed calldata one,
        Receipts.Signed calldata other
    ) external;

    /// @notice Convicts a worker whose submitted log has, at some place, another run's, worker's, lane's or place's
    /// receipt, or one that does not name the receipt before it.
    function proveMisplaced(
        bytes32 job,
        IJobEscrow.Terms calldata terms,
        IRunLedger.Head calldata head,
        Receipts.Included calldata receipt,
        Receipts.Included calldata before
    ) external;

    /// @notice Convicts a worker whose submitted log has a receipt that it did not sign.
    function proveSignature(
        bytes32 job,
        IJobEscrow.Terms calldata terms,
        IRunLedger.Head calldata head,
        Receipts.Included calldata receipt
    ) external;

    /// @notice Convicts a worker one of whose steps has another value than the job pins: a learning rate, say.
    /// @param pin `step (u64, 0 for each) || field (u8) || length of the name (u16) || name || value`, a leaf of the
    /// tree of RFC 9162 under the terms' `pins`. The value is the first kilobyte of the tensor of that name.
    function provePin(
        bytes32 job,
        IJobEscrow.Terms calldata terms,
        IRunLedger.Head calldata head,
        Receipts.Included calldata step,
        IOpenings.Opening calldata opening,
        bytes calldata pin,
        uint64 pinIndex,
        bytes32[] calldata pinProof
    ) external;

    /// @notice Takes what a conviction could not, because the worker's stake answered for other jobs then. Anybody can;
    /// it goes where the conviction's share went.
    function collect(bytes32 job) external;
}
