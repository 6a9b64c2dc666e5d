// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IChallenge} from "../src/interfaces/IChallenge.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IPurse} from "../src/interfaces/IPurse.sol";
import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {IWorkSortition} from "../src/interfaces/IWorkSortition.sol";
import {Receipts} from "../src/libraries/Receipts.sol";
import {MarketModel} from "./MarketModel.sol";

/// @title What accounts do with jobs, stakes and proofs
/// @dev The key WORKER is an honest worker: it signs what it did and answers demands in time. CHEAT submits runs
/// with faults and signs contradictions.
abstract contract MarketAccounts is MarketModel {
    uint256 internal constant CHEAT = 3;
    uint256 internal constant MOST_JOBS = 2;

    address[] public accounts;
    uint256 public clock;
    /// @dev Encoded runs of submitted jobs.
    mapping(bytes32 job => bytes) internal material;
    mapping(address account => uint256) public paidIn;
    mapping(address account => uint256) public gone;
    uint256 public calls;

    constructor() {
        openMarket();
        clock = BEGIN;
        for (uint256 key = 1; key <= 3; ++key) {
            accounts.push(vm.addr(key));
        }
        accounts.push(REQUESTER);
        accounts.push(CHALLENGER);
        for (uint256 n = 0; n < VERIFIERS; ++n) {
            accounts.push(vm.addr(VERIFIER + n));
            stakes[accounts[5 + n]].free = SEAT;
        }
        came[address(vault)] = VERIFIERS * SEAT + STAKE;
        stakes[vm.addr(WORKER)].free = STAKE;
        for (uint256 n = 0; n < accounts.length; ++n) {
            vm.deal(accounts[n], 1 ether);
        }
        stakeMore(vm.addr(WORKER), 5 * STAKE);
        stakeMore(vm.addr(CHEAT), 6 * STAKE);
    }

    function choice(uint256 seed, uint256 place, uint256 number) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, place))) % number;
    }

    function any(uint256 seed, uint256 place) internal view returns (address) {
        return accounts[choice(seed, place, accounts.length)];
    }

    function act(address from, address to, uint256 value, bytes memory data)
        internal
        returns (bool succeeded, bytes memory answer)
    {
        ++calls;
        vm.prank(from);
        (succeeded, answer) = to.call{value: value}(data);
        if (!succeeded) return (succeeded, answer);
        came[to] += value;
        paidIn[from] += value;
    }

    function stakeMore(address account, uint256 amount) internal {
        act(account, address(vault), amount, abi.encodeCall(IStakeVault.deposit, (account)));
        stakes[account].free += uint128(amount);
    }

    /// @dev Mostly one that is not settled.
    function someJob(uint256 seed) internal view returns (bytes32) {
        if (jobs.length == 0) return bytes32(0);
        bytes32 id = jobs[choice(seed, 99, jobs.length)];
        if (choice(seed, 97, 8) == 0) return id;
        // They are among the last ones.
        uint256 number;
        for (uint256 n = jobs.length; n > 0 && n + 8 > jobs.length; --n) {
            if (stateOf[jobs[n - 1]] >= IJobEscrow.State.Paid) continue;
            if (choice(seed, 100 + n, ++number) == 0) id = jobs[n - 1];
        }
        return id;
    }

    function someHeld(uint256 seed, bool isDispute) internal view returns (bytes32) {
        for (uint256 n = 0; n < ids.length; ++n) {
            bytes32 id = ids[(choice(seed, 98, ids.length) + n) % ids.length];
            if (held[id].isDispute == isDispute && (!held[id].isSettled || seed % 16 == 0)) return id;
        }
        return bytes32(0);
    }

    function postAny(uint256 seed) internal {
        uint256 running;
        for (uint256 n = 0; n < jobs.length; ++n) {
            if (stateOf[jobs[n]] < IJobEscrow.State.Paid) ++running;
        }
        if (running >= MOST_JOBS) return;
        IJobEscrow.Terms memory t = terms();
        t.salt = bytes32(seed);
        t.fee = uint128(1 + choice(seed, 1, 20));
        t.reward = uint128(t.fee * (30 + choice(seed, 2, 1000)));
        t.stake = uint128(choice(seed, 3, STAKE));
        t.deposit = uint128(choice(seed, 4, 3) * 33);
        t.units = uint64(choice(seed, 5, 60));
        t.biddingEnds = uint64(clock + choice(seed, 6, HOUR));
        t.revealEnds = uint64(t.biddingEnds + choice(seed, 7, HOUR));
        t.acceptEnds = uint64(t.revealEnds + choice(seed, 8, HOUR));
        t.workEnds = uint64(t.acceptEnds + choice(seed, 9, HOUR));
        t.challengeWindow = uint64(HOUR + choice(seed, 10, 6 * HOUR));
        address requester = choice(seed, 11, 3) == 0 ? any(seed, 12) : REQUESTER;
        (bool succeeded, bytes memory answer) =
            act(requester, address(escrow), costOf(t), abi.encodeCall(IJobEscrow.post, (t)));
        if (!succeeded) return;
        bytes32 id = abi.decode(answer, (bytes32));
        jobs.push(id);
        (termsOf[id], requesterOf[id], stateOf[id]) = (t, requester, IJobEscrow.State.Posted);
    }

    function bidAny(uint256 seed) internal {
        bytes32 id = someJob(seed);
        if (id == 0) return;
        address bidder =
            choice(seed, 1, 4) == 0 ? any(seed, 2) : vm.addr(choice(seed, 3, 2) == 0 ? WORKER : CHEAT);
        uint128 price = uint128(choice(seed, 4, uint256(termsOf[id].reward) * 5 / 4));
        bytes32 commitment = escrow.commitmentOf(id, bidder, price, "salt");
        bytes memory data = abi.encodeCall(IJobEscrow.bid, (id, termsOf[id], commitment));
        (bool succeeded,) = act(bidder, address(escrow), termsOf[id].deposit, data);
        if (succeeded) bidsOf[id].push(Bid(bidder, price, false));
    }

    function revealAny(uint256 seed) internal {
        bytes32 id = someJob(seed);
        if (id == 0 || bidsOf[id].length == 0) return;
        Bid storage one = bidsOf[id][choice(seed, 1, bidsOf[id].length)];
        bytes memory data = abi.encodeCall(IJobEscrow.reveal, (id, termsOf[id], one.price, "salt"));
        (bool succeeded,) = act(one.bidder, address(escrow), 0, data);
        if (!succeeded) return;
        require(!one.isRevealed, "revealed twice");
        one.isRevealed = true;
        wasRevealed(id, one.bidder, one.price);
    }

    function acceptAny(uint256 seed) internal {
        bytes32 id = someJob(seed);
        if (id == 0) return;
        (address worker,) = best(id);
        address caller = choice(seed, 1, 8) == 0 ? any(seed, 2) : worker;
        (bool succeeded,) =
            act(caller, address(escrow), 0, abi.encodeCall(IJobEscrow.accept, (id, termsOf[id])));
        if (!succeeded) return;
        require(caller == worker, "accepted by another");
        stateOf[id] = IJobEscrow.State.Accepted;
    }

    function submitAny(uint256 seed) internal {
        bytes32 id = someJob(seed);
        if (id == 0 || stateOf[id] != IJobEscrow.State.Accepted) return;
        (address worker,) = best(id);
        uint256 key = worker == vm.addr(WORKER) ? WORKER : worker == vm.addr(CHEAT) ? CHEAT : 0;
        if (key == 0) return;
        Fault fault = key == CHEAT ? Fault(choice(seed, 1, 10)) : Fault.None;
        Run memory r = recorded(key, escrow.jobOf(id).run, termsOf[id].units, fault);
        (uint64 count,,) = chain.head(logId(r.run, worker, 0));
        if (count == 0) anchored(chain, r);
        bytes memory data = abi.encodeCall(
            IJobEscrow.submit, (id, termsOf[id], 0, r.head, included(r, SIZE - 1), included(r, SIZE - 2))
        );
        (bool succeeded,) = act(worker, address(escrow), 0, data);
        if (!succeeded) return;
        material[id] = abi.encode(r);
        stateOf[id] = IJobEscrow.State.Submitted;
        due[address(escrow)][worker] += termsOf[id].deposit;
    }

    function finishAny(uint256 seed) internal {
        bytes32 id = someJob(seed);
        if (id == 0) return;
        IJobEscrow.Terms memory t = termsOf[id];
        (bool succeeded,) =
            act(any(seed, 1), address(escrow), 0, abi.encodeCall(IJobEscrow.finalise, (id, t)));
        if (succeeded) wasPaid(id);
        (succeeded,) = act(any(seed, 2), address(escrow), 0, abi.encodeCall(IJobEscrow.reclaim, (id, t)));
        if (succeeded) wasCancelled(id);
        if (choice(seed, 3, 16) != 0) return;
        (succeeded,) = act(any(seed, 4), address(escrow), 0, abi.encodeCall(IJobEscrow.cancel, (id, t)));
        if (succeeded) wasCancelled(id);
    }

    /// @dev True material of a run, in any place: what an honest worker signed must convict nobody.
    function proveAny(uint256 seed) internal {
        bytes32 id = someJob(seed);
        if (id == 0 || material[id].length == 0) return;
        bytes32 source = choice(seed, 1, 4) == 0 ? someJob(seed >> 8) : id;
        if (material[source].length == 0) source = id;
        Run memory r = abi.decode(material[source], (Run));
        (bool succeeded,) = act(CHALLENGER, address(challenge), 0, proof(seed, id, r));
        if (succeeded) wasConvicted(id, CHALLENGER);
    }

    function proof(uint256 seed, bytes32 id, Run memory r) internal view returns (bytes memory) {
        uint256 kind = choice(seed, 2, 7);
        (uint256 one, uint256 two) = (choice(seed, 3, SIZE), choice(seed, 4, SIZE));
        IJobEscrow.Terms memory t = termsOf[id];
        if (kind == 0) {
            return abi.encodeCall(IChallenge.proveContradiction, (id, t, r.receipts[one], r.receipts[two]));
        }
        if (kind == 1) {
            // The cheat's key signs anything; of the honest worker others know the receipts alone.
            uint256 key = r.key == WORKER ? OTHER : r.key;
            return
                abi.encodeCall(IChallenge.proveContradiction, (id, t, r.receipts[one], changed(r, one, key)));
        }
        if (kind == 2) {
            uint64 size = uint64(1 + two);
            Receipts.Signed memory head = signedHead(r, size, root(r.leaves, 0, size));
            Receipts.Signed memory last = signedHead(r, uint64(SIZE), r.head.root);
            if (one == 0) last = r.receipts[two];
            return abi.encodeCall(IChallenge.proveContradiction, (id, t, head, last));
        }
        if (kind == 3) {
            return
                abi.encodeCall(IChallenge.proveMisplaced, (id, t, r.head, included(r, one), included(r, two)));
        }
        if (kind == 4 && one > 0) {
            return abi.encodeCall(
                IChallenge.proveMisplaced, (id, t, r.head, included(r, one), included(r, one - 1))
            );
        }
        if (kind == 5) {
            return abi.encodeCall(IChallenge.proveSignature, (id, t, r.head, included(r, one)));
        }
        // The job's pin is of another value than any step has, and of a tensor that the honest never has.
        bytes memory pinned = pin(0, HYPERPARAMETERS, "0/rate", wrong());
        return abi.encodeCall(
            IChallenge.provePin,
            (
                id,
                t,
                r.head,
                included(r, 2 + one % 3),
                openingOf(uint8(GRADIENTS + two % 5), uint64(one), 0),
                pinned,
                0,
                new bytes32[](0)
            )
        );
    }

    function collectAny(uint256 seed) internal {
        bytes32 id = someJob(seed);
        if (id == 0) return;
        (bool succeeded,) = act(any(seed, 1), address(challenge), 0, abi.encodeCall(IChallenge.collect, (id)));
        if (succeeded) wasCollected(id);
    }

    function stakeMovesAny(uint256 seed) internal {
        address account = any(seed, 1);
        uint128 amount = uint128(choice(seed, 2, 3_000));
        IStakeVault.Stake storage stake_ = stakes[account];
        if (choice(seed, 3, 4) == 0) return stakeMore(account, amount);
        if (choice(seed, 3, 4) == 1) {
            (bool begun,) = act(account, address(vault), 0, abi.encodeCall(IStakeVault.beginExit, (amount)));
            require(begun == (amount <= stake_.free), "an exit of free stake");
            if (!begun) return;
            (stake_.free, stake_.leaving) = (stake_.free - amount, stake_.leaving + amount);
            stake_.release = uint64(clock) + EXIT_DELAY;
            return;
        }
        (bool left_,) = act(account, address(vault), 0, abi.encodeCall(IStakeVault.exit, ()));
        require(left_ == (clock >= stake_.release), "an exit at its time");
        if (!left_) return;
        due[address(vault)][account] += stake_.leaving;
        stake_.leaving = 0;
    }

    /// @dev What only the market's contracts may call.
    function intrudeAny(uint256 seed) internal {
        address by = any(seed, 1);
        bytes32 id = someJob(seed);
        bytes[6] memory data = [
            abi.encodeCall(IStakeVault.lock, (by, 1)),
            abi.encodeCall(IStakeVault.unlock, (by, 1)),
            abi.encodeCall(IStakeVault.slash, (vm.addr(WORKER), 1, false, by)),
            abi.encodeCall(IJobEscrow.hold, (id, false)),
            abi.encodeCall(IJobEscrow.refuse, (id, termsOf[id], by, false)),
            abi.encodeCall(IWorkSortition.credit, (by, 1))
        ];
        uint256 which = choice(seed, 2, 6);
        address to = which < 3 ? address(vault) : which < 5 ? address(escrow) : address(sortition);
        (bool succeeded,) = act(by, to, 0, data[which]);
        require(!succeeded, "a stranger was obeyed");
    }

    function withdrawAny(uint256 seed) internal {
        withdrawOne(any(seed, 1), purses()[choice(seed, 2, 4)]);
    }

    function withdrawOne(address account, address purse) internal {
        uint256 expected = due[purse][account];
        (bool succeeded, bytes memory answer_) =
            act(account, purse, 0, abi.encodeCall(IPurse.withdraw, (payable(account))));
        require(succeeded == (expected != 0), "what is due is paid");
        if (!succeeded) return;
        require(abi.decode(answer_, (uint256)) == expected, "another amount");
        due[purse][account] = 0;
        left[purse] += expected;
        gone[account] += expected;
    }

    function purses() public view returns (address[4] memory) {
        return [address(vault), address(escrow), address(challenge), address(disputes)];
    }
}
