// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title Money that waits for its owner
interface IPurse {
    event Withdrawn(address indexed account, address indexed to, uint256 amount);

    /// @notice Nothing is owed to this account, or it named nobody who shall receive it.
    error NothingToWithdraw(address account);
    /// @notice The receiver refused the money; it is still owed.
    error NotReceived(address to, uint256 amount);

    /// @notice What an account can withdraw, wei; for the zero address what was burned.
    function owed(address account) external view returns (uint256);

    /// @notice Sends everything that is owed to the caller.
    function withdraw(address payable to) external returns (uint256 amount);
}
