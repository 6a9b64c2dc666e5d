// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IWorkSortition} from "../interfaces/IWorkSortition.sol";
import {Beacons} from "../libraries/Beacons.sol";
import {Sortition} from "../libraries/Sortition.sol";

/// @title Who is drawn by finalised work
/// @notice See `IWorkSortition`.
contract WorkSortition is IWorkSortition {
    using Beacons for Beacons.Beacon;
    using Sortition for Sortition.Roll;

    address private immutable ESCROW;
    uint256 private immutable FEE;
    uint256 private immutable ISSUANCE;
    /// @inheritdoc IWorkSortition
    uint64 public immutable EPOCH;

    /// @dev Of each epoch, what was finalised in it: the weights of the next one.
    mapping(uint64 epoch => Sortition.Roll) private rolls;
    mapping(uint64 epoch => Beacons.Beacon) private beacons;

    constructor(address escrow, uint64 epochSeconds, uint256 feePerUnit, uint256 mostIssued) {
        (ESCROW, EPOCH, FEE, ISSUANCE) = (escrow, epochSeconds, feePerUnit, mostIssued);
    }

    /// @inheritdoc IWorkSortition
    function epoch() public view returns (uint64) {
        return uint64(block.timestamp) / EPOCH;
    }

    /// @inheritdoc IWorkSortition
    function credit(address account, uint64 units) external {
        if (msg.sender != ESCROW) revert NotAllowed(msg.sender);
        uint64 running = epoch();
        rolls[running].add(account, units);
        emit Credited(running, account, units);
    }

    /// @inheritdoc IWorkSortition
    function seal(uint64 which) external returns (bytes32) {
        if (which > epoch()) revert NotBegun(which);
        return beacons[which].advance();
    }

    /// @inheritdoc IWorkSortition
    function unitsOf(uint64 which) public view returns (uint128) {
        return which == 0 ? 0 : rolls[which - 1].total();
    }

    /// @inheritdoc IWorkSortition
    function proposer(uint64 which, uint64 slot) external view returns (address) {
        bytes32 beacon = beacons[which].hash;
        if (beacon == 0) revert NotSealed(which);
        return which == 0 ? address(0) : rolls[which - 1].draw(beacon, slot);
    }

    /// @inheritdoc IWorkSortition
    function issuance(uint64 which) external view returns (uint256) {
        uint256 most = FEE * unitsOf(which) * 9 / 10;
        return most < ISSUANCE ? most : ISSUANCE;
    }
}
