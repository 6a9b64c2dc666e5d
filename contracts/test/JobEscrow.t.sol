// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {Receipts} from "../src/libraries/Receipts.sol";
import {MarketCase} from "./MarketCase.sol";

contract JobEscrowTest is MarketCase {
    bytes4 private constant TOO_EARLY = IJobEscrow.TooEarly.selector;
    bytes4 private constant TOO_LATE = IJobEscrow.TooLate.selector;

    function setUp() external {
        openMarket();
    }

    function fails(address from, uint256 value, bytes memory data, bytes memory reason) private {
        refuse(from, address(escrow), value, data, reason);
    }

    function early(address from, bytes memory data, uint64 time) private {
        vm.warp(time - 1);
        fails(from, 0, data, abi.encodeWithSelector(TOO_EARLY, time));
        vm.warp(time);
    }

    function late(address from, uint256 value, bytes memory data, uint64 time) private {
        fails(from, value, data, abi.encodeWithSelector(TOO_LATE, time));
    }

    function failsTerms(IJobEscrow.Terms memory t, uint8 place) private {
        bytes memory reason = abi.encodeWithSelector(IJobEscrow.WrongTerms.selector, place);
        fails(REQUESTER, costOf(t), abi.encodeCall(IJobEscrow.post, (t)), reason);
    }

    /// Terms under which disputes pay nobody, or a state has no end.
    function test_terms_that_make_no_job() external {
        IJobEscrow.Terms memory t = terms();
        t.reward = 32 * FEE - 1;
        failsTerms(t, 5);
        t.reward = 1024 * FEE + 1;
        failsTerms(t, 8);
        t.fee = 0;
        failsTerms(t, 8);
        t = terms();
        t.biddingEnds = BEGIN;
        failsTerms(t, 9);
        t = terms();
        t.revealEnds = t.biddingEnds;
        failsTerms(t, 10);
        t = terms();
        t.acceptEnds = t.revealEnds;
        failsTerms(t, 11);
        t = terms();
        t.workEnds = t.acceptEnds;
        failsTerms(t, 12);
        t.workEnds = BEGIN + 365 days + 1;
        failsTerms(t, 12);
        t = terms();
        t.challengeWindow = HOUR - 1;
        failsTerms(t, 13);
        t.challengeWindow = LONGEST + 1;
        failsTerms(t, 13);
        t = terms();
        t.biddingEnds = type(uint64).max;
        failsTerms(t, 10);
        t = terms();
        (t.reward, t.workEnds, t.challengeWindow) = (32 * FEE, BEGIN + 365 days, HOUR);
        post(t);
    }

    /// A job that is paid in with another amount, or whose money is mixed with an equal job's.
    function test_posting() external {
        IJobEscrow.Terms memory t = terms();
        bytes memory data = abi.encodeCall(IJobEscrow.post, (t));
        equal(escrow.burnOf(t), BURN, "burn");
        for (uint256 n = 0; n < 2; ++n) {
            uint256 value = REWARD + BURN + 2 * n - 1;
            bytes memory reason = abi.encodeWithSelector(IJobEscrow.WrongValue.selector, REWARD + BURN, value);
            fails(REQUESTER, value, data, reason);
        }
        post(t);
        require(job == escrow.jobId(REQUESTER, t), "id");
        bytes memory again =
            abi.encodeWithSelector(IJobEscrow.WrongState.selector, job, IJobEscrow.State.Posted);
        fails(REQUESTER, REWARD + BURN, data, again);
        require(
            abi.decode(send(CHALLENGER, address(escrow), REWARD + BURN, data), (bytes32)) != job,
            "another requester's job"
        );
    }

    /// Terms of one job that move the money of another.
    function test_terms_belong_to_their_job() external {
        IJobEscrow.Terms memory t = terms();
        post(t);
        t.reward += 1;
        bytes memory reason =
            abi.encodeWithSelector(IJobEscrow.WrongState.selector, job, IJobEscrow.State.Unknown);
        fails(REQUESTER, 0, abi.encodeCall(IJobEscrow.cancel, (job, t)), reason);
        fails(REQUESTER, 0, abi.encodeCall(IJobEscrow.reclaim, (job, t)), reason);
        bytes32 unknown = keccak256("job");
        reason = abi.encodeWithSelector(IJobEscrow.WrongState.selector, unknown, IJobEscrow.State.Unknown);
        fails(
            address(0),
            0,
            abi.encodeCall(IJobEscrow.finalise, (unknown, t)),
            only(IJobEscrow.WrongState.selector)
        );
    }

    /// A bid at the wrong time, twice, or without its deposit.
    function test_bidding() external {
        IJobEscrow.Terms memory t = terms();
        post(t);
        address bidder = vm.addr(WORKER);
        bytes memory data = bidData(t, WORKER, 5);
        fails(bidder, DEPOSIT - 1, data, only(IJobEscrow.WrongValue.selector));
        bytes memory nothing = abi.encodeCall(IJobEscrow.bid, (job, t, bytes32(0)));
        fails(bidder, DEPOSIT, nothing, only(IJobEscrow.WrongBid.selector));
        vm.warp(t.biddingEnds - 1);
        send(bidder, address(escrow), DEPOSIT, data);
        fails(bidder, DEPOSIT, data, only(IJobEscrow.WrongBid.selector));
        bytes memory revealing = revealData(t, WORKER, 5);
        fails(bidder, 0, revealing, abi.encodeWithSelector(TOO_EARLY, t.biddingEnds));
        vm.warp(t.biddingEnds);
        data = bidData(t, OTHER, 5);
        vm.deal(vm.addr(OTHER), 1 ether);
        late(vm.addr(OTHER), DEPOSIT, data, t.biddingEnds);
        vm.warp(t.revealEnds);
        late(bidder, 0, revealing, t.revealEnds);
        vm.warp(t.revealEnds - 1);
        fails(bidder, 0, revealData(t, WORKER, 6), only(IJobEscrow.WrongBid.selector));
        // Another's envelope is no bid.
        fails(vm.addr(OTHER), 0, revealing, only(IJobEscrow.WrongBid.selector));
        send(bidder, address(escrow), 0, revealing);
        fails(bidder, 0, revealing, only(IJobEscrow.WrongBid.selector));
        equal(escrow.jobOf(job).bids, 0, "revealed");
    }

    /// A leader without the stake that answers for the job.
    function test_a_leader_has_stake() external {
        IJobEscrow.Terms memory t = terms();
        post(t);
        bid(t, OTHER, 5);
        vm.warp(t.biddingEnds);
        bytes memory reason =
            abi.encodeWithSelector(IStakeVault.NotEnoughStake.selector, vm.addr(OTHER), STAKE, 0);
        fails(vm.addr(OTHER), 0, revealData(t, OTHER, 5), reason);
    }

    /// Accepted by another, too early, too late, or with a run that somebody could sign before.
    function test_accepting() external {
        IJobEscrow.Terms memory t = terms();
        post(t);
        bid(t, WORKER, 5);
        vm.warp(t.biddingEnds);
        reveal(t, WORKER, 5);
        bytes memory data = abi.encodeCall(IJobEscrow.accept, (job, t));
        address worker = vm.addr(WORKER);
        fails(REQUESTER, 0, data, abi.encodeWithSelector(IJobEscrow.NotAllowed.selector, REQUESTER));
        early(worker, data, t.revealEnds);
        vm.warp(t.acceptEnds);
        late(worker, 0, data, t.acceptEnds);
        vm.warp(t.acceptEnds - 1);
        (bytes32 id, bytes32 nonce) = abi.decode(send(worker, address(escrow), 0, data), (bytes32, bytes32));
        bytes32 expected =
            keccak256(abi.encode(keccak256("counterfoil.run.v1"), worker, SPECIFICATION, uint64(0), nonce));
        require(id == expected && chain.ownerOf(id) == worker, "run");
        bytes32 before =
            keccak256(abi.encode(keccak256("counterfoil.job-nonce.v1"), job, blockhash(block.number - 1)));
        require(nonce == before, "nonce");
        fails(worker, 0, data, only(IJobEscrow.WrongState.selector));
    }

    /// Money that stays in a job that nobody bid for, accepted or submitted; deposits of those who kept silent.
    function test_reclaiming() external {
        IJobEscrow.Terms memory t = terms();
        bytes memory data;
        // Nobody revealed: one bid is burned.
        post(t);
        bid(t, WORKER, 5);
        data = abi.encodeCall(IJobEscrow.reclaim, (job, t));
        early(CHALLENGER, data, t.revealEnds);
        send(CHALLENGER, address(escrow), 0, data);
        owes(escrow, REQUESTER, REWARD + BURN, "nobody revealed");
        owes(escrow, address(0), DEPOSIT, "its deposit");
        stateIs(IJobEscrow.State.Cancelled);
        fails(CHALLENGER, 0, data, only(IJobEscrow.WrongState.selector));
        // Nobody accepted: the leader's deposit goes to the requester.
        vm.warp(BEGIN);
        t.salt = keccak256("second");
        post(t);
        bid(t, WORKER, 5);
        vm.warp(t.biddingEnds);
        reveal(t, WORKER, 5);
        data = abi.encodeCall(IJobEscrow.reclaim, (job, t));
        early(CHALLENGER, data, t.acceptEnds);
        send(CHALLENGER, address(escrow), 0, data);
        owes(escrow, REQUESTER, 2 * (REWARD + BURN) + DEPOSIT, "nobody accepted");
        stakeIs(vm.addr(WORKER), STAKE, 0, 0);
        // Nobody submitted.
        vm.warp(BEGIN);
        t.salt = keccak256("third");
        accepted(t);
        data = abi.encodeCall(IJobEscrow.reclaim, (job, t));
        early(CHALLENGER, data, t.workEnds);
        send(CHALLENGER, address(escrow), 0, data);
        owes(escrow, REQUESTER, 3 * (REWARD + BURN) + 2 * DEPOSIT, "nobody submitted");
        stakeIs(vm.addr(WORKER), STAKE, 0, 0);
        equal(address(escrow).balance, 3 * (REWARD + BURN + DEPOSIT), "all of it");
    }

    /// Taken back by another, after a bid, or after the time.
    function test_cancelling() external {
        IJobEscrow.Terms memory t = terms();
        post(t);
        bytes memory data = abi.encodeCall(IJobEscrow.cancel, (job, t));
        fails(CHALLENGER, 0, data, abi.encodeWithSelector(IJobEscrow.NotAllowed.selector, CHALLENGER));
        vm.warp(t.biddingEnds);
        late(REQUESTER, 0, data, t.biddingEnds);
        vm.warp(t.biddingEnds - 1);
        bid(t, WORKER, 5);
        late(REQUESTER, 0, data, t.biddingEnds);
        t.salt = keccak256("second");
        post(t);
        send(REQUESTER, address(escrow), 0, abi.encodeCall(IJobEscrow.cancel, (job, t)));
        owes(escrow, REQUESTER, REWARD + BURN, "all of it");
        fails(vm.addr(WORKER), DEPOSIT, bidData(t, WORKER, 5), only(IJobEscrow.WrongState.selector));
    }

    /// Paid before the window ends, while something is open, twice, another price, or with deposits left over.
    function test_paying() external {
        IJobEscrow.Terms memory t = terms();
        post(t);
        stake(OTHER);
        bid(t, WORKER, 600);
        bid(t, OTHER, 700);
        bid(t, 50, 1);
        vm.warp(t.biddingEnds);
        reveal(t, WORKER, 600);
        reveal(t, OTHER, 700);
        vm.warp(t.revealEnds);
        address worker = vm.addr(WORKER);
        bytes memory data = abi.encodeCall(IJobEscrow.accept, (job, t));
        (run,) = abi.decode(send(worker, address(escrow), 0, data), (bytes32, bytes32));
        Run memory r = recorded(WORKER, run, UNITS, Fault.None);
        anchored(chain, r);
        bytes memory submit = submission(t, r);
        vm.warp(t.workEnds);
        late(worker, 0, submit, t.workEnds);
        vm.warp(t.workEnds - 1);
        fails(CHALLENGER, 0, submit, abi.encodeWithSelector(IJobEscrow.NotAllowed.selector, CHALLENGER));
        send(worker, address(escrow), 0, submit);
        fails(worker, 0, submit, only(IJobEscrow.WrongState.selector));
        owes(escrow, worker, DEPOSIT, "its deposit");
        bytes32 id = disputed(t);
        data = abi.encodeCall(IJobEscrow.finalise, (job, t));
        early(CHALLENGER, data, t.workEnds - 1 + WINDOW);
        fails(CHALLENGER, 0, data, abi.encodeWithSelector(IJobEscrow.StillOpen.selector, 1));
        disputes.settle(id, t);
        send(CHALLENGER, address(escrow), 0, data);
        fails(CHALLENGER, 0, data, only(IJobEscrow.WrongState.selector));
        owes(escrow, worker, DEPOSIT + 700, "the second price");
        owes(escrow, REQUESTER, 300, "the rest of the reward");
        owes(escrow, vm.addr(OTHER), DEPOSIT, "the second's deposit");
        owes(escrow, address(0), BURN + DEPOSIT, "burned");
        equal(address(escrow).balance, REWARD + BURN + 3 * DEPOSIT, "all of it");
        stakeIs(worker, STAKE, 0, 0);
        equal(sortition.unitsOf(sortition.epoch() + 1), UNITS, "units");
    }

    function failsClose(IJobEscrow.Terms memory t, Run memory r, uint256 word, bytes32 value, bool isSigned)
        private
    {
        Receipts.Included memory close = included(r, SIZE - 1);
        bytes memory words = abi.encodePacked(close.receipt.body);
        assembly {
            mstore(add(add(words, 0x20), mul(word, 0x20)), value)
        }
        close.receipt.body = words;
        uint256 key = isSigned ? WORKER : OTHER;
        close.receipt.signature = signature(key, digestOf(CLOSE, words));
        bytes memory data =
            abi.encodeCall(IJobEscrow.submit, (job, t, 0, r.head, close, included(r, SIZE - 2)));
        uint8 place = !isSigned ? 6 : word == 2 ? 1 : uint8(word);
        fails(vm.addr(WORKER), 0, data, abi.encodeWithSelector(IJobEscrow.WrongClose.selector, place));
    }

    function failsResult(
        IJobEscrow.Terms memory t,
        Run memory r,
        Receipts.Included memory result,
        uint8 place
    ) private {
        bytes memory data =
            abi.encodeCall(IJobEscrow.submit, (job, t, 0, r.head, included(r, SIZE - 1), result));
        fails(r.worker, 0, data, abi.encodeWithSelector(IJobEscrow.WrongResult.selector, place));
    }

    /// A run without a result: no checkpoint, one of another run or step, without parameters, or elsewhere.
    function test_a_run_has_a_result() external {
        IJobEscrow.Terms memory t = terms();
        accepted(t);
        Run memory r = recorded(WORKER, run, UNITS, Fault.None);
        anchored(chain, r);
        failsResult(t, r, included(r, 2), 0);
        uint8[3] memory places = [1, 8, 9];
        for (uint256 n = 0; n < 3; ++n) {
            Receipts.Included memory result = included(r, SIZE - 2);
            bytes memory words = abi.encodePacked(result.receipt.body);
            uint256 place = places[n];
            assembly {
                mstore(add(add(words, 0x20), mul(place, 0x20)), 0)
            }
            result.receipt.body = words;
            failsResult(t, r, result, places[n]);
        }
        Receipts.Included memory moved = included(r, SIZE - 2);
        moved.index -= 1;
        bytes memory data =
            abi.encodeCall(IJobEscrow.submit, (job, t, 0, r.head, included(r, SIZE - 1), moved));
        fails(r.worker, 0, data, only(IJobEscrow.NotAnchored.selector));
        moved = included(r, SIZE - 2);
        moved.receipt.signature = signature(OTHER, keccak256("another receipt"));
        data = abi.encodeCall(IJobEscrow.submit, (job, t, 0, r.head, included(r, SIZE - 1), moved));
        fails(r.worker, 0, data, only(IJobEscrow.NotAnchored.selector));
    }

    /// A close of another run, worker or lane, by an exception, with too little work, or by another key.
    function test_only_a_finished_run_is_submitted() external {
        IJobEscrow.Terms memory t = terms();
        accepted(t);
        Run memory r = recorded(WORKER, run, UNITS, Fault.None);
        bytes memory data = submission(t, r);
        bytes memory reason =
            abi.encodeWithSelector(IJobEscrow.NotAnchored.selector, logId(run, r.worker, 0), 0);
        fails(r.worker, 0, data, reason);
        anchored(chain, r);
        failsClose(t, r, 1, keccak256("run"), true);
        failsClose(t, r, 2, bytes32(uint256(uint160(vm.addr(OTHER)))), true);
        failsClose(t, r, 2, bytes32(uint256(uint160(r.worker)) | (1 << 200)), true);
        failsClose(t, r, 3, bytes32(uint256(1)), true);
        failsClose(t, r, 8, bytes32(uint256(1)), true);
        failsClose(t, r, 9, bytes32(uint256(UNITS - 1)), true);
        failsClose(t, r, 9, bytes32(uint256(UNITS)), false);
        reason = abi.encodeWithSelector(IJobEscrow.WrongClose.selector, 0);
        data = abi.encodeCall(IJobEscrow.submit, (job, t, 0, r.head, included(r, 2), included(r, SIZE - 2)));
        fails(r.worker, 0, data, reason);
        // The close of a longer log, and a head that was not anchored there.
        Receipts.Included memory close = included(r, SIZE - 1);
        reason = abi.encodeWithSelector(IJobEscrow.NotAnchored.selector, logId(run, r.worker, 0), 1);
        data = abi.encodeCall(IJobEscrow.submit, (job, t, 1, r.head, close, included(r, SIZE - 2)));
        fails(r.worker, 0, data, reason);
        close.index -= 1;
        data = abi.encodeCall(IJobEscrow.submit, (job, t, 0, r.head, close, included(r, SIZE - 2)));
        fails(r.worker, 0, data, only(IJobEscrow.NotAnchored.selector));
        send(r.worker, address(escrow), 0, submission(t, r));
    }

    /// Anybody who opens, closes or refuses jobs of others.
    function test_strangers_are_refused() external {
        IJobEscrow.Terms memory t = terms();
        submitted(t, Fault.None);
        bytes memory reason = abi.encodeWithSelector(IJobEscrow.NotAllowed.selector, REQUESTER);
        fails(REQUESTER, 0, abi.encodeCall(IJobEscrow.hold, (job, true)), reason);
        fails(REQUESTER, 0, abi.encodeCall(IJobEscrow.refuse, (job, t, REQUESTER, true)), reason);
    }
}
