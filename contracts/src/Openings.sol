// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IOpenings} from "./interfaces/IOpenings.sol";
import {Receipts} from "./libraries/Receipts.sol";
import {States} from "./libraries/States.sol";

/// @title Openings of step receipts
/// @notice See `IOpenings`.
contract Openings is IOpenings {
    /// @inheritdoc IOpenings
    function open(Opening calldata opening) external view returns (bytes32 digest, bytes memory name) {
        if (!Receipts.isStep(opening.body)) revert NotStep();
        if (opening.field >= 16 || !Receipts.isState(opening.field)) revert NotState(opening.field);
        name = States.checkChunk(opening);
        bytes32 actual = States.commitment(opening);
        bytes32 expected = bytes32(Receipts.word(opening.body, Receipts.HEADER + opening.field));
        if (actual != expected) revert WrongCommitment(expected, actual);
        digest = Receipts.digestOf(Receipts.STEP, opening.body);
    }
}
