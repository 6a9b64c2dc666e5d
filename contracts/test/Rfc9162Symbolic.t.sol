// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Rfc9162} from "../src/libraries/Rfc9162.sol";
import {Case} from "./Case.sol";

/// @dev Halmos proves these for all numbers up to the bounds; they are no tests of forge's.
contract Rfc9162Symbolic is Case {
    uint256 private constant LARGEST = 32;

    /// The walk of an inclusion takes other turns than PATH of RFC 9162, 2.1.3.1, or another number of them.
    function check_inclusion_turns_as_defined(uint8 index, uint8 size) external pure {
        vm.assume(index < size && size <= LARGEST);
        (uint256 turns, uint256 length) = Rfc9162.path(index, uint256(size) - 1);
        // From the top; one bit above all turns.
        (uint256 expected, uint256 levels, uint256 extent, uint256 place) = (1, 0, size, index);
        while (extent > 1) {
            uint256 left = split(extent);
            bool isRight = place >= left;
            expected = (expected << 1) | (isRight ? 1 : 0);
            (place, extent) = isRight ? (place - left, extent - left) : (place, left);
            ++levels;
        }
        assert(length == levels && turns == expected);
    }

    /// The walk of a consistency proof turns otherwise than SUBPROOF of RFC 9162, 2.1.4.1, or takes the whole
    /// previous tree for a part of it.
    function check_consistency_turns_as_defined(uint8 m, uint8 size) external pure {
        vm.assume(0 < m && m < size && size <= LARGEST);
        (uint256 edge, uint256 last) = (uint256(m) - 1, uint256(size) - 1);
        while (edge & 1 == 1) {
            (edge, last) = (edge >> 1, last >> 1);
        }
        (uint256 turns, uint256 length) = Rfc9162.path(edge, last);
        (uint256 expected, uint256 levels, uint256 extent, uint256 place) = (1, 0, size, m);
        while (place < extent) {
            uint256 left = split(extent);
            bool isRight = place > left;
            expected = (expected << 1) | (isRight ? 1 : 0);
            (place, extent) = isRight ? (place - left, extent - left) : (place, left);
            ++levels;
        }
        assert(length == levels && turns == expected);
        // No right turn: the subtree at the edge is the whole previous tree.
        assert((edge == 0) == (expected == 1 << levels));
    }
}
