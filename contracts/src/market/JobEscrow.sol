// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IJobEscrow} from "../interfaces/IJobEscrow.sol";
import {IRunLedger} from "../interfaces/IRunLedger.sol";
import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {IWorkSortition} from "../interfaces/IWorkSortition.sol";
import {Receipts} from "../libraries/Receipts.sol";
import {Purse} from "./Purse.sol";

/// @title Paid training
/// @notice See `IJobEscrow`.
contract JobEscrow is IJobEscrow, Purse {
    bytes32 private constant JOB = keccak256("counterfoil.job.v1");
    bytes32 private constant BID = keccak256("counterfoil.bid.v1");
    bytes32 private constant NONCE = keccak256("counterfoil.job-nonce.v1");
    uint256 private constant LONGEST = 365 days;
    /// @dev A refused job's bounty is a fourth of its reward.
    uint256 private constant BOUNTY = 4;
    /// @dev In fees: so the bounty is worth the first bond, of four fees, twice, and frivolous disputes, whose
    /// bonds double, cost more than the reward from the ninth on.
    uint256 private constant LEAST_REWARD = 32;
    uint256 private constant MOST_REWARD = 1024;

    IRunLedger private immutable LEDGER;
    IStakeVault private immutable VAULT;
    IWorkSortition private immutable SORTITION;
    address private immutable CHALLENGE;
    address private immutable DISPUTES;
    uint256 private immutable FEE_PER_UNIT;
    uint64 private immutable SHORTEST_WINDOW;
    uint64 private immutable LONGEST_WINDOW;

    mapping(bytes32 job => Job) private jobs;
    mapping(bytes32 job => mapping(address bidder => bytes32)) private bids;

    constructor(
        IRunLedger ledger,
        IStakeVault vault,
        IWorkSortition sortition,
        address challenge,
        address disputes,
        uint256 feePerUnit,
        uint64 shortestWindow,
        uint64 longestWindow
    ) {
        (LEDGER, VAULT, SORTITION) = (ledger, vault, sortition);
        (CHALLENGE, DISPUTES) = (challenge, disputes);
        (FEE_PER_UNIT, SHORTEST_WINDOW, LONGEST_WINDOW) = (feePerUnit, shortestWindow, longestWindow);
    }

    modifier judges() {
        if (msg.sender != CHALLENGE && msg.sender != DISPUTES) revert NotAllowed(msg.sender);
        _;
    }

    /// @inheritdoc IJobEscrow
    function jobOf(bytes32 job) external view returns (Job memory) {
        return jobs[job];
    }

    /// @inheritdoc IJobEscrow
    function jobId(address requester, Terms calldata terms) public view returns (bytes32) {
        return keccak256(abi.encode(JOB, block.chainid, address(this), requester, terms));
    }

    /// @inheritdoc IJobEscrow
    function burnOf(Terms calldata terms) public view returns (uint256) {
        return FEE_PER_UNIT * terms.units;
    }

    /// @inheritdoc IJobEscrow
    function commitmentOf(bytes32 job, address bidder, uint128 price, bytes32 salt)
        public
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(BID, job, bidder, price, salt));
    }

    /// @inheritdoc IJobEscrow
    function post(Terms calldata terms) external payable returns (bytes32 job) {
        if (terms.reward < LEAST_REWARD * uint256(terms.fee)) revert WrongTerms(5);
        if (terms.fee == 0 || terms.reward > MOST_REWARD * uint256(terms.fee)) revert WrongTerms(8);
        if (terms.biddingEnds <= block.timestamp) revert WrongTerms(9);
        if (terms.revealEnds <= terms.biddingEnds) revert WrongTerms(10);
        if (terms.acceptEnds <= terms.revealEnds) revert WrongTerms(11);
        if (terms.workEnds <= terms.acceptEnds || terms.workEnds > block.timestamp + LONGEST) {
            revert WrongTerms(12);
        }
        if (terms.challengeWindow < SHORTEST_WINDOW || terms.challengeWindow > LONGEST_WINDOW) {
            revert WrongTerms(13);
        }
        pay(terms.reward + burnOf(terms));
        job = jobId(msg.sender, terms);
        Job storage known = jobs[job];
        if (known.state != State.Unknown) revert WrongState(job, known.state);
        (known.state, known.requester, known.next) = (State.Posted, msg.sender, terms.reward);
        emit Posted(job, msg.sender, terms);
    }

    /// @inheritdoc IJobEscrow
    function cancel(bytes32 job, Terms calldata terms) external {
        Job storage known = read(job, terms, State.Posted);
        if (msg.sender != known.requester) revert NotAllowed(msg.sender);
        if (known.bids != 0 || block.timestamp >= terms.biddingEnds) revert TooLate(terms.biddingEnds);
        refund(job, known, terms, 0);
    }

    /// @inheritdoc IJobEscrow
    function bid(bytes32 job, Terms calldata terms, bytes32 commitment) external payable {
        Job storage known = read(job, terms, State.Posted);
        if (block.timestamp >= terms.biddingEnds) revert TooLate(terms.biddingEnds);
        if (commitment == 0 || bids[job][msg.sender] != 0) {
            revert WrongBid(bids[job][msg.sender], commitment);
        }
        pay(terms.deposit);
        bids[job][msg.sender] = commitment;
        ++known.bids;
        emit BidMade(job, msg.sender, commitment);
    }

    /// @inheritdoc IJobEscrow
    function reveal(bytes32 job, Terms calldata terms, uint128 price, bytes32 salt) external {
        Job storage known = read(job, terms, State.Posted);
        if (block.timestamp < terms.biddingEnds) revert TooEarly(terms.biddingEnds);
        if (block.timestamp >= terms.revealEnds) revert TooLate(terms.revealEnds);
        bytes32 expected = bids[job][msg.sender];
        bytes32 actual = commitmentOf(job, msg.sender, price, salt);
        if (expected != actual) revert WrongBid(expected, actual);
        delete bids[job][msg.sender];
        --known.bids;
        // A bid above the reward wins nothing, and is no price for another one either.
        address leader = known.worker;
        bool isLeading = price <= terms.reward && (leader == address(0) || price < known.price);
        if (!isLeading) {
            if (price < known.next) known.next = price;
            owe(msg.sender, terms.deposit);
        } else {
            if (leader != address(0)) {
                known.next = known.price;
                VAULT.unlock(leader, terms.stake);
                owe(leader, terms.deposit);
            }
            (known.worker, known.price) = (msg.sender, price);
            VAULT.lock(msg.sender, terms.stake);
        }
        emit BidRevealed(job, msg.sender, price, isLeading);
    }

    /// @inheritdoc IJobEscrow
    function accept(bytes32 job, Terms calldata terms) external returns (bytes32 run, bytes32 nonce) {
        Job storage known = read(job, terms, State.Posted);
        if (msg.sender != known.worker) revert NotAllowed(msg.sender);
        if (block.timestamp < terms.revealEnds) revert TooEarly(terms.revealEnds);
        if (block.timestamp >= terms.acceptEnds) revert TooLate(terms.acceptEnds);
        nonce = keccak256(abi.encode(NONCE, job, blockhash(block.number - 1)));
        run = Receipts.runId(msg.sender, terms.specification, 0, nonce);
        (known.state, known.run) = (State.Accepted, run);
        emit Accepted(job, msg.sender, run, nonce);
        bytes32 registered = LEDGER.register(msg.sender, terms.specification, 0, nonce);
        assert(registered == run);
    }

    /// @inheritdoc IJobEscrow
    function submit(
        bytes32 job,
        Terms calldata terms,
        uint64 anchor,
        IRunLedger.Head calldata head,
        Receipts.Included calldata close,
        Receipts.Included calldata result
    ) external {
        Job storage known = read(job, terms, State.Accepted);
        address worker = known.worker;
        if (msg.sender != worker) revert NotAllowed(msg.sender);
        if (block.timestamp >= terms.workEnds) revert TooLate(terms.workEnds);
        checkClose(known.run, worker, terms.units, close.receipt);
        checkResult(known.run, worker, close.receipt.body, result.receipt);
        bytes32 log = Receipts.logId(known.run, worker, 0);
        bool isAtEnd = close.index + 1 == head.size && result.index + 1 == close.index;
        if (
            !isAtEnd || !Receipts.isIncluded(LEDGER, log, anchor, head, close)
                || !Receipts.isIncluded(LEDGER, log, anchor, head, result)
        ) revert NotAnchored(log, anchor);
        uint64 ends = uint64(block.timestamp) + terms.challengeWindow;
        (known.state, known.anchor, known.challengeEnds) = (State.Submitted, anchor, ends);
        owe(worker, terms.deposit);
        emit Submitted(job, worker, anchor, head.size, ends);
    }

    /// @inheritdoc IJobEscrow
    function finalise(bytes32 job, Terms calldata terms) external {
        Job storage known = read(job, terms, State.Submitted);
        if (block.timestamp < known.challengeEnds) revert TooEarly(known.challengeEnds);
        if (known.open != 0) revert StillOpen(known.open);
        known.state = State.Paid;
        owe(known.worker, known.next);
        owe(known.requester, terms.reward - known.next);
        burn(burnOf(terms) + known.bids * uint256(terms.deposit));
        VAULT.unlock(known.worker, terms.stake);
        SORTITION.credit(known.worker, terms.units);
        emit Paid(job, known.worker, known.next);
    }

    /// @inheritdoc IJobEscrow
    function reclaim(bytes32 job, Terms calldata terms) external {
        Job storage known = jobs[job];
        check(job, terms, known);
        bool isAccepted = known.state == State.Accepted;
        if (!isAccepted && known.state != State.Posted) revert WrongState(job, known.state);
        address worker = known.worker;
        uint64 from = isAccepted ? terms.workEnds : worker == address(0) ? terms.revealEnds : terms.acceptEnds;
        if (block.timestamp < from) revert TooEarly(from);
        if (worker != address(0)) VAULT.unlock(worker, terms.stake);
        refund(job, known, terms, worker == address(0) ? 0 : terms.deposit);
    }

    /// @inheritdoc IJobEscrow
    function hold(bytes32 job, bool isOpened) external judges {
        if (isOpened) ++jobs[job].open;
        else --jobs[job].open;
    }

    /// @inheritdoc IJobEscrow
    function refuse(bytes32 job, Terms calldata terms, address by, bool isSlashed) external judges {
        Job storage known = jobs[job];
        check(job, terms, known);
        bool isAccepted = known.state == State.Accepted;
        if (!isAccepted && known.state != State.Submitted) revert WrongState(job, known.state);
        known.state = State.Refused;
        uint256 bounty = by == address(0) ? 0 : terms.reward / BOUNTY;
        if (bounty != 0) owe(by, bounty);
        // A worker that has submitted has its deposit back.
        uint256 deposit = isAccepted ? terms.deposit : 0;
        owe(known.requester, terms.reward - bounty + burnOf(terms) + deposit);
        burn(known.bids * uint256(terms.deposit));
        if (!isSlashed) VAULT.unlock(known.worker, terms.stake);
        emit Refused(job, by, bounty);
    }

    /// @dev Gives reward, burn and `deposit` to the requester; deposits of bids that nobody revealed are burned.
    function refund(bytes32 job, Job storage known, Terms calldata terms, uint256 deposit) private {
        known.state = State.Cancelled;
        owe(known.requester, terms.reward + burnOf(terms) + deposit);
        burn(known.bids * uint256(terms.deposit));
        emit Cancelled(job);
    }

    function read(bytes32 job, Terms calldata terms, State state) private view returns (Job storage known) {
        known = jobs[job];
        check(job, terms, known);
        if (known.state != state) revert WrongState(job, known.state);
    }

    /// @dev A job that nobody posted has no requester, and no terms are its own.
    function check(bytes32 job, Terms calldata terms, Job storage known) private view {
        if (known.state == State.Unknown || jobId(known.requester, terms) != job) {
            revert WrongState(job, State.Unknown);
        }
    }

    function pay(uint256 expected) private view {
        if (msg.value != expected) revert WrongValue(expected, msg.value);
    }

    function checkClose(bytes32 run, address worker, uint64 units, Receipts.Signed calldata close)
        private
        pure
    {
        bytes calldata body = close.body;
        if (close.typeHash != Receipts.CLOSE || body.length != 32 * 12) revert WrongClose(0);
        if (!Receipts.isOf(body, run, worker)) revert WrongClose(1);
        if (Receipts.word(body, 3) != 0) revert WrongClose(3);
        if (Receipts.word(body, 8) != 0) revert WrongClose(8);
        if (Receipts.word(body, 9) < units) revert WrongClose(9);
        // A key that the worker delegated to is judged by whoever verifies the run.
        bool isOwn = Receipts.signerOf(close) == worker;
        if (!isOwn && Receipts.word(body, 6) == 0) revert WrongClose(6);
    }

    function checkResult(bytes32 run, address worker, bytes calldata close, Receipts.Signed calldata result)
        private
        pure
    {
        bytes calldata body = result.body;
        bool isCheckpoint =
            result.typeHash == Receipts.CHECKPOINT && body.length == 32 * Receipts.CHECKPOINT_WORDS;
        if (!isCheckpoint) revert WrongResult(0);
        if (!Receipts.isOf(body, run, worker)) revert WrongResult(1);
        if (Receipts.word(body, 8) != Receipts.word(close, 9)) revert WrongResult(8);
        if (Receipts.word(body, 9) == 0) revert WrongResult(9);
    }
}
