// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IChallenge} from "../src/interfaces/IChallenge.sol";
import {IDataListing} from "../src/interfaces/IDataListing.sol";
import {IDisputes} from "../src/interfaces/IDisputes.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IRunLedger} from "../src/interfaces/IRunLedger.sol";
import {ISubmissions} from "../src/interfaces/ISubmissions.sol";
import {Receipts} from "../src/libraries/Receipts.sol";
import {MarketCase} from "./MarketCase.sol";

/// @title Attacks that worked once
contract RegressionTest is MarketCase {
    function setUp() external {
        openMarket();
    }

    /// @dev A log without a step: the checkpoint and the close that say that all the work was done.
    function withoutSteps() private returns (Run memory r) {
        r = recorded(WORKER, run, UNITS, Fault.None);
        (r.receipts[0], r.receipts[1]) = (r.receipts[SIZE - 2], r.receipts[SIZE - 1]);
        bytes32[] memory leaves = new bytes32[](2);
        (leaves[0], leaves[1]) = (r.leaves[SIZE - 2], r.leaves[SIZE - 1]);
        r.leaves = leaves;
        r.head = IRunLedger.Head(2, root(leaves, 0, 2), keccak256("head"));
        IRunLedger.Anchor memory a = IRunLedger.Anchor(run, r.worker, 0, 0, 2, r.head.headDigest, r.head.root);
        send(r.worker, address(chain), 0, abi.encodeCall(IRunLedger.anchor, (a)));
    }

    function ofTwo(Run memory r, uint64 index) private pure returns (Receipts.Included memory) {
        return Receipts.Included(r.receipts[index], index, inclusion(r.leaves, 2, index));
    }

    /// A worker that submits no step at all, so that there was none to dispute, and is paid.
    function test_a_run_without_steps_is_disputed_by_its_close() external {
        IJobEscrow.Terms memory t = terms();
        accepted(t);
        Run memory r = withoutSteps();
        bytes memory data = abi.encodeCall(IJobEscrow.submit, (job, t, 0, r.head, ofTwo(r, 1), ofTwo(r, 0)));
        send(vm.addr(WORKER), address(escrow), 0, data);
        data = disputeData(t, 1);
        bytes32 id = abi.decode(send(CHALLENGER, address(disputes), 4 * FEE, data), (bytes32));
        voted(id, drawn(id), 0, 3);
        vm.warp(disputes.roundOf(id, 0).commitEnds + 2 * VOTE);
        disputes.settle(id, t);
        stateIs(IJobEscrow.State.Refused);
        equal(escrow.owed(vm.addr(WORKER)), DEPOSIT, "only the deposit");
    }

    /// A worker whose free stake answers for another job of its own when the fault is shown, and is slashed of
    /// nothing for ever.
    function test_stake_that_hides_in_another_job_is_taken_later() external {
        IJobEscrow.Terms memory t = terms();
        Run memory r = submitted(t, Fault.None);
        finalise(t);
        bytes32 first = job;
        address worker = vm.addr(WORKER);
        IJobEscrow.Terms memory own = terms();
        (own.salt, own.challengeWindow) = (keccak256("own"), WINDOW);
        (own.biddingEnds, own.revealEnds) = (t.workEnds + 2 * EPOCH, t.workEnds + 3 * EPOCH);
        (own.acceptEnds, own.workEnds) = (t.workEnds + 4 * EPOCH, t.workEnds + 5 * EPOCH);
        post(own);
        bid(own, WORKER, 1);
        vm.warp(own.biddingEnds);
        reveal(own, WORKER, 1);
        stakeIs(worker, 0, STAKE, 0);
        bytes memory proof =
            abi.encodeCall(IChallenge.proveContradiction, (first, t, r.receipts[2], changed(r, 2, WORKER)));
        send(CHALLENGER, address(challenge), 0, proof);
        stakeIs(worker, 0, STAKE, 0);
        challenge.collect(first);
        stakeIs(worker, 0, STAKE, 0);
        vm.warp(own.acceptEnds);
        escrow.reclaim(job, own);
        challenge.collect(first);
        stakeIs(worker, 0, 0, 0);
        equal(vault.owed(CHALLENGER), STAKE / 2, "half, to who showed it");
        equal(vault.owed(address(0)), STAKE - STAKE / 2, "the rest burned");
        bytes memory again = abi.encodeCall(IChallenge.collect, (first));
        refuse(
            CHALLENGER,
            address(challenge),
            0,
            again,
            abi.encodeWithSelector(ISubmissions.Unknown.selector, first)
        );
    }

    /// A stranger that pays in for a run for a second, takes the money back, and keeps the run from ever paying.
    function test_a_use_that_was_taken_back_can_be_paid_again() external {
        IDataListing data = IDataListing(deploy("artifacts/DataListing.json", abi.encode(chain)));
        bytes32 listing = data.list(keccak256("root"), keccak256("licence"), 5);
        address stranger = CHALLENGER;
        bytes memory fund = abi.encodeCall(IDataListing.fund, (listing, SPECIFICATION, BEGIN + 1));
        send(stranger, address(data), 5, fund);
        vm.warp(BEGIN + 1);
        data.reclaim(listing, SPECIFICATION);
        fund = abi.encodeCall(IDataListing.fund, (listing, SPECIFICATION, BEGIN + EPOCH));
        send(REQUESTER, address(data), 5, fund);
        require(data.useOf(listing, SPECIFICATION).payer == REQUESTER, "payer");
    }
}
