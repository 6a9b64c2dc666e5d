// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IDisputes} from "../src/interfaces/IDisputes.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {MarketCase} from "./MarketCase.sol";

/// @title Who has what, by the market's rules
/// @dev Kept beside the contracts and from nothing that they store: bids as a list, votes as they were opened.
abstract contract MarketModel is MarketCase {
    struct Bid {
        address bidder;
        uint128 price;
        bool isRevealed;
    }

    struct Ballot {
        address voter;
        IDisputes.Outcome outcome;
    }

    struct Held {
        bytes32 job;
        address by;
        uint256 bond;
        address appellant;
        uint256 appealBond;
        bool isDispute;
        bool isSettled;
    }

    bytes32[] internal jobs;
    mapping(bytes32 job => IJobEscrow.Terms) internal termsOf;
    mapping(bytes32 job => address) internal requesterOf;
    mapping(bytes32 job => IJobEscrow.State) internal stateOf;
    /// @dev In the order in which they were made, and those that were revealed in that order.
    mapping(bytes32 job => Bid[]) internal bidsOf;
    mapping(bytes32 job => Bid[]) internal revealedOf;
    mapping(bytes32 job => uint256) internal demandsOf;
    mapping(bytes32 job => uint256) internal disputesOf;
    mapping(bytes32 job => address) internal convictedBy;
    mapping(bytes32 job => uint256) internal restOf;
    bytes32[] internal ids;
    mapping(bytes32 id => Held) internal held;
    mapping(bytes32 id => mapping(uint8 round => Ballot[])) internal ballots;

    mapping(address purse => mapping(address account => uint256)) internal due;
    mapping(address account => IStakeVault.Stake) internal stakes;
    mapping(address purse => uint256) internal came;
    mapping(address purse => uint256) internal left;
    uint256 public convictions;
    uint256 public paid;
    uint256 public verdicts;
    uint256 public answers;

    function burnOf(bytes32 id) private view returns (uint256) {
        return uint256(termsOf[id].units) * FEE_PER_UNIT;
    }

    function sealedBids(bytes32 id) internal view returns (uint256) {
        return bidsOf[id].length - revealedOf[id].length;
    }

    /// @dev First of the lowest bids that do not exceed the reward, and what the others leave for it.
    function best(bytes32 id) internal view returns (address winner, uint128 price) {
        Bid[] storage all = revealedOf[id];
        uint256 place = all.length;
        for (uint256 n = 0; n < all.length; ++n) {
            bool isLower = place == all.length || all[n].price < all[place].price;
            if (all[n].price <= termsOf[id].reward && isLower) place = n;
        }
        price = termsOf[id].reward;
        for (uint256 n = 0; n < all.length; ++n) {
            if (n != place && all[n].price < price) price = all[n].price;
        }
        winner = place == all.length ? address(0) : all[place].bidder;
    }

    function wasRevealed(bytes32 id, address bidder, uint128 price) internal {
        (address before,) = best(id);
        revealedOf[id].push(Bid(bidder, price, true));
        (address winner,) = best(id);
        if (winner != bidder) {
            due[address(escrow)][bidder] += termsOf[id].deposit;
            return;
        }
        if (before != address(0)) {
            unlock(before, termsOf[id].stake);
            due[address(escrow)][before] += termsOf[id].deposit;
        }
        stakes[bidder].free -= termsOf[id].stake;
        stakes[bidder].locked += termsOf[id].stake;
    }

    function unlock(address account, uint128 amount) private {
        stakes[account].locked -= amount;
        stakes[account].free += amount;
    }

    function wasPaid(bytes32 id) internal {
        (address winner, uint128 price) = best(id);
        IJobEscrow.Terms storage t = termsOf[id];
        stateOf[id] = IJobEscrow.State.Paid;
        due[address(escrow)][winner] += price;
        due[address(escrow)][requesterOf[id]] += t.reward - price;
        due[address(escrow)][address(0)] += burnOf(id) + sealedBids(id) * t.deposit;
        unlock(winner, t.stake);
        ++paid;
    }

    /// @dev Nobody is paid: reward, burn and the deposit of a worker that did not do what it bid for go back.
    function wasCalledOff(bytes32 id, IJobEscrow.State state, uint256 bounty) internal {
        (address winner,) = best(id);
        IJobEscrow.Terms storage t = termsOf[id];
        bool hasFailed = stateOf[id] != IJobEscrow.State.Submitted && winner != address(0);
        due[address(escrow)][requesterOf[id]] += t.reward - bounty + burnOf(id) + (hasFailed ? t.deposit : 0);
        due[address(escrow)][address(0)] += sealedBids(id) * t.deposit;
        stateOf[id] = state;
    }

    function wasCancelled(bytes32 id) internal {
        (address winner,) = best(id);
        if (winner != address(0)) unlock(winner, termsOf[id].stake);
        wasCalledOff(id, IJobEscrow.State.Cancelled, 0);
    }

    function wasConvicted(bytes32 id, address by) internal {
        if (convictedBy[id] != address(0)) return;
        convictedBy[id] = by;
        (address worker,) = best(id);
        require(worker != vm.addr(WORKER), "an honest worker was convicted");
        restOf[id] = termsOf[id].stake;
        ++convictions;
        bool isRunning = stateOf[id] == IJobEscrow.State.Accepted || stateOf[id] == IJobEscrow.State.Submitted;
        if (isRunning) {
            // Locked stake becomes free in the model, so that what follows takes it.
            unlock(worker, termsOf[id].stake);
            wasCalledOff(id, IJobEscrow.State.Refused, 0);
            stakes[worker].free -= termsOf[id].stake;
            shareOut(id, termsOf[id].stake);
        } else {
            wasCollected(id);
        }
    }

    function wasCollected(bytes32 id) internal {
        (address worker,) = best(id);
        IStakeVault.Stake storage stake = stakes[worker];
        uint256 ofFree = restOf[id] < stake.free ? restOf[id] : stake.free;
        uint256 ofLeaving = restOf[id] - ofFree < stake.leaving ? restOf[id] - ofFree : stake.leaving;
        stake.free -= uint128(ofFree);
        stake.leaving -= uint128(ofLeaving);
        shareOut(id, ofFree + ofLeaving);
    }

    function shareOut(bytes32 id, uint256 taken) private {
        restOf[id] -= taken;
        due[address(vault)][convictedBy[id]] += taken / 2;
        due[address(vault)][address(0)] += taken - taken / 2;
    }

    function wasAnswered(bytes32 id) internal {
        Held storage asked = held[id];
        asked.isSettled = true;
        (address worker,) = best(asked.job);
        uint256 fee = termsOf[asked.job].fee;
        due[address(challenge)][worker] += fee;
        due[address(challenge)][address(0)] += asked.bond - fee;
        ++answers;
    }

    function wasExpired(bytes32 id) internal {
        Held storage asked = held[id];
        asked.isSettled = true;
        due[address(challenge)][asked.by] += asked.bond;
        wasConvicted(asked.job, asked.by);
    }

    function count(bytes32 id, uint8 round, IDisputes.Outcome outcome) private view returns (uint256 number) {
        for (uint256 n = 0; n < ballots[id][round].length; ++n) {
            if (ballots[id][round][n].outcome == outcome) ++number;
        }
    }

    /// @dev A round's verdict; `otherwise` where nobody prevails.
    function verdictOf(bytes32 id, uint8 round, IDisputes.Outcome otherwise)
        private
        view
        returns (IDisputes.Outcome)
    {
        uint256 upheld = count(id, round, IDisputes.Outcome.Upheld);
        uint256 refuted = count(id, round, IDisputes.Outcome.Refuted);
        if (upheld == refuted) return otherwise;
        return upheld > refuted ? IDisputes.Outcome.Upheld : IDisputes.Outcome.Refuted;
    }

    function wasJudged(bytes32 id) internal {
        Held storage game = held[id];
        game.isSettled = true;
        ++verdicts;
        IDisputes.Outcome first = verdictOf(id, 0, IDisputes.Outcome.Upheld);
        IDisputes.Outcome last = game.appellant == address(0) ? first : verdictOf(id, 1, first);
        bool isRefuted = last == IDisputes.Outcome.Refuted;
        (address worker,) = best(game.job);
        payRound(id, 0, last, game.bond, isRefuted ? game.by : address(0), worker);
        address winner = last != first ? game.appellant : isRefuted ? game.by : address(0);
        if (game.appellant != address(0)) {
            bool hasWon = winner == game.appellant;
            payRound(id, 1, last, game.appealBond, hasWon ? winner : address(0), isRefuted ? game.by : worker);
        }
        if (isRefuted && stateOf[game.job] == IJobEscrow.State.Submitted) {
            uint256 bounty = termsOf[game.job].reward / 4;
            due[address(escrow)][winner] += bounty;
            unlock(worker, termsOf[game.job].stake);
            wasCalledOff(game.job, IJobEscrow.State.Refused, bounty);
        }
    }

    function payRound(
        bytes32 id,
        uint8 round,
        IDisputes.Outcome verdict,
        uint256 bond,
        address winner,
        address other
    ) private {
        uint256 fee = termsOf[held[id].job].fee;
        for (uint256 n = 0; n < ballots[id][round].length; ++n) {
            if (ballots[id][round][n].outcome != verdict) continue;
            due[address(disputes)][ballots[id][round][n].voter] += fee;
            bond -= fee;
        }
        due[address(disputes)][winner == address(0) ? other : winner] += winner == address(0) ? fee : bond;
        if (winner == address(0)) due[address(disputes)][address(0)] += bond - fee;
    }

    /// @dev What a contract holds for what is not settled.
    function holding(address purse) internal view returns (uint256 amount) {
        for (uint256 n = 0; purse == address(escrow) && n < jobs.length; ++n) {
            bytes32 id = jobs[n];
            if (stateOf[id] >= IJobEscrow.State.Paid) continue;
            (address winner,) = best(id);
            bool isKept = winner != address(0) && stateOf[id] != IJobEscrow.State.Submitted;
            amount += termsOf[id].reward + burnOf(id);
            amount += (sealedBids(id) + (isKept ? 1 : 0)) * termsOf[id].deposit;
        }
        for (uint256 n = 0; n < ids.length; ++n) {
            Held storage one = held[ids[n]];
            bool isHere = purse == (one.isDispute ? address(disputes) : address(challenge));
            if (isHere && !one.isSettled) amount += one.bond + one.appealBond;
        }
    }
}
