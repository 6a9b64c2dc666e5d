// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {Purse} from "./Purse.sol";

/// @title Stake
/// @notice See `IStakeVault`.
contract StakeVault is IStakeVault, Purse {
    address private immutable ESCROW;
    address private immutable CHALLENGE;
    /// @inheritdoc IStakeVault
    uint64 public immutable EXIT_DELAY;

    mapping(address account => Stake) private stakes;

    constructor(address escrow, address challenge, uint64 exitDelay) {
        (ESCROW, CHALLENGE, EXIT_DELAY) = (escrow, challenge, exitDelay);
    }

    modifier only(address caller) {
        if (msg.sender != caller) revert NotAllowed(msg.sender);
        _;
    }

    /// @inheritdoc IStakeVault
    function stakeOf(address account) external view returns (Stake memory) {
        return stakes[account];
    }

    /// @inheritdoc IStakeVault
    function weightOf(address account) external view returns (uint128) {
        return stakes[account].free + stakes[account].locked;
    }

    /// @inheritdoc IStakeVault
    function deposit(address account) external payable {
        stakes[account].free += uint128(msg.value);
        emit Deposited(account, msg.sender, msg.value);
    }

    /// @inheritdoc IStakeVault
    function beginExit(uint128 amount) external {
        Stake storage stake = stakes[msg.sender];
        take(msg.sender, amount);
        stake.leaving += amount;
        stake.release = uint64(block.timestamp) + EXIT_DELAY;
        emit ExitBegun(msg.sender, amount, stake.release);
    }

    /// @inheritdoc IStakeVault
    function exit() external {
        Stake storage stake = stakes[msg.sender];
        if (block.timestamp < stake.release) revert TooEarly(stake.release);
        uint128 amount = stake.leaving;
        stake.leaving = 0;
        owe(msg.sender, amount);
        emit Exited(msg.sender, amount);
    }

    /// @inheritdoc IStakeVault
    function lock(address account, uint128 amount) external only(ESCROW) {
        take(account, amount);
        stakes[account].locked += amount;
    }

    /// @inheritdoc IStakeVault
    function unlock(address account, uint128 amount) external only(ESCROW) {
        stakes[account].locked -= amount;
        stakes[account].free += amount;
    }

    /// @inheritdoc IStakeVault
    function slash(address account, uint128 amount, bool isLocked, address beneficiary)
        external
        only(CHALLENGE)
        returns (uint256 taken)
    {
        Stake storage stake = stakes[account];
        if (isLocked) {
            stake.locked -= amount;
            taken = amount;
        } else {
            uint128 ofFree = least(amount, stake.free);
            uint128 ofLeaving = least(amount - ofFree, stake.leaving);
            stake.free -= ofFree;
            stake.leaving -= ofLeaving;
            taken = ofFree + ofLeaving;
        }
        uint256 share = taken / 2;
        owe(beneficiary, share);
        burn(taken - share);
        emit Slashed(account, taken, beneficiary, share);
    }

    function take(address account, uint128 amount) private {
        uint128 free = stakes[account].free;
        if (free < amount) revert NotEnoughStake(account, amount, free);
        stakes[account].free = free - amount;
    }

    function least(uint128 a, uint128 b) private pure returns (uint128) {
        return a < b ? a : b;
    }
}
