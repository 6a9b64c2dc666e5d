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

    /// @dev A log of a single close receipt, which says that all the work was done.
    function closeAlone() private returns (IRunLedger.Head memory head, Receipts.Included memory close) {
        bytes32[] memory words = new bytes32[](12);
        (words[0], words[1], words[10]) = (bytes32(uint256(1)), run, bytes32(uint256(UNITS)));
        words[2] = bytes32(uint256(uint160(vm.addr(WORKER))));
        bytes memory encoded = abi.encodePacked(words);
        bytes32 digest = digestOf(CLOSE, encoded);
        bytes memory signed = signature(WORKER, digest);
        bytes32 top = sha256(abi.encodePacked(hex"00", digest, signed));
        close = Receipts.Included(Receipts.Signed(CLOSE, encoded, signed), 0, new bytes32[](0));
        head = IRunLedger.Head(1, top, keccak256("head"));
        IRunLedger.Anchor memory a =
            IRunLedger.Anchor(run, vm.addr(WORKER), 0, 0, 1, head.headDigest, head.root);
        send(vm.addr(WORKER), address(chain), 0, abi.encodeCall(IRunLedger.anchor, (a)));
    }

    /// A worker that submits no step at all, so that there was none to dispute, and is paid.
    function test_a_run_without_steps_is_disputed_by_its_close() external {
        IJobEscrow.Terms memory t = terms();
        accepted(t);
        (IRunLedger.Head memory head, Receipts.Included memory close) = closeAlone();
        bytes memory data = abi.encodeCall(IJobEscrow.submit, (job, t, 0, head, close));
        send(vm.addr(WORKER), address(escrow), 0, data);
        data = abi.encodeCall(IDisputes.dispute, (job, t, head, close));
        bytes32 id = abi.decode(send(CHALLENGER, address(disputes), 4 * FEE, data), (bytes32));
        require(disputes.disputeOf(id).receipt == digestOf(CLOSE, close.receipt.body), "digest");
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
