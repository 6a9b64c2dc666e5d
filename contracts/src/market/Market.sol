// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IChallenge} from "../interfaces/IChallenge.sol";
import {IDisputes} from "../interfaces/IDisputes.sol";
import {IJobEscrow} from "../interfaces/IJobEscrow.sol";
import {IMarket} from "../interfaces/IMarket.sol";
import {IRunLedger} from "../interfaces/IRunLedger.sol";
import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {IWorkSortition} from "../interfaces/IWorkSortition.sol";
import {Challenge} from "./Challenge.sol";
import {Disputes} from "./Disputes.sol";
import {JobEscrow} from "./JobEscrow.sol";
import {StakeVault} from "./StakeVault.sol";
import {WorkSortition} from "./WorkSortition.sol";

/// @title A market
/// @notice See `IMarket`.
contract Market is IMarket {
    /// @dev Phases that a dispute has at most: two rounds of drawing, promising and revealing, and the appeal.
    uint64 private constant PHASES = 7;
    uint64 private constant LONGEST = 365 days;

    IRunLedger public immutable LEDGER;
    IStakeVault public immutable VAULT;
    IJobEscrow public immutable ESCROW;
    IChallenge public immutable CHALLENGE;
    IDisputes public immutable DISPUTES;
    IWorkSortition public immutable SORTITION;
    Parameters private chosen;

    constructor(IRunLedger ledger, Parameters memory p) {
        if (p.vote == 0 || p.vote > LONGEST) revert WrongParameters(0);
        if (p.epoch == 0 || p.epoch > LONGEST) revert WrongParameters(1);
        if (p.shortestWindow == 0) revert WrongParameters(2);
        if (p.longestWindow < p.shortestWindow || p.longestWindow > LONGEST) revert WrongParameters(3);
        if (p.seat == 0) revert WrongParameters(4);
        if (p.feePerUnit == 0) revert WrongParameters(5);
        (LEDGER, chosen) = (ledger, p);
        // What leaves can be slashed until every dispute is over that could have begun before, and backs no seat of
        // two accounts in one epoch.
        uint64 exitDelay = p.longestWindow + PHASES * p.vote + 2 * p.epoch;
        (address escrow, address challenge, address disputes) = (created(3), created(4), created(5));
        VAULT = new StakeVault(escrow, challenge, exitDelay);
        SORTITION = new WorkSortition(escrow, p.epoch, p.feePerUnit, p.issuance);
        ESCROW = new JobEscrow(
            ledger, VAULT, SORTITION, challenge, disputes, p.feePerUnit, p.shortestWindow, p.longestWindow
        );
        CHALLENGE = new Challenge(ledger, VAULT, ESCROW, p.vote);
        DISPUTES = new Disputes(VAULT, ESCROW, p.vote, p.epoch, p.seat);
        assert(address(ESCROW) == escrow && address(CHALLENGE) == challenge);
        assert(address(DISPUTES) == disputes);
        emit Opened(ledger, p);
    }

    /// @inheritdoc IMarket
    function parameters() external view returns (Parameters memory) {
        return chosen;
    }

    /// @dev The contract that this one creates as its `nonce`-th: keccak256(rlp([address, nonce])).
    function created(uint8 nonce) private view returns (address) {
        return address(uint160(uint256(keccak256(abi.encodePacked(hex"d694", address(this), nonce)))));
    }
}
