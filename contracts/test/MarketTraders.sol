// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IChallenge} from "../src/interfaces/IChallenge.sol";
import {IDisputes} from "../src/interfaces/IDisputes.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IPurse} from "../src/interfaces/IPurse.sol";
import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {MarketAccounts} from "./MarketAccounts.sol";

/// @title Accounts that do anything, at any time, mostly wrongly
/// @dev The honest worker answers demands before time goes on; verifiers mostly vote against everybody.
contract MarketTraders is MarketAccounts {
    mapping(bytes32 id => IChallenge.Place) private places;
    mapping(bytes32 id => mapping(uint8 round => mapping(address voter => IDisputes.Outcome))) private
        promised;

    /// @dev Sixteen actions, drawn by weights with which about half of the jobs are submitted.
    function go(uint256 seed) external {
        for (uint256 n = 0; n < 16; ++n) {
            step(uint256(keccak256(abi.encode(seed, n, calls))));
        }
    }

    function step(uint256 seed) private {
        function(uint256)[20] memory actions = [
            postAny,
            bidAny,
            revealAny,
            acceptAny,
            submitAny,
            finishAny,
            demandAny,
            answerDemandAny,
            expireAny,
            disputeAny,
            drawAny,
            voteAny,
            appealAny,
            settleAny,
            proveAny,
            collectAny,
            stakeMovesAny,
            intrudeAny,
            withdrawAny,
            passAny
        ];
        uint8[20] memory weights = [4, 9, 11, 8, 8, 2, 3, 2, 2, 4, 5, 8, 2, 3, 3, 1, 1, 1, 1, 2];
        uint256 met = choice(seed, 0, 80);
        for (uint256 n = 0; n < 20; ++n) {
            if (met < weights[n]) return actions[n](seed);
            met -= weights[n];
        }
    }

    function demandAny(uint256 seed) private {
        bytes32 id = someJob(seed);
        if (id == 0 || demandsOf[id] > 6) return;
        IChallenge.Place memory place = IChallenge.Place(
            uint64(uint256(keccak256(abi.encode(seed)))),
            uint8(choice(seed, 5, 3) == 0 ? 16 + choice(seed, 1, 6) : 3 + choice(seed, 1, 8)),
            uint64(choice(seed, 2, 100)),
            uint64(choice(seed, 3, 100))
        );
        uint256 price = uint256(termsOf[id].fee) * 2 ** demandsOf[id];
        address by = any(seed, 4);
        bytes memory data = abi.encodeCall(IChallenge.demand, (id, termsOf[id], place));
        (bool succeeded, bytes memory answer_) = act(by, address(challenge), price, data);
        if (!succeeded) return;
        bytes32 asked = abi.decode(answer_, (bytes32));
        ++demandsOf[id];
        ids.push(asked);
        held[asked] = Held(id, by, price, address(0), 0, false, false);
        places[asked] = place;
    }

    function answerDemandAny(uint256 seed) private {
        bytes32 id = someHeld(seed, false);
        if (id != 0) answerOne(id, any(seed, 1));
    }

    function answerOne(bytes32 id, address from) private returns (bool succeeded) {
        Run memory r = abi.decode(material[held[id].job], (Run));
        IChallenge.Place memory place = places[id];
        uint256 index = place.index % SIZE;
        bytes memory data = abi.encodeCall(
            IChallenge.answer,
            (
                id,
                termsOf[held[id].job],
                r.head,
                included(r, index),
                openingOf(place.field, place.entry, place.chunk)
            )
        );
        (succeeded,) = act(from, address(challenge), 0, data);
        if (succeeded) wasAnswered(id);
    }

    function expireAny(uint256 seed) private {
        bytes32 id = someHeld(seed, false);
        if (id == 0) return;
        bytes memory data = abi.encodeCall(IChallenge.expire, (id, termsOf[held[id].job]));
        (bool succeeded,) = act(any(seed, 1), address(challenge), 0, data);
        if (succeeded) wasExpired(id);
    }

    function disputeAny(uint256 seed) private {
        bytes32 id = someJob(seed);
        if (id == 0 || material[id].length == 0 || disputesOf[id] > 3) return;
        uint256 price = uint256(termsOf[id].fee) * 4 * 2 ** disputesOf[id];
        address by = any(seed, 1);
        bytes memory data =
            abi.encodeCall(IDisputes.dispute, (id, termsOf[id], uint64(choice(seed, 2, SIZE))));
        (bool succeeded, bytes memory answer_) = act(by, address(disputes), price, data);
        if (!succeeded) return;
        bytes32 game = keccak256(abi.encode(id, disputesOf[id]++));
        require(abi.decode(answer_, (bytes32)) == game, "another dispute");
        // A demand on the same job has the same number, but another contract's.
        game = abi.decode(answer_, (bytes32)) ^ bytes32(uint256(1));
        ids.push(game);
        held[game] = Held(id, by, price, address(0), 0, true, false);
    }

    /// @dev Disputes and demands are numbered alike, so the model names disputes by another last bit.
    function gameOf(bytes32 id) private pure returns (bytes32) {
        return id ^ bytes32(uint256(1));
    }

    function drawAny(uint256 seed) private {
        bytes32 id = someHeld(seed, true);
        if (id == 0) return;
        act(any(seed, 1), address(disputes), 0, abi.encodeCall(IDisputes.draw, (gameOf(id))));
    }

    function voteAny(uint256 seed) private {
        bytes32 id = someHeld(seed, true);
        if (id == 0) return;
        uint8 round = held[id].appellant == address(0) ? 0 : 1;
        address[] memory panel = disputes.roundOf(gameOf(id), round).panel;
        for (uint256 n = 0; n < panel.length; ++n) {
            if (choice(seed, n, 5) == 0) continue;
            address voter = panel[n];
            IDisputes.Outcome outcome = promised[id][round][voter];
            bytes memory data = abi.encodeCall(IDisputes.reveal, (gameOf(id), outcome, "", "salt"));
            (bool succeeded,) = act(voter, address(disputes), 0, data);
            if (succeeded) {
                bool isKnown;
                for (uint256 m = 0; m < ballots[id][round].length; ++m) {
                    isKnown = isKnown || ballots[id][round][m].voter == voter;
                }
                if (!isKnown) ballots[id][round].push(Ballot(voter, outcome));
                continue;
            }
            outcome = choice(seed, 20 + n, 3) == 0 ? IDisputes.Outcome.Upheld : IDisputes.Outcome.Refuted;
            bytes32 sealedVote = disputes.voteOf(gameOf(id), round, voter, outcome, "", "salt");
            (succeeded,) =
                act(voter, address(disputes), 0, abi.encodeCall(IDisputes.commit, (gameOf(id), sealedVote)));
            if (succeeded) promised[id][round][voter] = outcome;
        }
    }

    function appealAny(uint256 seed) private {
        bytes32 id = someHeld(seed, true);
        if (id == 0) return;
        address by = any(seed, 1);
        uint256 price = 8 * uint256(termsOf[held[id].job].fee);
        bytes memory data = abi.encodeCall(IDisputes.appeal, (gameOf(id), termsOf[held[id].job]));
        (bool succeeded,) = act(by, address(disputes), price, data);
        if (succeeded) (held[id].appellant, held[id].appealBond) = (by, price);
    }

    function settleAny(uint256 seed) private {
        bytes32 id = someHeld(seed, true);
        if (id != 0) settleOne(id);
    }

    function settleOne(bytes32 id) private returns (bool succeeded) {
        bytes memory data = abi.encodeCall(IDisputes.settle, (gameOf(id), termsOf[held[id].job]));
        (succeeded,) = act(CHALLENGER, address(disputes), 0, data);
        if (succeeded) wasJudged(id);
    }

    /// @dev Time goes on; before it does, the honest worker answers every demand of its runs.
    function passAny(uint256 seed) private {
        uint256 kind = choice(seed, 1, 8);
        uint256 next = clock + choice(seed, 2, 600);
        if (kind < 7) next = nearest();
        if (choice(seed, 3, 64) == 0) next = clock + EPOCH;
        if (next <= clock) next = clock + choice(seed, 4, HOUR);
        height += choice(seed, 5, 16) == 0 ? 300 : 2;
        vm.roll(height);
        moveTo(next);
    }

    /// @dev The first time at which something of a running job ends.
    function nearest() private view returns (uint256 next) {
        next = clock + VOTE;
        for (uint256 n = 0; n < jobs.length; ++n) {
            uint256 ends = stateOf[jobs[n]] < IJobEscrow.State.Paid ? deadline(jobs[n]) : 0;
            if (ends > clock && ends < next) next = ends;
        }
    }

    function deadline(bytes32 id) private view returns (uint256) {
        IJobEscrow.Terms storage t = termsOf[id];
        if (clock < t.biddingEnds) return t.biddingEnds;
        if (clock < t.revealEnds) return t.revealEnds;
        if (stateOf[id] == IJobEscrow.State.Submitted) return escrow.jobOf(id).challengeEnds;
        return clock < t.acceptEnds ? t.acceptEnds : t.workEnds;
    }

    function moveTo(uint256 next) private {
        for (uint256 n = 0; n < ids.length; ++n) {
            if (held[ids[n]].isDispute || held[ids[n]].isSettled) continue;
            (address worker,) = best(held[ids[n]].job);
            if (worker == vm.addr(WORKER)) require(answerOne(ids[n], worker), "an honest answer is refused");
        }
        if (next / EPOCH > clock / EPOCH) {
            vm.warp((next / EPOCH) * EPOCH - 1);
            for (uint256 n = 5; n < accounts.length; ++n) {
                act(accounts[n], address(disputes), 0, abi.encodeCall(IDisputes.enlist, ()));
            }
        }
        clock = next;
        vm.warp(next);
    }

    /// @dev Behind all bounds everything ends by calls that anybody can make, and all that is due is paid.
    function end() external {
        uint256 last = clock;
        for (uint256 n = 0; n < jobs.length; ++n) {
            (uint256 ends, uint256 works) = (escrow.jobOf(jobs[n]).challengeEnds, termsOf[jobs[n]].workEnds);
            if (ends > last) last = ends;
            if (works > last) last = works;
        }
        moveTo(last + 7 * VOTE);
        for (uint256 n = 0; n < ids.length; ++n) {
            if (held[ids[n]].isSettled) continue;
            if (held[ids[n]].isDispute) {
                require(settleOne(ids[n]), "a dispute without an end");
                continue;
            }
            bytes memory data = abi.encodeCall(IChallenge.expire, (ids[n], termsOf[held[ids[n]].job]));
            (bool succeeded,) = act(CHALLENGER, address(challenge), 0, data);
            require(succeeded, "a demand without an end");
            wasExpired(ids[n]);
        }
        for (uint256 n = 0; n < jobs.length; ++n) {
            if (stateOf[jobs[n]] >= IJobEscrow.State.Paid) continue;
            bool isSubmitted = stateOf[jobs[n]] == IJobEscrow.State.Submitted;
            bytes memory data = isSubmitted
                ? abi.encodeCall(IJobEscrow.finalise, (jobs[n], termsOf[jobs[n]]))
                : abi.encodeCall(IJobEscrow.reclaim, (jobs[n], termsOf[jobs[n]]));
            (bool succeeded,) = act(CHALLENGER, address(escrow), 0, data);
            require(succeeded, "a job without an end");
            if (isSubmitted) wasPaid(jobs[n]);
            else wasCancelled(jobs[n]);
        }
        takeAll();
    }

    function takeAll() private {
        for (uint256 n = 0; n < accounts.length; ++n) {
            IStakeVault.Stake storage stake_ = stakes[accounts[n]];
            require(stake_.locked == 0, "stake that stays locked");
            (bool begun,) =
                act(accounts[n], address(vault), 0, abi.encodeCall(IStakeVault.beginExit, (stake_.free)));
            require(begun, "stake that cannot leave");
            (stake_.leaving, stake_.free) = (stake_.leaving + stake_.free, 0);
        }
        clock += EXIT_DELAY;
        vm.warp(clock);
        for (uint256 n = 0; n < accounts.length; ++n) {
            act(accounts[n], address(vault), 0, abi.encodeCall(IStakeVault.exit, ()));
            due[address(vault)][accounts[n]] += stakes[accounts[n]].leaving;
            stakes[accounts[n]].leaving = 0;
            for (uint256 p = 0; p < 4; ++p) {
                withdrawOne(accounts[n], purses()[p]);
            }
        }
        for (uint256 p = 0; p < 4; ++p) {
            address purse = purses()[p];
            equal(purse.balance, IPurse(purse).owed(address(0)), "all but what was burned has left");
        }
    }

    function check() external view {
        for (uint256 p = 0; p < 4; ++p) {
            address purse = purses()[p];
            uint256 owed = due[purse][address(0)];
            equal(IPurse(purse).owed(address(0)), owed, "burned");
            for (uint256 n = 0; n < accounts.length; ++n) {
                equal(IPurse(purse).owed(accounts[n]), due[purse][accounts[n]], "owed");
                owed += due[purse][accounts[n]];
                if (p == 0) owed += checkStake(accounts[n]);
            }
            equal(purse.balance, came[purse] - left[purse], "came and left");
            equal(purse.balance, owed + holding(purse), "owed and held");
        }
    }

    function checkStake(address account) private view returns (uint256) {
        IStakeVault.Stake storage model = stakes[account];
        stakeIs(account, model.free, model.locked, model.leaving);
        return uint256(model.free) + model.locked + model.leaving;
    }
}
