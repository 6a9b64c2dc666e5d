// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Sortition} from "../src/libraries/Sortition.sol";
import {Case} from "./Case.sol";

/// @dev Halmos proves these for all numbers up to the bounds; they are no tests of forge's.
contract MarketSymbolic is Case {
    using Sortition for Sortition.Roll;

    Sortition.Roll private roll;

    /// A draw that meets another account than the first one whose weights, added up, exceed the number: for every
    /// roll of four weights, whatever they are, and every number.
    function check_draw_is_a_linear_search(uint32[4] calldata weights, uint64 slot, bytes32 beacon) external {
        uint256 sum;
        for (uint256 n = 0; n < 4; ++n) {
            roll.add(address(uint160(1 + n)), weights[n]);
            sum += weights[n];
        }
        vm.assume(sum != 0);
        uint128 number = Sortition.number(beacon, slot, uint128(sum));
        vm.assume(number < sum);
        address winner = roll.draw(beacon, slot);
        uint256 before;
        uint256 place = 4;
        for (uint256 n = 0; n < 4 && place == 4; ++n) {
            before += weights[n];
            if (before > number) place = n;
        }
        assert(winner == address(uint160(1 + place)));
        assert(weights[place] != 0);
    }

    /// The price of the next dispute, shifted, against twice the one before: no number of them is free, or
    /// cheaper than the last, within what coins there are.
    function check_the_price_doubles(uint128 fee, uint8 made) external pure {
        vm.assume(fee != 0 && made < 120);
        uint256 price = 4 * uint256(fee) << made;
        assert(4 * uint256(fee) << (uint256(made) + 1) == 2 * price);
        assert(price >= 4 * uint256(fee) && price >> made == 4 * uint256(fee));
    }
}
