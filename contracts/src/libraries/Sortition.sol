// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title Draws of accounts by weight
/// @dev Equal to the Rust core's `sortition`, by tests/vectors/sortition.json. Weights are additive, so an
/// account gains nothing by appearing as several.
library Sortition {
    bytes32 private constant TAG = keccak256("counterfoil.sortition.v1");

    /// @notice Accounts and the sums of the weights up to and with each of them. Only grows.
    struct Roll {
        address[] accounts;
        uint128[] sums;
    }

    function add(Roll storage roll, address account, uint128 weight) internal {
        roll.sums.push(total(roll) + weight);
        roll.accounts.push(account);
    }

    function total(Roll storage roll) internal view returns (uint128) {
        uint256 count = roll.sums.length;
        return count == 0 ? 0 : roll.sums[count - 1];
    }

    /// @notice The account whose weight the draw numbered `slot` meets; zero if there are no weights.
    function draw(Roll storage roll, bytes32 beacon, uint64 slot) internal view returns (address) {
        uint128 sum = total(roll);
        if (sum == 0) return address(0);
        uint128 met = number(beacon, slot, sum);
        (uint256 low, uint256 high) = (0, roll.sums.length - 1);
        while (low < high) {
            uint256 middle = (low + high) / 2;
            if (roll.sums[middle] > met) high = middle;
            else low = middle + 1;
        }
        return roll.accounts[low];
    }

    /// @notice A number below `sum`; no number is more likely than another by more than `sum / 2^256`.
    function number(bytes32 beacon, uint64 slot, uint128 sum) internal pure returns (uint128) {
        return uint128(uint256(keccak256(abi.encode(TAG, beacon, slot))) % sum);
    }
}
