// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IMarket} from "../src/interfaces/IMarket.sol";
import {IWorkSortition} from "../src/interfaces/IWorkSortition.sol";
import {Sortition} from "../src/libraries/Sortition.sol";
import {MarketCase} from "./MarketCase.sol";

/// @title Draws by finalised work, against a search through all weights
contract WorkSortitionTest is MarketCase {
    using Sortition for Sortition.Roll;

    uint64 private constant NOW = BEGIN / EPOCH;
    Sortition.Roll private roll;

    function setUp() external {
        openMarket();
    }

    function credit(address account, uint64 units) private {
        send(address(escrow), address(sortition), 0, abi.encodeCall(IWorkSortition.credit, (account, units)));
    }

    function fails(address from, bytes memory data, bytes memory reason) private {
        refuse(from, address(sortition), 0, data, reason);
    }

    /// @dev The first account whose weights, added up, exceed the number.
    function search(uint128[] memory weights, uint256 number) private pure returns (uint256 place) {
        uint256 sum;
        for (place = 0; place < weights.length; ++place) {
            sum += weights[place];
            if (sum > number) return place;
        }
    }

    function numberOf(bytes32 beacon, uint64 slot, uint256 sum) private pure returns (uint256) {
        bytes memory preimage = abi.encodePacked(keccak256("counterfoil.sortition.v1"), beacon, uint256(slot));
        return uint256(keccak256(preimage)) % sum;
    }

    /// Work that counts in the epoch in which it was finalised, whose beacon somebody may know already.
    function test_weights_are_those_of_the_epoch_before() external {
        credit(vm.addr(1), 5);
        credit(vm.addr(2), 7);
        credit(vm.addr(1), 1);
        require(sortition.epoch() == NOW && sortition.unitsOf(NOW) == 0, "no weights yet");
        equal(sortition.unitsOf(NOW + 1), 13, "weights of the next one");
        bytes memory data = abi.encodeCall(IWorkSortition.seal, (NOW + 1));
        bytes memory reason = abi.encodeWithSelector(IWorkSortition.NotBegun.selector, NOW + 1);
        vm.warp(BEGIN + EPOCH - 1);
        fails(REQUESTER, data, reason);
        vm.warp(BEGIN + EPOCH);
        data = abi.encodeCall(IWorkSortition.proposer, (NOW + 1, 0));
        reason = abi.encodeWithSelector(IWorkSortition.NotSealed.selector, NOW + 1);
        fails(REQUESTER, data, reason);
        require(sortition.seal(NOW + 1) == 0, "a block that is over");
        // Whoever finalises now weighs in the epoch after: the block that draws is named, and soon known.
        credit(vm.addr(3), 1_000);
        equal(sortition.unitsOf(NOW + 1), 13, "frozen");
        mine();
        bytes32 beacon = sortition.seal(NOW + 1);
        require(beacon == blockhash(height - 1) && beacon != 0, "beacon");
        uint128[] memory weights = new uint128[](3);
        (weights[0], weights[1], weights[2]) = (5, 7, 1);
        for (uint64 slot = 0; slot < 64; ++slot) {
            uint256 place = search(weights, numberOf(beacon, slot, 13));
            address winner = sortition.proposer(NOW + 1, slot);
            require(winner == vm.addr(place == 1 ? 2 : 1), "winner");
        }
        mine();
        require(sortition.seal(NOW + 1) == beacon, "sealed once");
    }

    /// Weights of nobody, credited by a stranger, or drawn from where there are none.
    function test_nobody_weighs_nothing() external {
        bytes memory data = abi.encodeCall(IWorkSortition.credit, (CHALLENGER, 5));
        fails(CHALLENGER, data, abi.encodeWithSelector(IWorkSortition.NotAllowed.selector, CHALLENGER));
        require(sortition.seal(NOW) == 0 && sortition.seal(0) == 0, "named");
        mine();
        require(sortition.seal(NOW) != 0 && sortition.seal(0) != 0, "sealed");
        require(sortition.proposer(NOW, 3) == address(0), "no weights");
        require(sortition.proposer(0, 3) == address(0) && sortition.unitsOf(0) == 0, "epoch 0");
    }

    /// More issued than nine tenths of what was burned for the work, or than the market allows.
    function testFuzz_issuance_is_below_what_was_burned(uint64 one, uint64 other, uint64 cap) external {
        IMarket.Parameters memory p = parameters();
        p.issuance = cap;
        IMarket own = IMarket(deploy("artifacts/Market.json", abi.encode(chain, p)));
        (sortition, escrow) = (own.SORTITION(), own.ESCROW());
        credit(vm.addr(1), one);
        credit(vm.addr(2), other);
        uint256 burned = (uint256(one) + other) * FEE_PER_UNIT;
        uint256 most = sortition.issuance(NOW + 1);
        require(most * 10 <= burned * 9 && most <= cap, "too much");
        require(most == cap || most * 10 + 10 > burned * 9, "less than the rule gives");
    }

    /// Vectors of the Rust core: another number, another winner, or a weight of zero that wins.
    function test_draws_are_those_of_the_vectors() external {
        string memory json = vm.readFile("../tests/vectors/sortition.json");
        uint256 cases;
        for (; vm.keyExistsJson(json, vector(cases, "")); ++cases) {
            uint256[] memory weights = vm.parseJsonUintArray(json, vector(cases, ".weights"));
            bytes32 beacon = vm.parseJsonBytes32(json, vector(cases, ".beacon"));
            uint64 slot = uint64(vm.parseJsonUint(json, vector(cases, ".slot")));
            delete roll;
            for (uint256 n = 0; n < weights.length; ++n) {
                roll.add(address(uint160(1 + n)), uint128(weights[n]));
            }
            uint256 expected = vm.parseJsonUint(json, vector(cases, ".number"));
            equal(Sortition.number(beacon, slot, roll.total()), expected, "number");
            uint256 winner = vm.parseJsonUint(json, vector(cases, ".winner"));
            require(roll.draw(beacon, slot) == address(uint160(1 + winner)), "winner");
        }
        require(cases >= 40, "vectors");
    }

    function vector(uint256 place, string memory member) private pure returns (string memory) {
        return string.concat("$[", vm.toString(place), "]", member);
    }

    /// Any weights, zeros among them, against a search through all.
    function testFuzz_a_draw_is_a_search(uint16[12] memory seeds, uint8 count, bytes32 beacon, uint64 slot)
        external
    {
        uint128[] memory weights = new uint128[](1 + count % 12);
        uint256 sum;
        for (uint256 n = 0; n < weights.length; ++n) {
            weights[n] = seeds[n] % 3 == 0 ? 0 : seeds[n];
            sum += weights[n];
            roll.add(address(uint160(1 + n)), weights[n]);
        }
        address winner = roll.draw(beacon, slot);
        if (sum == 0) {
            require(winner == address(0), "nobody");
            return;
        }
        uint256 place = search(weights, numberOf(beacon, slot, sum));
        require(winner == address(uint160(1 + place)) && weights[place] != 0, "another winner");
    }

    /// Every number of every roll of up to four weights from 0 to 3: a draw for each is too many, so the slots are
    /// searched for one that meets it.
    function test_small_rolls_are_drawn_as_searched() external {
        for (uint256 code = 0; code < 256; ++code) {
            uint128[] memory weights = new uint128[](4);
            delete roll;
            uint256 sum;
            for (uint256 n = 0; n < 4; ++n) {
                weights[n] = uint128((code >> (2 * n)) & 3);
                sum += weights[n];
                roll.add(address(uint160(1 + n)), weights[n]);
            }
            uint256 met;
            for (uint64 slot = 0; met + 1 < 1 << sum; ++slot) {
                uint256 value = numberOf(bytes32(code), slot, sum);
                if ((met >> value) & 1 == 1) continue;
                met |= 1 << value;
                address winner = roll.draw(bytes32(code), slot);
                require(winner == address(uint160(1 + search(weights, value))), "another winner");
            }
        }
    }
}
