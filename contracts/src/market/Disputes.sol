// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IDisputes} from "../interfaces/IDisputes.sol";
import {IJobEscrow} from "../interfaces/IJobEscrow.sol";
import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {Beacons} from "../libraries/Beacons.sol";
import {Sortition} from "../libraries/Sortition.sol";
import {Submissions} from "./Submissions.sol";

/// @title What people decide about a submitted run
/// @notice See `IDisputes`.
contract Disputes is IDisputes, Submissions {
    using Beacons for Beacons.Beacon;
    using Sortition for Sortition.Roll;

    bytes32 private constant VOTED = keccak256("counterfoil.vote.v1");
    /// @dev Members of the two panels, and draws that may meet somebody who is on one already, for each.
    uint256 private constant PANEL = 3;
    uint256 private constant APPEAL = 7;
    uint64 private constant TRIES = 16;

    IStakeVault private immutable VAULT;
    /// @inheritdoc IDisputes
    uint64 public immutable EPOCH;
    /// @inheritdoc IDisputes
    uint128 public immutable SEAT;

    struct Vote {
        bytes32 promised;
        Outcome outcome;
    }

    mapping(uint64 epoch => Sortition.Roll) private rolls;
    mapping(uint64 epoch => mapping(address verifier => bool)) private isEnlisted;
    mapping(bytes32 id => Dispute) private disputes;
    mapping(bytes32 id => Round[2]) private rounds;
    mapping(bytes32 id => Beacons.Beacon[2]) private beacons;
    mapping(bytes32 id => mapping(uint8 round => mapping(address verifier => Vote))) private votes;

    constructor(IStakeVault vault, IJobEscrow escrow, uint64 voteSeconds, uint64 epochSeconds, uint128 seat)
        Submissions(escrow, voteSeconds, PANEL + 1)
    {
        (VAULT, EPOCH, SEAT) = (vault, epochSeconds, seat);
    }

    /// @inheritdoc IDisputes
    function disputeOf(bytes32 id) external view returns (Dispute memory) {
        return disputes[id];
    }

    /// @inheritdoc IDisputes
    function roundOf(bytes32 id, uint8 round) external view returns (Round memory) {
        return rounds[id][round];
    }

    /// @inheritdoc IDisputes
    function voteOf(bytes32 id, uint8 round, address verifier, Outcome outcome, bytes32 answer_, bytes32 salt)
        public
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(VOTED, id, round, verifier, outcome, answer_, salt));
    }

    /// @inheritdoc IDisputes
    function enlist() external {
        uint64 next = uint64(block.timestamp) / EPOCH + 1;
        uint128 seats = VAULT.weightOf(msg.sender) / SEAT;
        if (seats == 0 || isEnlisted[next][msg.sender]) revert NotEnlisted(msg.sender);
        isEnlisted[next][msg.sender] = true;
        rolls[next].add(msg.sender, seats);
        emit Enlisted(next, msg.sender, seats);
    }

    /// @inheritdoc IDisputes
    function dispute(bytes32 job, IJobEscrow.Terms calldata terms, uint64 index)
        external
        payable
        returns (bytes32 id)
    {
        open(job, terms);
        uint64 epoch = uint64(block.timestamp) / EPOCH;
        if (rolls[epoch].total() == 0) revert NobodyEnlisted(epoch);
        id = bond(job, terms);
        Dispute storage game = disputes[id];
        game.job = job;
        (game.index, game.epoch) = (index, epoch);
        begin(id, 0);
        emit Disputed(job, id, msg.sender, index);
    }

    /// @inheritdoc IDisputes
    function draw(bytes32 id) external returns (bytes32 beacon) {
        Dispute storage game = pending(id);
        uint8 number = game.isAppealed ? 1 : 0;
        Round storage round = rounds[id][number];
        if (round.beacon != 0) return round.beacon;
        if (block.timestamp >= round.drawEnds) revert TooLate(round.drawEnds);
        bytes32 hash = beacons[id][number].advance();
        if (hash == 0) return 0;
        beacon = keccak256(abi.encode(hash, id, number));
        round.beacon = beacon;
        (round.commitEnds, round.revealEnds) =
        (uint64(block.timestamp) + VOTE, uint64(block.timestamp) + 2 * VOTE);
        IJobEscrow.Job memory job = ESCROW.jobOf(game.job);
        uint256 wanted = number == 0 ? PANEL : APPEAL;
        for (uint64 slot = 0; slot < wanted * TRIES && round.panel.length < wanted; ++slot) {
            address account = rolls[game.epoch].draw(beacon, slot);
            bool isParty = account == job.worker || account == job.requester || account == rounds[id][0].by
                || account == round.by;
            if (!isParty && !isOn(rounds[id][0].panel, account) && !isOn(round.panel, account)) {
                round.panel.push(account);
            }
        }
        emit Drawn(id, number, beacon, round.panel, round.commitEnds);
    }

    /// @inheritdoc IDisputes
    function commit(bytes32 id, bytes32 vote) external {
        uint8 number = pending(id).isAppealed ? 1 : 0;
        Round storage round = rounds[id][number];
        if (!isOn(round.panel, msg.sender)) revert NotOnPanel(msg.sender);
        if (block.timestamp >= round.commitEnds) revert TooLate(round.commitEnds);
        Vote storage known = votes[id][number][msg.sender];
        if (known.promised != 0 || vote == 0) revert WrongVote(known.promised, vote);
        known.promised = vote;
        if (++round.promised == round.panel.length) {
            // Nobody is left who could copy a vote that is shown now.
            (round.commitEnds, round.revealEnds) = (uint64(block.timestamp), uint64(block.timestamp) + VOTE);
        }
        emit Committed(id, number, msg.sender);
    }

    /// @inheritdoc IDisputes
    function reveal(bytes32 id, Outcome outcome, bytes32 answer_, bytes32 salt) external {
        uint8 number = pending(id).isAppealed ? 1 : 0;
        Round storage round = rounds[id][number];
        Vote storage vote = votes[id][number][msg.sender];
        bytes32 actual = voteOf(id, number, msg.sender, outcome, answer_, salt);
        bool isVote = vote.promised == actual && vote.outcome == Outcome.None && outcome != Outcome.None;
        if (!isVote) revert WrongVote(vote.promised, actual);
        if (block.timestamp < round.commitEnds) revert TooEarly(round.commitEnds);
        if (block.timestamp >= endOf(round)) revert TooLate(endOf(round));
        vote.outcome = outcome;
        if (++round.revealed == round.promised) round.revealEnds = uint64(block.timestamp);
        emit Voted(id, number, msg.sender, outcome, answer_);
    }

    /// @inheritdoc IDisputes
    function appeal(bytes32 id, IJobEscrow.Terms calldata terms) external payable {
        Dispute storage game = pending(id);
        read(game.job, terms);
        if (game.isAppealed) revert AlreadyAppealed(id);
        uint64 from = endOf(rounds[id][0]);
        if (block.timestamp < from) revert TooEarly(from);
        if (block.timestamp >= from + VOTE) revert TooLate(from + VOTE);
        pay((APPEAL + 1) * uint256(terms.fee));
        game.isAppealed = true;
        begin(id, 1);
        emit Appealed(id, msg.sender);
    }

    /// @inheritdoc IDisputes
    function settle(bytes32 id, IJobEscrow.Terms calldata terms) external {
        Dispute storage game = pending(id);
        IJobEscrow.Job memory job = read(game.job, terms);
        uint64 from = game.isAppealed ? endOf(rounds[id][1]) : endOf(rounds[id][0]) + VOTE;
        if (block.timestamp < from) revert TooEarly(from);
        (Outcome verdict, address challenger, address winner) = judge(id, game.isAppealed);
        game.verdict = verdict;
        emit Settled(id, verdict);
        settleBond(id, 0, verdict, terms.fee, challenger, job.worker);
        if (game.isAppealed) {
            address appellant = rounds[id][1].by;
            bool hasWon = winner == appellant;
            address other = challenger == address(0) ? job.worker : challenger;
            settleBond(id, 1, verdict, terms.fee, hasWon ? appellant : address(0), other);
        }
        ESCROW.hold(game.job, false);
        if (verdict == Outcome.Refuted && job.state == IJobEscrow.State.Submitted) {
            ESCROW.refuse(game.job, terms, winner, false);
        }
    }

    /// @dev A round whose bond was paid by the caller.
    function begin(bytes32 id, uint8 number) private {
        Round storage round = rounds[id][number];
        (round.by, round.bond) = (msg.sender, msg.value);
        round.drawEnds = uint64(block.timestamp) + VOTE;
        // The next block decides.
        beacons[id][number].advance();
    }

    /// @dev Pays the votes for the verdict out of a round's bond. The rest goes to `winner`; without one, a fee to
    /// `other`, and what is left is burned, so that raising the price for others has one.
    function settleBond(bytes32 id, uint8 number, Outcome verdict, uint256 fee, address winner, address other)
        private
    {
        Round storage round = rounds[id][number];
        uint256 rest = round.bond;
        for (uint256 n = 0; n < round.panel.length; ++n) {
            if (votes[id][number][round.panel[n]].outcome == verdict) {
                owe(round.panel[n], fee);
                rest -= fee;
            }
        }
        if (winner != address(0)) {
            owe(winner, rest);
        } else {
            owe(other, fee);
            burn(rest - fee);
        }
    }

    /// @return verdict What nobody showed to be wrong is upheld; a second round in which nobody prevails changes
    /// nothing.
    /// @return challenger Who began the dispute, if they were right.
    /// @return winner Whose bond turned the verdict to what it is: the appellant's, if it changed it, else the
    /// challenger's, if they were right.
    function judge(bytes32 id, bool isAppealed)
        private
        view
        returns (Outcome verdict, address challenger, address winner)
    {
        Outcome first = tally(id, 0);
        if (first == Outcome.None) first = Outcome.Upheld;
        verdict = isAppealed ? tally(id, 1) : first;
        if (verdict == Outcome.None) verdict = first;
        if (verdict == Outcome.Refuted) challenger = rounds[id][0].by;
        winner = verdict == first ? challenger : rounds[id][1].by;
    }

    /// @dev None if nobody voted or as many for either.
    function tally(bytes32 id, uint8 number) private view returns (Outcome) {
        uint256 upheld;
        uint256 refuted;
        address[] storage panel = rounds[id][number].panel;
        for (uint256 n = 0; n < panel.length; ++n) {
            Outcome outcome = votes[id][number][panel[n]].outcome;
            if (outcome == Outcome.Upheld) ++upheld;
            if (outcome == Outcome.Refuted) ++refuted;
        }
        if (upheld == refuted) return Outcome.None;
        return upheld > refuted ? Outcome.Upheld : Outcome.Refuted;
    }

    function endOf(Round storage round) private view returns (uint64) {
        return round.beacon == 0 ? round.drawEnds : round.revealEnds;
    }

    function pending(bytes32 id) private view returns (Dispute storage game) {
        game = disputes[id];
        if (game.job == 0 || game.verdict != Outcome.None) revert Unknown(id);
    }

    function isOn(address[] storage panel, address account) private view returns (bool) {
        for (uint256 n = 0; n < panel.length; ++n) {
            if (panel[n] == account) return true;
        }
        return false;
    }
}
