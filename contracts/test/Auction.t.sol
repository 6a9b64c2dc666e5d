// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {MarketCase} from "./MarketCase.sol";

/// @title Who gets a job, and at what price
contract AuctionTest is MarketCase {
    function setUp() external {
        openMarket();
    }

    /// @dev Reveals bids of keys 40, 41, ... in turn; who leads, and for what.
    function auction(uint128[] memory prices) private returns (uint256 leader, uint128 price) {
        IJobEscrow.Terms memory t = terms();
        t.salt = keccak256(abi.encode(prices));
        vm.warp(BEGIN);
        post(t);
        for (uint256 n = 0; n < prices.length; ++n) {
            stake(40 + n);
            bid(t, 40 + n, prices[n]);
        }
        vm.warp(t.biddingEnds);
        for (uint256 n = 0; n < prices.length; ++n) {
            reveal(t, 40 + n, prices[n]);
        }
        IJobEscrow.Job memory known = escrow.jobOf(job);
        for (uint256 n = 0; n < prices.length; ++n) {
            if (known.worker == vm.addr(40 + n)) leader = 40 + n;
            IStakeVault.Stake memory one = vault.stakeOf(vm.addr(40 + n));
            equal(one.locked, known.worker == vm.addr(40 + n) ? STAKE : 0, "only the leader's stake");
            if (one.locked == 0) owes(escrow, vm.addr(40 + n), DEPOSIT, "the others' deposits");
        }
        price = known.next;
        vm.warp(t.acceptEnds);
        if (leader != 0) escrow.reclaim(job, t);
        for (uint256 n = 0; n < prices.length; ++n) {
            address bidder = vm.addr(40 + n);
            if (escrow.owed(bidder) == 0) continue;
            send(bidder, address(escrow), 0, abi.encodeWithSignature("withdraw(address)", bidder));
        }
    }

    /// The price of a second bid that was not there, that exceeded the reward, or of the first one itself.
    function test_the_second_price_is_paid() external {
        uint128[6][11] memory cases = [
            // Number of bids, bids, leader's place, price.
            [uint128(1), 600, 0, 0, 0, 1000],
            [uint128(2), 600, 700, 0, 0, 700],
            [uint128(2), 700, 600, 0, 1, 700],
            [uint128(3), 900, 600, 700, 1, 700],
            [uint128(3), 600, 900, 700, 0, 700],
            [uint128(3), 700, 600, 500, 2, 600],
            [uint128(2), 600, 600, 0, 0, 600],
            [uint128(2), 600, 1001, 0, 0, 1000],
            [uint128(2), 1001, 600, 0, 1, 1000],
            [uint128(2), 1000, 0, 0, 1, 1000],
            [uint128(1), 1001, 0, 0, 9, 1000]
        ];
        for (uint256 n = 0; n < cases.length; ++n) {
            uint128[] memory prices = new uint128[](cases[n][0]);
            for (uint256 place = 0; place < prices.length; ++place) {
                prices[place] = cases[n][1 + place];
            }
            (uint256 leader, uint128 price) = auction(prices);
            equal(leader, cases[n][4] == 9 ? 0 : 40 + cases[n][4], "leader");
            equal(price, cases[n][5], "price");
        }
    }

    /// Any bids in any order, against sorting them.
    function testFuzz_the_second_price_is_paid(uint128[4] memory seeds, uint8 number) external {
        uint128[] memory prices = new uint128[](1 + number % 4);
        for (uint256 n = 0; n < prices.length; ++n) {
            prices[n] = seeds[n] % 1200;
        }
        (uint256 leader, uint128 price) = auction(prices);
        uint256 place = prices.length;
        uint128 second = REWARD;
        for (uint256 n = 0; n < prices.length; ++n) {
            if (prices[n] <= REWARD && (place == prices.length || prices[n] < prices[place])) place = n;
        }
        for (uint256 n = 0; n < prices.length; ++n) {
            if (n != place && prices[n] < second) second = prices[n];
        }
        equal(leader, place == prices.length ? 0 : 40 + place, "leader");
        equal(price, second, "price");
    }
}
