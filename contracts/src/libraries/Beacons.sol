// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title A block's hash that nobody knew when it was asked for
/// @dev Whoever proposes that block can withhold it, for the price of its reward, and so draw once more:
/// the bias is bounded by the share of blocks that they propose. A hash that nobody fetched for 256 blocks is
/// lost, and a later block's takes its place; anybody prevents that by fetching it.
library Beacons {
    uint64 private constant KEPT = 256;

    /// @notice The block that decides, and its hash once it was fetched; both zero at first.
    struct Beacon {
        uint64 block;
        bytes32 hash;
    }

    /// @notice Goes on with a beacon: names the block, or fetches its hash; returns that, zero while there is none.
    function advance(Beacon storage beacon) internal returns (bytes32) {
        if (beacon.hash != 0) return beacon.hash;
        if (beacon.block == 0 || block.number > beacon.block + KEPT) {
            beacon.block = uint64(block.number) + 1;
        } else if (block.number > beacon.block) {
            beacon.hash = blockhash(beacon.block);
        }
        return beacon.hash;
    }
}
