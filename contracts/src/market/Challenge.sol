// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IChallenge} from "../interfaces/IChallenge.sol";
import {IJobEscrow} from "../interfaces/IJobEscrow.sol";
import {IOpenings} from "../interfaces/IOpenings.sol";
import {IRunLedger} from "../interfaces/IRunLedger.sol";
import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {Entries} from "../libraries/Entries.sol";
import {Receipts} from "../libraries/Receipts.sol";
import {Rfc9162} from "../libraries/Rfc9162.sol";
import {States} from "../libraries/States.sol";
import {Submissions} from "./Submissions.sol";

/// @title What the chain decides about a submitted run
/// @notice See `IChallenge`.
contract Challenge is IChallenge, Submissions {
    IRunLedger private immutable LEDGER;
    IStakeVault private immutable VAULT;

    /// @dev Who showed the fault, and what of the job's stake is not taken yet.
    struct Conviction {
        address by;
        uint128 rest;
    }

    mapping(bytes32 id => Demand) private demands;
    mapping(bytes32 job => Conviction) private convictions;

    constructor(IRunLedger ledger, IStakeVault vault, IJobEscrow escrow, uint64 voteSeconds)
        Submissions(escrow, voteSeconds, 1)
    {
        (LEDGER, VAULT) = (ledger, vault);
    }

    /// @inheritdoc IChallenge
    function demandOf(bytes32 id) external view returns (Demand memory) {
        return demands[id];
    }

    /// @inheritdoc IChallenge
    function demand(bytes32 job, IJobEscrow.Terms calldata terms, Place calldata place)
        external
        payable
        returns (bytes32 id)
    {
        open(job, terms);
        if (!Receipts.isState(place.field) || (terms.openable >> place.field) & 1 == 0) {
            revert NotOpenable(place.field);
        }
        id = bond(job, terms);
        uint64 ends = uint64(block.timestamp) + VOTE;
        demands[id] = Demand(job, msg.sender, ends, false, msg.value, place);
        emit Demanded(job, id, msg.sender, place, ends);
    }

    /// @inheritdoc IChallenge
    function answer(
        bytes32 id,
        IJobEscrow.Terms calldata terms,
        IRunLedger.Head calldata head,
        Receipts.Included calldata step,
        IOpenings.Opening calldata opening
    ) external {
        Demand storage asked = demands[id];
        if (asked.by == address(0) || asked.isSettled) revert Unknown(id);
        IJobEscrow.Job memory job = read(asked.job, terms);
        if (block.timestamp >= asked.answerEnds) revert TooLate(asked.answerEnds);
        same(asked.place.index % head.size, step.index);
        includes(job, head, step);
        checkAnswer(asked.place, step.receipt, opening);
        asked.isSettled = true;
        // More than a fee would let a worker raise the price for others and get it back.
        owe(job.worker, terms.fee);
        burn(asked.bond - terms.fee);
        emit Answered(id);
        ESCROW.hold(asked.job, false);
    }

    /// @inheritdoc IChallenge
    function expire(bytes32 id, IJobEscrow.Terms calldata terms) external {
        Demand storage asked = demands[id];
        if (asked.by == address(0) || asked.isSettled) revert Unknown(id);
        if (block.timestamp < asked.answerEnds) revert TooEarly(asked.answerEnds);
        asked.isSettled = true;
        owe(asked.by, asked.bond);
        ESCROW.hold(asked.job, false);
        convict(asked.job, terms, 5, asked.by);
    }

    /// @inheritdoc IChallenge
    function proveContradiction(
        bytes32 job,
        IJobEscrow.Terms calldata terms,
        Receipts.Signed calldata one,
        Receipts.Signed calldata other
    ) external {
        IJobEscrow.Job memory known = read(job, terms);
        bool isHead = one.typeHash == Receipts.HEAD;
        if (isHead != (other.typeHash == Receipts.HEAD)) revert NoFault();
        if (!Receipts.isOf(one.body, known.run, known.worker)) revert NoFault();
        if (!Receipts.isOf(other.body, known.run, known.worker)) revert NoFault();
        // Lane, and the sequence of receipts or the size of heads.
        for (uint256 word = 3; word < 5; ++word) {
            if (Receipts.word(one.body, word) != Receipts.word(other.body, word)) revert NoFault();
        }
        bool isSame = isHead
            ? Receipts.word(one.body, 5) == Receipts.word(other.body, 5)
            : Receipts.digestOf(one.typeHash, one.body) == Receipts.digestOf(other.typeHash, other.body);
        if (isSame || !isSigned(known, one) || !isSigned(known, other)) revert NoFault();
        convict(job, terms, 1, msg.sender);
    }

    /// @inheritdoc IChallenge
    function proveMisplaced(
        bytes32 job,
        IJobEscrow.Terms calldata terms,
        IRunLedger.Head calldata head,
        Receipts.Included calldata receipt,
        Receipts.Included calldata before
    ) external {
        IJobEscrow.Job memory known = read(job, terms);
        includes(known, head, receipt);
        bytes calldata body = receipt.receipt.body;
        bool isInPlace = Receipts.isOf(body, known.run, known.worker) && Receipts.word(body, 3) == 0
            && Receipts.word(body, 4) == receipt.index;
        if (isInPlace) {
            if (receipt.index == 0) revert NoFault();
            includes(known, head, before);
            same(receipt.index - 1, before.index);
            bytes32 digest = Receipts.digestOf(before.receipt.typeHash, before.receipt.body);
            if (bytes32(Receipts.word(body, 5)) == digest) revert NoFault();
        }
        convict(job, terms, 2, msg.sender);
    }

    /// @inheritdoc IChallenge
    function proveSignature(
        bytes32 job,
        IJobEscrow.Terms calldata terms,
        IRunLedger.Head calldata head,
        Receipts.Included calldata receipt
    ) external {
        IJobEscrow.Job memory known = read(job, terms);
        includes(known, head, receipt);
        bytes calldata body = receipt.receipt.body;
        bool isDelegated = body.length >= 32 * Receipts.HEADER && Receipts.word(body, 6) != 0;
        if (isDelegated || isSigned(known, receipt.receipt)) revert NoFault();
        convict(job, terms, 3, msg.sender);
    }

    /// @inheritdoc IChallenge
    function provePin(
        bytes32 job,
        IJobEscrow.Terms calldata terms,
        IRunLedger.Head calldata head,
        Receipts.Included calldata step,
        IOpenings.Opening calldata opening,
        bytes calldata pin,
        uint64 pinIndex,
        bytes32[] calldata pinProof
    ) external {
        includes(read(job, terms), head, step);
        if (!Rfc9162.includes(terms.pins, terms.pinCount, Rfc9162.leafHash(pin), pinIndex, pinProof)) {
            revert NoFault();
        }
        // Pins speak of steps.
        if (opening.field >= 16) revert NoFault();
        checkOpening(stateOf(step.receipt, opening.field), opening);
        bytes calldata name = States.checkChunk(opening);
        if (opening.chunkIndex != 0 || !isPinned(pin, step.receipt.body, opening.field, name)) {
            revert NoFault();
        }
        if (keccak256(pin[11 + name.length:]) == keccak256(opening.chunk)) revert NoFault();
        convict(job, terms, 4, msg.sender);
    }

    /// @inheritdoc IChallenge
    function collect(bytes32 job) external {
        if (convictions[job].rest == 0) revert Unknown(job);
        take(job, ESCROW.jobOf(job).worker, false);
    }

    /// @dev Once per job: the job is refused if it is not settled, and its stake slashed wherever it is.
    function convict(bytes32 job, IJobEscrow.Terms calldata terms, uint8 fault, address by) private {
        IJobEscrow.Job memory known = read(job, terms);
        if (convictions[job].by != address(0)) return;
        convictions[job] = Conviction(by, terms.stake);
        emit Convicted(job, known.worker, fault, by);
        bool isLocked = known.state == IJobEscrow.State.Accepted || known.state == IJobEscrow.State.Submitted;
        if (isLocked) ESCROW.refuse(job, terms, address(0), true);
        take(job, known.worker, isLocked);
    }

    function take(bytes32 job, address worker, bool isLocked) private {
        Conviction storage conviction = convictions[job];
        conviction.rest -= uint128(VAULT.slash(worker, conviction.rest, isLocked, conviction.by));
    }

    function includes(
        IJobEscrow.Job memory job,
        IRunLedger.Head calldata head,
        Receipts.Included calldata leaf
    ) private view {
        bytes32 log = Receipts.logId(job.run, job.worker, 0);
        bool isThere = job.challengeEnds != 0 && Receipts.isIncluded(LEDGER, log, job.anchor, head, leaf);
        if (!isThere) revert NotSubmitted(leaf.index);
    }

    function isSigned(IJobEscrow.Job memory job, Receipts.Signed calldata signed)
        private
        pure
        returns (bool)
    {
        return Receipts.signerOf(signed) == job.worker;
    }

    function checkAnswer(
        Place storage place,
        Receipts.Signed calldata receipt,
        IOpenings.Opening calldata opening
    ) private view {
        uint8 field = place.field;
        bool ofStep = field < 16;
        if (receipt.typeHash != (ofStep ? Receipts.STEP : Receipts.CHECKPOINT)) return;
        bytes32 word = stateOf(receipt, field);
        if (word == 0) return;
        if (opening.count == 0) {
            bytes32 empty = States.emptyCommitment(opening.blind);
            if (empty != word) revert IOpenings.WrongCommitment(word, empty);
            return;
        }
        same(place.entry % opening.count, opening.entryIndex);
        checkOpening(word, opening);
        if (Entries.hasNoBytes(opening.entry)) return;
        (bool isDense,,, uint64 size,) = Entries.read(opening.entry);
        if (!isDense) revert IOpenings.NotDense();
        if (size == 0) return;
        same(place.chunk % States.chunksOf(size), opening.chunkIndex);
        States.checkChunk(opening);
    }

    /// @dev A field of a step, or from 16 on of a checkpoint.
    function stateOf(Receipts.Signed calldata receipt, uint8 field) private pure returns (bytes32) {
        if (!Receipts.isState(field)) revert IOpenings.NotState(field);
        bool isWhole = field < 16
            ? receipt.typeHash == Receipts.STEP && Receipts.isStep(receipt.body)
            : receipt.body.length == 32 * Receipts.CHECKPOINT_WORDS;
        if (!isWhole) revert IOpenings.NotStep();
        return bytes32(Receipts.word(receipt.body, Receipts.HEADER + field % 16));
    }

    /// @dev The opened entry stands in the state of this digest.
    function checkOpening(bytes32 expected, IOpenings.Opening calldata opening) private view {
        bytes32 actual = States.commitment(opening);
        if (actual != expected) revert IOpenings.WrongCommitment(expected, actual);
    }

    /// @dev Whether a pin speaks of this step, field and name.
    function isPinned(bytes calldata pin, bytes calldata body, uint8 field, bytes calldata name)
        private
        pure
        returns (bool)
    {
        if (pin.length < 11 + name.length) return false;
        uint64 step = uint64(bytes8(pin[:8]));
        bool isThere = step == 0 || step == Receipts.word(body, 8);
        return isThere && uint8(pin[8]) == field && uint16(bytes2(pin[9:11])) == name.length
            && keccak256(pin[11:11 + name.length]) == keccak256(name);
    }

    function same(uint64 expected, uint64 actual) private pure {
        if (expected != actual) revert WrongPlace(expected, actual);
    }
}
