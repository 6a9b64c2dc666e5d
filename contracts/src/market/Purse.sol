// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IPurse} from "../interfaces/IPurse.sol";

/// @title What a contract owes
/// @dev Nothing is sent to anybody who did not ask for it, so nobody's code stands in another's way. What is
/// burned is owed to the zero address, which nobody is.
abstract contract Purse is IPurse {
    /// @inheritdoc IPurse
    mapping(address account => uint256) public owed;

    /// @inheritdoc IPurse
    function withdraw(address payable to) external returns (uint256 amount) {
        amount = owed[msg.sender];
        if (amount == 0 || to == address(0)) revert NothingToWithdraw(msg.sender);
        owed[msg.sender] = 0;
        emit Withdrawn(msg.sender, to, amount);
        bool sent;
        // Copies nothing of what the receiver answers.
        assembly ("memory-safe") {
            sent := call(gas(), to, amount, 0, 0, 0, 0)
        }
        if (!sent) revert NotReceived(to, amount);
    }

    function owe(address account, uint256 amount) internal {
        owed[account] += amount;
    }

    function burn(uint256 amount) internal {
        owed[address(0)] += amount;
    }
}
