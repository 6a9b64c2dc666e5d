// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IDisputes} from "../src/interfaces/IDisputes.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {ISubmissions} from "../src/interfaces/ISubmissions.sol";
import {MarketCase} from "./MarketCase.sol";

contract DisputesTest is MarketCase {
    IDisputes.Outcome private constant UPHELD = IDisputes.Outcome.Upheld;
    IDisputes.Outcome private constant REFUTED = IDisputes.Outcome.Refuted;
    address private immutable APPELLANT = address(0xA99E);

    function setUp() external {
        openMarket();
        vm.deal(APPELLANT, 1 ether);
    }

    function fails(address from, uint256 value, bytes memory data, bytes memory reason) private {
        refuse(from, address(disputes), value, data, reason);
    }

    function appealed(bytes32 id, address by) private {
        send(by, address(disputes), 8 * FEE, abi.encodeCall(IDisputes.appeal, (id, terms())));
    }

    function settled(bytes32 id, IDisputes.Outcome verdict) private {
        IDisputes.Round memory round = disputes.roundOf(id, roundNumber(id));
        uint64 from = round.beacon == 0 ? round.drawEnds : round.revealEnds;
        if (roundNumber(id) == 0) from += VOTE;
        bytes memory data = abi.encodeCall(IDisputes.settle, (id, terms()));
        vm.warp(from - 1);
        fails(REQUESTER, 0, data, abi.encodeWithSelector(ISubmissions.TooEarly.selector, from));
        vm.warp(from);
        send(REQUESTER, address(disputes), 0, data);
        require(disputes.disputeOf(id).verdict == verdict, "another verdict");
        fails(REQUESTER, 0, data, abi.encodeWithSelector(ISubmissions.Unknown.selector, id));
        equal(escrow.jobOf(job).open, 0, "nothing is open");
        stateIs(verdict == REFUTED ? IJobEscrow.State.Refused : IJobEscrow.State.Submitted);
        // Stake is never slashed for a verdict.
        stakeIs(vm.addr(WORKER), verdict == REFUTED ? STAKE : 0, verdict == REFUTED ? 0 : STAKE, 0);
    }

    /// @dev What all verifiers together are owed, in fees.
    function fees() private view returns (uint256 sum) {
        for (uint256 n = 0; n < VERIFIERS; ++n) {
            sum += disputes.owed(vm.addr(VERIFIER + n));
        }
        require(sum % FEE == 0, "whole fees");
        return sum / FEE;
    }

    /// @dev In fees: challenger, appellant, worker, verifiers, burned; together all bonds.
    function shares(uint256 challenger, uint256 appellant, uint256 worker, uint256 panel, uint256 burned)
        private
        view
    {
        owes(disputes, CHALLENGER, challenger * FEE, "challenger");
        owes(disputes, APPELLANT, appellant * FEE, "appellant");
        owes(disputes, vm.addr(WORKER), worker * FEE, "worker");
        equal(fees(), panel, "panel");
        owes(disputes, address(0), burned * FEE, "burned");
        equal(
            address(disputes).balance, (challenger + appellant + worker + panel + burned) * FEE, "all bonds"
        );
    }

    /// @dev A dispute of a submitted run.
    function begun() private returns (bytes32 id) {
        submitted(terms(), Fault.None);
        return disputed(terms());
    }

    /// @dev A dispute whose first panel voted so.
    function first(uint256 upheld, uint256 refuted) private returns (bytes32 id) {
        id = begun();
        voted(id, drawn(id), upheld, refuted);
    }

    /// @dev An appeal of it whose panel voted so.
    function second(bytes32 id, address by, uint256 upheld, uint256 refuted) private {
        appealed(id, by);
        voted(id, drawn(id), upheld, refuted);
    }

    /// A dispute without a panel that refutes, or never ends.
    function test_without_a_panel_it_is_upheld() external {
        bytes32 id = begun();
        settled(id, UPHELD);
        shares(0, 0, 1, 0, 3);
        mine();
        fails(REQUESTER, 0, abi.encodeCall(IDisputes.draw, (id)), only(ISubmissions.Unknown.selector));
    }

    /// A panel that is silent, or of which as many say so as otherwise.
    function test_silence_and_a_tie_uphold() external {
        settled(first(0, 0), UPHELD);
        shares(0, 0, 1, 0, 3);
        openMarket();
        settled(first(1, 1), UPHELD);
        shares(0, 0, 1, 1, 2);
    }

    /// Fees to who voted against the verdict, and bonds that vanish.
    function test_an_upheld_step_costs_the_bond() external {
        settled(first(2, 1), UPHELD);
        shares(0, 0, 1, 2, 1);
        owes(escrow, REQUESTER, 0, "no refund");
        openMarket();
        settled(first(3, 0), UPHELD);
        shares(0, 0, 1, 3, 0);
    }

    /// A refuted step that is paid, or whose challenger has less than it paid.
    function test_a_refuted_step_refuses_the_job() external {
        settled(first(1, 2), REFUTED);
        shares(2, 0, 0, 2, 0);
        owes(escrow, CHALLENGER, REWARD / 4, "bounty");
        owes(escrow, REQUESTER, REWARD - REWARD / 4 + BURN, "refund");
        owes(escrow, vm.addr(WORKER), DEPOSIT, "deposit");
        openMarket();
        settled(first(0, 1), REFUTED);
        shares(3, 0, 0, 1, 0);
    }

    /// An appeal that turns the verdict and is not paid for, in either direction.
    function test_an_appeal_turns_the_verdict() external {
        bytes32 id = first(1, 2);
        second(id, APPELLANT, 4, 3);
        settled(id, UPHELD);
        // Of the first round the one, of the second the four who were right.
        shares(0, 4, 1, 5, 2);
        openMarket();
        id = first(2, 1);
        second(id, APPELLANT, 2, 5);
        settled(id, REFUTED);
        shares(3, 3, 0, 6, 0);
        owes(escrow, APPELLANT, REWARD / 4, "the bounty is the appellant's");
        owes(escrow, CHALLENGER, 0, "and nobody else's");
    }

    /// An appeal that changes nothing and costs nothing.
    function test_an_appeal_confirms_the_verdict() external {
        bytes32 id = first(3, 0);
        second(id, APPELLANT, 6, 1);
        settled(id, UPHELD);
        shares(0, 0, 2, 9, 1);
        openMarket();
        id = first(0, 3);
        second(id, APPELLANT, 1, 6);
        settled(id, REFUTED);
        shares(1 + 1, 0, 0, 9, 1);
        owes(escrow, CHALLENGER, REWARD / 4, "bounty");
    }

    /// A second panel that is not drawn, or in which nobody prevails, and that changes the verdict.
    function test_an_appeal_without_a_result_changes_nothing() external {
        bytes32 id = first(0, 3);
        appealed(id, APPELLANT);
        settled(id, REFUTED);
        shares(1 + 1, 0, 0, 3, 7);
        openMarket();
        id = first(0, 3);
        second(id, APPELLANT, 3, 3);
        settled(id, REFUTED);
        shares(1 + 1, 0, 0, 6, 4);
        openMarket();
        id = first(3, 0);
        second(id, APPELLANT, 0, 0);
        settled(id, UPHELD);
        shares(0, 0, 2, 3, 7);
    }

    /// A challenger that appeals its own success and gets more than its bonds.
    function test_a_challengers_own_appeal_gains_nothing() external {
        bytes32 id = first(0, 3);
        vm.warp(disputes.roundOf(id, 0).revealEnds);
        second(id, CHALLENGER, 0, 7);
        settled(id, REFUTED);
        shares(1 + 1, 0, 0, 10, 0);
    }

    /// An appeal before the first round ends, after the time, twice, or at another price.
    function test_appealing_at_its_time() external {
        bytes32 id = begun();
        drawn(id);
        uint64 from = disputes.roundOf(id, 0).revealEnds;
        bytes memory data = abi.encodeCall(IDisputes.appeal, (id, terms()));
        vm.warp(from - 1);
        fails(APPELLANT, 8 * FEE, data, abi.encodeWithSelector(ISubmissions.TooEarly.selector, from));
        vm.warp(from + VOTE);
        fails(APPELLANT, 8 * FEE, data, abi.encodeWithSelector(ISubmissions.TooLate.selector, from + VOTE));
        vm.warp(from + VOTE - 1);
        bytes memory reason = abi.encodeWithSelector(ISubmissions.WrongValue.selector, 8 * FEE, 8 * FEE - 1);
        fails(APPELLANT, 8 * FEE - 1, data, reason);
        appealed(id, APPELLANT);
        reason = abi.encodeWithSelector(IDisputes.AlreadyAppealed.selector, id);
        fails(APPELLANT, 8 * FEE, data, reason);
    }

    function vote(bytes32 id, uint8 round, address voter, IDisputes.Outcome outcome)
        private
        view
        returns (bytes32)
    {
        return disputes.voteOf(id, round, voter, outcome, "answer", "salt");
    }

    /// A vote of somebody else, of another round or dispute, copied, changed, or at the wrong time.
    function test_votes_are_bound() external {
        bytes32 id = begun();
        address[] memory panel = drawn(id);
        uint64 ends = disputes.roundOf(id, 0).commitEnds;
        bytes memory commit = abi.encodeCall(IDisputes.commit, (id, vote(id, 0, panel[0], REFUTED)));
        fails(REQUESTER, 0, commit, abi.encodeWithSelector(IDisputes.NotOnPanel.selector, REQUESTER));
        send(panel[0], address(disputes), 0, commit);
        fails(panel[0], 0, commit, only(IDisputes.WrongVote.selector));
        // A copy of another's promise, and a promise of another round.
        send(panel[1], address(disputes), 0, commit);
        bytes memory reveal_ = abi.encodeCall(IDisputes.reveal, (id, REFUTED, "answer", "salt"));
        vm.warp(ends - 1);
        fails(panel[0], 0, reveal_, abi.encodeWithSelector(ISubmissions.TooEarly.selector, ends));
        commit = abi.encodeCall(IDisputes.commit, (id, vote(id, 1, panel[2], REFUTED)));
        send(panel[2], address(disputes), 0, commit);
        // All have promised: nobody is left to copy.
        ends -= 1;
        equal(disputes.roundOf(id, 0).commitEnds, ends, "end of the promises");
        fails(panel[0], 0, commit, abi.encodeWithSelector(ISubmissions.TooLate.selector, ends));
        fails(panel[1], 0, reveal_, only(IDisputes.WrongVote.selector));
        fails(panel[2], 0, reveal_, only(IDisputes.WrongVote.selector));
        fails(REQUESTER, 0, reveal_, only(IDisputes.WrongVote.selector));
        bytes memory other = abi.encodeCall(IDisputes.reveal, (id, UPHELD, "answer", "salt"));
        fails(panel[0], 0, other, only(IDisputes.WrongVote.selector));
        vm.warp(ends + VOTE);
        fails(panel[0], 0, reveal_, abi.encodeWithSelector(ISubmissions.TooLate.selector, ends + VOTE));
        vm.warp(ends + VOTE - 1);
        send(panel[0], address(disputes), 0, reveal_);
        fails(panel[0], 0, reveal_, only(IDisputes.WrongVote.selector));
        settled(id, REFUTED);
        shares(3, 0, 0, 1, 0);
    }

    /// A phase that ends while somebody who promised can still reveal, or that keeps all waiting for nobody.
    function test_a_phase_ends_when_all_have_acted() external {
        bytes32 id = begun();
        address[] memory panel = drawn(id);
        uint64 ends = disputes.roundOf(id, 0).commitEnds;
        for (uint256 n = 0; n < 2; ++n) {
            send(
                panel[n],
                address(disputes),
                0,
                abi.encodeCall(IDisputes.commit, (id, vote(id, 0, panel[n], REFUTED)))
            );
        }
        equal(disputes.roundOf(id, 0).commitEnds, ends, "one has not promised");
        bytes memory reveal_ = abi.encodeCall(IDisputes.reveal, (id, REFUTED, "answer", "salt"));
        vm.warp(ends + 10);
        send(panel[0], address(disputes), 0, reveal_);
        equal(disputes.roundOf(id, 0).revealEnds, ends + VOTE, "one has not revealed");
        vm.warp(ends + 20);
        send(panel[1], address(disputes), 0, reveal_);
        equal(disputes.roundOf(id, 0).revealEnds, ends + 20, "all that were promised are revealed");
        // The time for an appeal counts from there.
        settled(id, REFUTED);
        shares(2, 0, 0, 2, 0);
    }

    /// A vote for nothing that counts.
    function test_a_vote_for_nothing_is_none() external {
        bytes32 id = begun();
        address[] memory panel = drawn(id);
        IDisputes.Outcome nothing = IDisputes.Outcome.None;
        bytes memory data = abi.encodeCall(IDisputes.commit, (id, vote(id, 0, panel[0], nothing)));
        send(panel[0], address(disputes), 0, data);
        vm.warp(disputes.roundOf(id, 0).commitEnds);
        data = abi.encodeCall(IDisputes.reveal, (id, nothing, "answer", "salt"));
        fails(panel[0], 0, data, only(IDisputes.WrongVote.selector));
    }

    /// Worker, requester, challenger, appellant or a member of the first panel on a panel.
    function test_no_party_is_on_a_panel() external {
        openMarket();
        address worker = vm.addr(WORKER);
        address[4] memory parties = [worker, REQUESTER, CHALLENGER, APPELLANT];
        vm.warp(BEGIN - EPOCH);
        for (uint256 n = 0; n < 4; ++n) {
            vm.deal(parties[n], 1 ether);
            vault.deposit{value: 30 * SEAT}(parties[n]);
            send(parties[n], address(disputes), 0, abi.encodeCall(IDisputes.enlist, ()));
        }
        vm.warp(BEGIN);
        bytes32 id = begun();
        address[] memory panel = drawn(id);
        vm.warp(disputes.roundOf(id, 0).revealEnds);
        appealed(id, APPELLANT);
        address[] memory larger = drawn(id);
        require(panel.length + larger.length > 4, "nobody is there");
        for (uint256 n = 0; n < panel.length + larger.length; ++n) {
            address member = n < panel.length ? panel[n] : larger[n - panel.length];
            require(member != worker && member != REQUESTER, "a party of the job");
            require(
                member != CHALLENGER && (n < panel.length || member != APPELLANT), "a party of the dispute"
            );
            for (uint256 m = 0; m < n; ++m) {
                address before = m < panel.length ? panel[m] : larger[m - panel.length];
                require(member != before, "twice");
            }
        }
    }

    /// Seats without stake, twice, or that count in the epoch in which they were asked for.
    function test_enlisting() external {
        bytes memory enlist = abi.encodeCall(IDisputes.enlist, ());
        bytes memory reason = abi.encodeWithSelector(IDisputes.NotEnlisted.selector, CHALLENGER);
        fails(CHALLENGER, 0, enlist, reason);
        vault.deposit{value: SEAT - 1}(CHALLENGER);
        fails(CHALLENGER, 0, enlist, reason);
        vault.deposit{value: 1}(CHALLENGER);
        send(CHALLENGER, address(disputes), 0, enlist);
        fails(CHALLENGER, 0, enlist, reason);
        // Stake that leaves fills no seat.
        address verifier = vm.addr(VERIFIER);
        send(verifier, address(vault), 0, abi.encodeCall(IStakeVault.beginExit, (1)));
        fails(verifier, 0, enlist, abi.encodeWithSelector(IDisputes.NotEnlisted.selector, verifier));
        // On the roll of the next epoch, whatever happens in this one: a dispute now draws from those before.
        bytes32 id = begun();
        equal(disputes.disputeOf(id).epoch, BEGIN / EPOCH, "epoch");
    }

    /// A dispute in an epoch for which nobody enlisted: it could only be lost.
    function test_nobody_is_enlisted() external {
        IJobEscrow.Terms memory t = terms();
        t.challengeWindow = 2 * EPOCH;
        submitted(t, Fault.None);
        vm.warp(BEGIN + EPOCH);
        bytes memory reason =
            abi.encodeWithSelector(IDisputes.NobodyEnlisted.selector, (BEGIN + EPOCH) / EPOCH);
        fails(CHALLENGER, 4 * FEE, disputeData(t, 2), reason);
    }

    /// A panel of a block that was known when the dispute began, or that somebody waits out.
    function test_a_later_block_draws() external {
        bytes32 id = begun();
        require(disputes.draw(id) == 0, "the block of the dispute draws");
        vm.roll(height + 1);
        require(disputes.draw(id) == 0, "the block that draws is not over");
        bytes32 hash = keccak256("the next block");
        vm.roll(height + 258);
        require(disputes.draw(id) == 0, "a hash that is lost");
        // Named anew: the block after this one.
        vm.roll(height + 259);
        require(disputes.draw(id) == 0, "the new block is not over");
        vm.roll(height + 259 + 256);
        vm.setBlockhash(height + 259, hash);
        bytes32 beacon = disputes.draw(id);
        require(beacon == keccak256(abi.encode(hash, id, uint8(0))), "beacon");
        vm.roll(height + 1000);
        require(disputes.draw(id) == beacon, "drawn once");
        uint64 ends = disputes.roundOf(id, 0).drawEnds;
        openMarket();
        id = begun();
        mine();
        vm.warp(ends);
        bytes memory draw = abi.encodeCall(IDisputes.draw, (id));
        fails(REQUESTER, 0, draw, abi.encodeWithSelector(ISubmissions.TooLate.selector, ends));
        vm.warp(ends - 1);
        require(disputes.draw(id) != 0, "the last second");
        equal(disputes.roundOf(id, 0).commitEnds, ends - 1 + VOTE, "end of the promises");
    }

    /// Disputes at another price or outside the window, or a place that is said not to be there by a contract that does not
    /// know the log's length: a run that nobody was given could then not be disputed.
    function test_disputing() external {
        IJobEscrow.Terms memory t = terms();
        submitted(t, Fault.None);
        for (uint64 n = 0; n < 8; ++n) {
            uint256 price = 4 * FEE * 2 ** n;
            bytes memory data = disputeData(t, n == 7 ? type(uint64).max : n);
            bytes memory reason = abi.encodeWithSelector(ISubmissions.WrongValue.selector, price, price - 1);
            fails(CHALLENGER, price - 1, data, reason);
            send(CHALLENGER, address(disputes), price, data);
        }
        uint256 next = disputes.bondOf(job, t);
        uint64 ends = escrow.jobOf(job).challengeEnds;
        vm.warp(ends);
        fails(CHALLENGER, next, disputeData(t, 2), only(ISubmissions.NotChallengeable.selector));
        vm.warp(ends - 1);
        send(CHALLENGER, address(disputes), next, disputeData(t, 2));
    }
}
