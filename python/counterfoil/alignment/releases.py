"""From a checkpoint over its evaluations to a release, and from a release to answers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from weakref import WeakKeyDictionary

from counterfoil._native import Commitment, Receipt, Record
from counterfoil.alignment.lists import (
    held_records,
    name_of,
    named_list,
    opened_samples,
    require_owner,
    signed_receipt,
    spoken,
)
from counterfoil.commit import commit_tensors
from counterfoil.errors import InvalidInput, ProofError
from counterfoil.run import Run, place


def record_evaluation(
    run: Run, checkpoint: Receipt, *, held_out: Commitment, metrics: Mapping[str, float | int | bool]
) -> Receipt:
    """Signs what somebody measured of a checkpoint, in a lane of their own.

    Args:
        run: The evaluator's lane, as of `Run.join(observes=True)`.
        checkpoint: Its receipt.
        held_out: The samples, as of `counterfoil.torch.commit_dataset`.
        metrics: The numbers, by name.

    Returns:
        The receipt.

    Raises:
        InvalidInput: It is no checkpoint with parameters.
    """
    _require_checkpoint(checkpoint)
    fields = {"heldOut": held_out, "metrics": commit_tensors(dict(metrics), keep=True)}
    return signed_receipt(run, run.record("evaluation", place("evaluated", checkpoint), fields))


def overlap(path: str | os.PathLike[str] | Record, evaluation: Receipt) -> int:
    """How many held-out samples of an evaluation are samples of the training run's dataset, to the byte.

    Args:
        path: The training run, a folder or a bundle.
        evaluation: The receipt.

    Raises:
        NotFound: One of the two lists is not opened, or not kept by value.
    """
    record = path if isinstance(path, Record) else Record(path)
    lists = [(record.receipts()[0], "dataset"), (evaluation, "heldOut")]
    trained, held_out = (opened_samples(record, receipt, field) for receipt, field in lists)
    known = set(trained)
    return sum(each in known for each in held_out)


def record_release(run: Run, checkpoint: Receipt, evaluations: Iterable[Receipt]) -> Receipt:
    """Signs that the run's owner gives a checkpoint away, after these evaluations of it.

    Verification refutes a run whose owner names an evaluation of another checkpoint, or one that there is not.

    Args:
        run: A lane of the run's owner; one that observes, if training has ended.
        checkpoint: Its receipt, of one with parameters.
        evaluations: Theirs.

    Returns:
        The receipt.

    Raises:
        InvalidInput: The lane is not the owner's, or what is named is no checkpoint with parameters or no evaluation
            of it; nothing was signed.
    """
    require_owner(run)
    _require_checkpoint(checkpoint)
    evaluations = list(evaluations)
    for each in evaluations:
        if each.kind != "evaluation" or each.fields["receipt"] != checkpoint.digest:
            raise InvalidInput(
                "this is no evaluation of the checkpoint",
                expected="0x" + checkpoint.digest.hex(),
                actual=each.kind,
                where=spoken(each),
            )
    named = {name_of(each): each.digest for each in evaluations}
    fields = {"evaluations": named_list(named)} if named else {}
    return signed_receipt(run, run.record("release", place("released", checkpoint), fields))


def record_output(
    run: Run, release: Receipt, request: str, answer: str, *, parameters: Commitment | None = None
) -> int:
    """Signs an answer of a released model.

    Args:
        run: The lane of whoever answers.
        release: Receipt of the release.
        request: What was asked.
        answer: What was answered. Both are salted, and `counterfoil.erase` forgets them.
        parameters: The weights that were loaded, as of `counterfoil.torch.commit_parameters`; by default those of
            the last output in this lane. Verification compares them with the released ones.

    Returns:
        The receipt's sequence number.

    Raises:
        InvalidInput: It is no release; or the parameters are not the released ones, or none are given and the last
            output in this lane is of another release; nothing was signed.
    """
    _require_loaded(run, release, parameters)
    fields = {"exchange": run.commit_records([request, answer])}
    if parameters is not None:
        fields["parameters"] = parameters
    sequence = run.record("output", place("release", release), fields)
    _answering[run] = release.digest
    return sequence


_answering: WeakKeyDictionary[Run, bytes] = WeakKeyDictionary()
"""Of lanes that are open here, the release of the last output."""


@dataclass(frozen=True)
class Answer:
    """An answer with the receipt that was signed of it.

    Attributes:
        receipt: The output receipt.
        request: What was asked; None when it was erased.
        answer: What was answered; None when it was erased.
    """

    receipt: Receipt
    request: str | None
    answer: str | None


def answers(path: str | os.PathLike[str]) -> Iterator[Answer]:
    """All answers that the run's owner signed, lane after lane, each compared with its receipt.

    Whether they are bound to the released weights is for `counterfoil.verify` to say, and whether those weights
    give them for whoever makes them again.

    Args:
        path: The run's folder.

    Raises:
        NotFound: The list of an answer is not here, or its opening is withheld.
        ProofError: A record is not the one that is signed; `.where` names it.
    """
    record = Record(path)
    owner = record.receipts()[0].fields["owner"]
    own = (record.receipts(worker, lane) for worker, lane in record.lanes if worker == owner)
    for receipt in chain.from_iterable(own):
        if receipt.kind != "output":
            continue
        held = held_records(record, receipt, "exchange")
        if len(held) != 2:
            where = spoken(receipt)
            raise ProofError(f"{where} is not a request and an answer", where=where)
        texts = (None if each is None else each.content.decode(errors="replace") for each in held)
        yield Answer(receipt, *texts)


def _require_checkpoint(receipt: Receipt) -> None:
    if receipt.kind != "checkpoint" or not any(receipt.fields["parameters"]):
        raise InvalidInput(
            "this is no checkpoint with parameters",
            expected="checkpoint",
            actual=receipt.kind,
            where="checkpoint",
        )


def _require_loaded(run: Run, release: Receipt, parameters: Commitment | None) -> None:
    """Refuses what would refute the run once it is signed."""
    if release.kind != "release":
        raise InvalidInput("this is no release", expected="release", actual=release.kind, where="release")
    if parameters is None:
        if run not in _answering:
            outputs = [each for each in run.receipts() if each.kind == "output"]
            _answering[run] = outputs[-1].fields["receipt"] if outputs else b""
        if _answering[run] != release.digest:
            raise InvalidInput(
                "no output of this release stands before: pass the weights that were loaded",
                expected="parameters=",
                where="parameters",
            )
        return
    run.flush()
    record, at = Record(run.path), release.fields
    log = record.receipts(at["releasedWorker"], at["releasedLane"])
    checkpoint = next((each for each in log if each.digest == at["receipt"]), None)
    opened = None if checkpoint is None else record.opened(checkpoint).get("parameters")
    if opened is None:
        return
    ours, theirs = ({each.name: each for each in state.entries} for state in (parameters, opened))
    for name in sorted(ours.keys() | theirs.keys()):
        our, their = ours.get(name), theirs.get(name)
        # Weights may be tied in one of the two and not in the other, which verification follows.
        if our and their and not our.kind == their.kind == "dense":
            continue
        told = [each and (each.dtype, tuple(each.shape), each.root.hex()) for each in (their, our)]
        if told[0] != told[1]:
            expected, actual = map(str, told)
            raise InvalidInput(
                "the loaded weights are not the released ones", expected=expected, actual=actual, where=name
            )
