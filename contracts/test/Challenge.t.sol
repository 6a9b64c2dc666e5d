// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IChallenge} from "../src/interfaces/IChallenge.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IOpenings} from "../src/interfaces/IOpenings.sol";
import {ISubmissions} from "../src/interfaces/ISubmissions.sol";
import {Receipts} from "../src/libraries/Receipts.sol";
import {MarketCase} from "./MarketCase.sol";

/// @title Faults that show in the receipts
contract ChallengeTest is MarketCase {
    function setUp() external {
        openMarket();
    }

    function fails(bytes memory data, bytes4 reason) private {
        refuse(CHALLENGER, address(challenge), 0, data, only(reason));
    }

    function contradiction(Receipts.Signed memory one, Receipts.Signed memory other)
        private
        view
        returns (bytes memory)
    {
        return abi.encodeCall(IChallenge.proveContradiction, (job, terms(), one, other));
    }

    function misplaced(Run memory r, uint256 index, uint256 before) private view returns (bytes memory) {
        return abi.encodeCall(
            IChallenge.proveMisplaced, (job, terms(), r.head, included(r, index), included(r, before))
        );
    }

    function unsigned(Run memory r, uint256 index) private view returns (bytes memory) {
        return abi.encodeCall(IChallenge.proveSignature, (job, terms(), r.head, included(r, index)));
    }

    function pinned(IJobEscrow.Terms memory t, Run memory r, uint256 index, uint8 field, bytes memory leaf)
        private
        view
        returns (bytes memory)
    {
        return abi.encodeCall(
            IChallenge.provePin,
            (job, t, r.head, included(r, index), openingOf(field, 0, 0), leaf, 0, new bytes32[](0))
        );
    }

    /// @dev A proof that convicts: half of the stake to who showed it, the reward and the burn go back.
    function convicts(bytes memory data) private {
        send(CHALLENGER, address(challenge), 0, data);
        stateIs(IJobEscrow.State.Refused);
        stakeIs(vm.addr(WORKER), 0, 0, 0);
        owes(vault, CHALLENGER, STAKE / 2, "half of the stake");
        owes(vault, address(0), STAKE - STAKE / 2, "burned");
        owes(escrow, REQUESTER, REWARD + BURN, "refund");
        owes(escrow, vm.addr(WORKER), DEPOSIT, "the deposit of who submitted");
        // Once: shown again, it takes nothing more.
        send(REQUESTER, address(challenge), 0, data);
        owes(vault, REQUESTER, 0, "twice");
        equal(address(escrow).balance, REWARD + BURN + DEPOSIT, "all of it");
    }

    /// Two receipts for one place that convict nobody.
    function test_two_receipts_for_one_place_convict() external {
        Run memory r = submitted(terms(), Fault.None);
        convicts(contradiction(r.receipts[3], changed(r, 3, WORKER)));
    }

    /// Two histories of one size that convict nobody.
    function test_two_heads_of_one_size_convict() external {
        Run memory r = submitted(terms(), Fault.None);
        Receipts.Signed memory one = signedHead(r, uint64(SIZE), r.head.root);
        convicts(contradiction(one, signedHead(r, uint64(SIZE), keccak256("another root"))));
    }

    /// A worker that is caught before it submits and goes on; its deposit.
    function test_a_worker_is_convicted_before_it_submits() external {
        IJobEscrow.Terms memory t = terms();
        accepted(t);
        Run memory r = recorded(WORKER, run, UNITS, Fault.None);
        send(CHALLENGER, address(challenge), 0, contradiction(r.receipts[3], changed(r, 3, WORKER)));
        stateIs(IJobEscrow.State.Refused);
        owes(escrow, REQUESTER, REWARD + BURN + DEPOSIT, "refund, and the worker's deposit");
        anchored(chain, r);
        refuse(r.worker, address(escrow), 0, submission(t, r), only(IJobEscrow.WrongState.selector));
    }

    /// Another run's, worker's, lane's or place's receipt, one that is none, or one that names another before it.
    function test_misplaced_receipts_convict() external {
        Fault[6] memory faults =
            [Fault.Run, Fault.Worker, Fault.Lane, Fault.Sequence, Fault.Short, Fault.Link];
        for (uint256 n = 0; n < 6; ++n) {
            openMarket();
            Run memory r = submitted(terms(), faults[n]);
            bytes memory innocent = misplaced(r, FAULTY - 1, FAULTY - 2);
            fails(innocent, IChallenge.NoFault.selector);
            if (faults[n] == Fault.Link) {
                bytes memory elsewhere = misplaced(r, FAULTY, FAULTY - 2);
                fails(elsewhere, IChallenge.WrongPlace.selector);
            }
            convicts(misplaced(r, FAULTY, FAULTY - 1));
        }
    }

    /// A receipt in the log that another key signed.
    function test_a_foreign_signature_convicts() external {
        Run memory r = submitted(terms(), Fault.Signature);
        fails(unsigned(r, FAULTY - 1), IChallenge.NoFault.selector);
        convicts(unsigned(r, FAULTY));
    }

    /// Another learning rate than the job pins, at each step, or at one.
    function test_another_value_than_the_pinned_one_convicts() external {
        Run memory r = submitted(terms(), Fault.None);
        convicts(pinned(terms(), r, 4, HYPERPARAMETERS, pin(0, HYPERPARAMETERS, "0/lr", wrong())));
    }

    /// @dev A proof with a pin of the job that says nothing about what is opened.
    function saysNothing(bytes memory leaf, uint256 index, uint8 field) private {
        IJobEscrow.Terms memory t = terms();
        (t.pins, t.salt) =
        (sha256(abi.encodePacked(hex"00", leaf)), keccak256(abi.encode(leaf, index, field)));
        vm.warp(BEGIN);
        stake(WORKER);
        Run memory r = submitted(t, Fault.None);
        fails(pinned(t, r, index, field, leaf), IChallenge.NoFault.selector);
    }

    /// A pin of another step, field or name, of the value that is there, or that the job does not have.
    function test_other_pins_convict_nobody() external {
        saysNothing(pin(0, HYPERPARAMETERS, "0/lr", content(8)), 3, HYPERPARAMETERS);
        saysNothing(pin(2, HYPERPARAMETERS, "0/lr", content(8)), 3, HYPERPARAMETERS);
        saysNothing(pin(3, HYPERPARAMETERS, "0/lr", wrong()), 3, HYPERPARAMETERS);
        saysNothing(pin(0, PARAMETERS, "0/lr", wrong()), 3, HYPERPARAMETERS);
        saysNothing(pin(0, HYPERPARAMETERS, "0/lR", wrong()), 3, HYPERPARAMETERS);
        saysNothing(pin(0, HYPERPARAMETERS, "0/l", wrong()), 3, HYPERPARAMETERS);
        saysNothing("", 3, HYPERPARAMETERS);
        saysNothing(hex"0000000000000000090004", 3, HYPERPARAMETERS);
        IJobEscrow.Terms memory t = terms();
        stake(WORKER);
        vm.warp(BEGIN);
        Run memory r = submitted(t, Fault.None);
        bytes memory unknown = pin(0, HYPERPARAMETERS, "0/lr", content(7));
        fails(pinned(t, r, 3, HYPERPARAMETERS, unknown), IChallenge.NoFault.selector);
        // A chunk behind the first is not what is pinned, and a receipt that is no step has no field.
        bytes memory leaf = pin(0, HYPERPARAMETERS, "0/lr", wrong());
        fails(pinned(t, r, 1, HYPERPARAMETERS, leaf), IOpenings.NotStep.selector);
        fails(pinned(t, r, 3, BUFFERS, leaf), IOpenings.WrongProof.selector);
        fails(pinned(t, r, 3, OPTIMIZER, leaf), IOpenings.WrongProof.selector);
    }

    /// @dev Its step, field, name and value: a pin that convicts where one thing less would not.
    function test_a_pin_of_one_step_convicts() external {
        IJobEscrow.Terms memory t = terms();
        bytes memory leaf = pin(2, HYPERPARAMETERS, "0/lr", wrong());
        t.pins = sha256(abi.encodePacked(hex"00", leaf));
        Run memory r = submitted(t, Fault.None);
        fails(pinned(t, r, 2, HYPERPARAMETERS, leaf), IChallenge.NoFault.selector);
        convicts(pinned(t, r, 3, HYPERPARAMETERS, leaf));
    }

    /// An honest worker that is convicted by what it signed, in any combination.
    function test_an_honest_run_convicts_nobody() external {
        Run memory r = submitted(terms(), Fault.None);
        for (uint256 one = 0; one < SIZE; ++one) {
            for (uint256 other = 0; other < SIZE; ++other) {
                fails(contradiction(r.receipts[one], r.receipts[other]), IChallenge.NoFault.selector);
                bytes4 reason = one != 0 && other + 1 != one
                    ? IChallenge.WrongPlace.selector
                    : IChallenge.NoFault.selector;
                fails(misplaced(r, one, other), reason);
            }
            fails(contradiction(r.receipts[one], changed(r, one, OTHER)), IChallenge.NoFault.selector);
            fails(unsigned(r, one), IChallenge.NoFault.selector);
            Receipts.Signed memory head = signedHead(r, uint64(one + 1), root(r.leaves, 0, one + 1));
            for (uint256 other = 0; other < SIZE; ++other) {
                fails(contradiction(head, r.receipts[other]), IChallenge.NoFault.selector);
                Receipts.Signed memory older = signedHead(r, uint64(other + 1), root(r.leaves, 0, other + 1));
                fails(contradiction(head, older), IChallenge.NoFault.selector);
            }
        }
        // The same root at another time, and a head that another signed.
        Receipts.Signed memory last = signedHead(r, uint64(SIZE), r.head.root);
        Receipts.Signed memory later = Receipts.Signed(HEAD, abi.encodePacked(last.body), "");
        later.body[7 * 32 + 31] ^= 0x01;
        later.signature = signature(WORKER, digestOf(HEAD, later.body));
        fails(contradiction(last, later), IChallenge.NoFault.selector);
        later.body[5 * 32] ^= 0x01;
        later.signature = signature(OTHER, digestOf(HEAD, later.body));
        fails(contradiction(last, later), IChallenge.NoFault.selector);
        // A body that is too short to be any.
        last.body = new bytes(255);
        fails(contradiction(last, last), IChallenge.NoFault.selector);
        stakeIs(r.worker, 0, STAKE, 0);
    }

    /// Receipts under a delegation, or of a type that the contract does not know, judged by their signature.
    function test_delegated_and_unknown_receipts_are_not_judged_here() external {
        Run memory r = submitted(terms(), Fault.Delegated);
        fails(unsigned(r, FAULTY), IChallenge.NoFault.selector);
        fails(misplaced(r, FAULTY, FAULTY - 1), IChallenge.NoFault.selector);
        openMarket();
        r = submitted(terms(), Fault.Unknown);
        fails(unsigned(r, FAULTY), IChallenge.NoFault.selector);
        fails(misplaced(r, FAULTY, FAULTY - 1), IChallenge.NoFault.selector);
    }

    /// Another job's run, worker or terms in a proof; receipts that were never submitted.
    function test_proofs_are_of_the_submitted_run() external {
        IJobEscrow.Terms memory t = terms();
        Run memory r = submitted(t, Fault.None);
        Run memory foreign = recorded(WORKER, keccak256("another run"), UNITS, Fault.None);
        Receipts.Signed memory twin = changed(foreign, 3, WORKER);
        fails(contradiction(foreign.receipts[3], twin), IChallenge.NoFault.selector);
        fails(contradiction(r.receipts[3], foreign.receipts[3]), IChallenge.NoFault.selector);
        fails(misplaced(foreign, 3, 2), IChallenge.NotSubmitted.selector);
        fails(unsigned(foreign, 3), IChallenge.NotSubmitted.selector);
        Run memory others = recorded(OTHER, run, UNITS, Fault.None);
        fails(contradiction(others.receipts[3], changed(others, 3, OTHER)), IChallenge.NoFault.selector);
        t.stake += 1;
        bytes memory data =
            abi.encodeCall(IChallenge.proveContradiction, (job, t, r.receipts[3], changed(r, 3, WORKER)));
        fails(data, ISubmissions.WrongTerms.selector);
        stakeIs(r.worker, 0, STAKE, 0);
    }

    /// A run that is judged before it was submitted: nothing is at any place yet.
    function test_nothing_is_misplaced_before_the_submission() external {
        accepted(terms());
        Run memory r = recorded(WORKER, run, UNITS, Fault.Link);
        anchored(chain, r);
        fails(misplaced(r, FAULTY, FAULTY - 1), IChallenge.NotSubmitted.selector);
    }
}
