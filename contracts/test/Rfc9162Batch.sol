// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Rfc9162} from "../src/libraries/Rfc9162.sol";

/// @title Many questions to `Rfc9162` in one call
/// @notice For tests alone: they compare the answers with those of the Rust core.
contract Rfc9162Batch {
    struct Inclusion {
        bytes32 root;
        uint64 size;
        bytes32 leaf;
        uint64 index;
        bytes32[] proof;
    }

    struct Consistency {
        uint64 previousSize;
        bytes32 previousRoot;
        uint64 size;
        bytes32 root;
        bytes32[] proof;
    }

    /// @notice `Rfc9162.includes` for each question.
    function includes(Inclusion[] calldata questions) external view returns (bool[] memory answers) {
        answers = new bool[](questions.length);
        for (uint256 n = 0; n < questions.length; ++n) {
            Inclusion calldata q = questions[n];
            answers[n] = Rfc9162.includes(q.root, q.size, q.leaf, q.index, q.proof);
        }
    }

    /// @notice `Rfc9162.isConsistent` for each question.
    function isConsistent(Consistency[] calldata questions) external view returns (bool[] memory answers) {
        answers = new bool[](questions.length);
        for (uint256 n = 0; n < questions.length; ++n) {
            Consistency calldata q = questions[n];
            answers[n] = Rfc9162.isConsistent(q.previousSize, q.previousRoot, q.size, q.root, q.proof);
        }
    }
}
