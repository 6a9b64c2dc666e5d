// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IPurse} from "./IPurse.sol";

/// @title Stake
/// @notice Coins that answer for what their account does. Nobody but the account takes them out, after a
/// delay longer than any dispute, and nobody but the contract `CHALLENGE` takes them away.
interface IStakeVault is IPurse {
    /// @param free Answers for nothing at the moment.
    /// @param locked Answers for jobs that are not settled.
    /// @param leaving Leaves at `release`, and can be slashed until then.
    struct Stake {
        uint128 free;
        uint128 locked;
        uint128 leaving;
        uint64 release;
    }

    event Deposited(address indexed account, address by, uint256 amount);
    event ExitBegun(address indexed account, uint256 amount, uint64 release);
    event Exited(address indexed account, uint256 amount);
    event Slashed(address indexed account, uint256 amount, address indexed beneficiary, uint256 share);

    error NotAllowed(address caller);
    error NotEnoughStake(address account, uint256 needed, uint256 free);
    /// @notice What leaves can be slashed until `release`.
    error TooEarly(uint64 release);

    function stakeOf(address account) external view returns (Stake memory);

    /// @notice Free and locked, which is what seats are counted by.
    function weightOf(address account) external view returns (uint128);

    function EXIT_DELAY() external view returns (uint64);

    /// @notice Adds the value to an account's stake. Anybody can.
    function deposit(address account) external payable;

    /// @notice Begins to take out free stake. All that is leaving then leaves `EXIT_DELAY` from now.
    function beginExit(uint128 amount) external;

    /// @notice Moves what has left to what is owed to the caller.
    function exit() external;

    /// @notice For the escrow alone: lets stake answer for a job.
    function lock(address account, uint128 amount) external;

    /// @notice For the escrow alone.
    function unlock(address account, uint128 amount) external;

    /// @notice For the challenge contract alone. Takes up to `amount`: of the locked stake if `isLocked`, else of
    /// what is free and then of what is leaving. Half goes to the beneficiary, the rest is burned.
    function slash(address account, uint128 amount, bool isLocked, address beneficiary)
        external
        returns (uint256 taken);
}
