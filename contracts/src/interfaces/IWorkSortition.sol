// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title Who is drawn by finalised work
/// @notice An account's weight in an epoch is the units of work that were finalised for it in the epoch
/// before, which ended before the block that draws was named. A chain that chooses proposers, or anybody who
/// hands out something by useful work, asks `proposer` and `issuance`; this contract itself pays nobody.
interface IWorkSortition {
    event Credited(uint64 indexed epoch, address indexed account, uint64 units);

    error NotAllowed(address caller);
    /// @notice Epoch `epoch` has not begun, so that weights of the one before may still change.
    error NotBegun(uint64 epoch);
    /// @notice No block's hash was fetched yet: call `seal` until there is one.
    error NotSealed(uint64 epoch);

    function EPOCH() external view returns (uint64);

    /// @notice The epoch that is running: Unix seconds divided by `EPOCH`.
    function epoch() external view returns (uint64);

    /// @notice For the escrow alone.
    function credit(address account, uint64 units) external;

    /// @notice Names the block that draws for an epoch that has begun, or fetches its hash; that hash, zero while
    /// there is none. Anybody can.
    function seal(uint64 epoch) external returns (bytes32 beacon);

    /// @notice Sum of the weights of an epoch.
    function unitsOf(uint64 epoch) external view returns (uint128);

    /// @notice The account that the draw numbered `slot` of an epoch meets; zero if there are no weights.
    function proposer(uint64 epoch, uint64 slot) external view returns (address);

    /// @notice The most that may be issued in an epoch for the work that weighs in it, wei: never more than nine
    /// tenths of the fees that were burned for this work, so that nobody gains by paying themselves.
    function issuance(uint64 epoch) external view returns (uint256);
}
