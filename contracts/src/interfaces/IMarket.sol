// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IChallenge} from "./IChallenge.sol";
import {IDisputes} from "./IDisputes.sol";
import {IJobEscrow} from "./IJobEscrow.sol";
import {IRunLedger} from "./IRunLedger.sol";
import {IStakeVault} from "./IStakeVault.sol";
import {IWorkSortition} from "./IWorkSortition.sol";

/// @title A market
/// @notice Creates the contracts that know each other and no one else: nobody owns them, and nothing in them can be
/// changed.
interface IMarket {
    /// @param vote Seconds for each phase of a dispute, and for an answer to a demand.
    /// @param epoch Seconds.
    /// @param shortestWindow Seconds; the challenge windows that jobs may have.
    /// @param longestWindow Seconds.
    /// @param seat Stake for one seat on the roll of verifiers, wei.
    /// @param feePerUnit Burned for each unit of work that is finalised, wei.
    /// @param issuance The most that may be issued in an epoch for finalised work, wei.
    struct Parameters {
        uint64 vote;
        uint64 epoch;
        uint64 shortestWindow;
        uint64 longestWindow;
        uint128 seat;
        uint128 feePerUnit;
        uint128 issuance;
    }

    event Opened(IRunLedger ledger, Parameters parameters);

    /// @notice These parameters make no market; `place` counts their members from 0.
    error WrongParameters(uint8 place);

    function VAULT() external view returns (IStakeVault);
    function ESCROW() external view returns (IJobEscrow);
    function CHALLENGE() external view returns (IChallenge);
    function DISPUTES() external view returns (IDisputes);
    function SORTITION() external view returns (IWorkSortition);
    function LEDGER() external view returns (IRunLedger);
    function parameters() external view returns (Parameters memory);
}
