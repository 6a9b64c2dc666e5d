"""From preferences to answers: what people preferred, what was made of it, and what it says since.

Raters sign pairs of answers; the owner collects them, and a training run names the collection. Evaluations of a
checkpoint go before its release, and answers name the release that gave them. `counterfoil.verify` checks the links
inside one run; `check` those from a training run to the preferences it was made with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np

from counterfoil import records
from counterfoil._native import Commitment, Receipt, Record
from counterfoil.commit import commit_tensors
from counterfoil.errors import InvalidInput, NotFound, ProofError
from counterfoil.records import Salted
from counterfoil.run import Run, place
from counterfoil.verify import verify

__all__ = [
    "Answer",
    "Collected",
    "Pair",
    "answers",
    "check",
    "collect",
    "collected",
    "overlap",
    "pin",
    "record_evaluation",
    "record_output",
    "record_release",
    "sign_preferences",
]


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, of which a rater preferred the first.

    Attributes:
        prompt: What both answer.
        chosen: The preferred answer.
        rejected: The other one.
    """

    prompt: str
    chosen: str
    rejected: str

    @property
    def sample(self) -> bytes:
        """The root by which the dataset of a training run names this pair, 32 bytes.

        Source:
            docs/format.md, section 18.
        """
        return commit_tensors(asdict(self)).root

    def _encode(self) -> bytes:
        # Of strings without lone surrogates this is the canonical form of RFC 8785.
        text = json.dumps(asdict(self), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        try:
            return text.encode()
        except UnicodeEncodeError:
            raise InvalidInput(
                "a pair holds half of a surrogate pair, which is no text", where="pair"
            ) from None

    @classmethod
    def _decode(cls, record: bytes) -> Pair | None:
        try:
            pair = cls(**json.loads(record))
            return pair if pair._encode() == record else None
        except (ValueError, TypeError, RecursionError, InvalidInput):
            return None


@dataclass(frozen=True)
class Collected:
    """A pair of a collection, and who signed it.

    Attributes:
        pair: The pair; None when its record was erased.
        rater: `0x..` in lower case; None when the rater's own set is withheld.
        withdrawn: Whether the rater's last set has it no longer.
    """

    pair: Pair | None
    rater: str | None
    withdrawn: bool


def sign_preferences(run: Run, pairs: Iterable[Pair]) -> Receipt:
    """Signs all pairs that a rater holds to. The last such receipt of a lane counts: leave one out to withdraw it.

    Args:
        run: The rater's lane, as of `Run.join(observes=True)`.
        pairs: Each once; none withdraws all. The records lie in the run's folder, where `counterfoil.erase`
            forgets single ones.

    Returns:
        The receipt.

    Raises:
        InvalidInput: A pair is given twice, or holds what is no text.

    Source:
        docs/format.md, section 18.
    """
    encoded = [pair._encode() for pair in pairs]
    if len(set(encoded)) < len(encoded):
        twice = next(number for number, each in enumerate(encoded) if each in encoded[:number])
        raise InvalidInput(f"pair {twice} was given before", where=f"pair {twice}")
    if not encoded:
        return _signed(run, run.record("preference-set", {}, {}))
    run.flush()
    before = _latest(Record(run.path), run.worker, run.lane)
    # A pair that stays keeps its salt, by which a collection knows it.
    known = {each.content: each for each in _held(run.path, before) if each is not None}
    kept = records.keep(run.path, [known.get(each) or Salted.new(each) for each in encoded])
    return _signed(run, run.record("preference-set", {}, {"pairs": kept}))


def collect(run: Run) -> Receipt:
    """Signs a collection of the last sets of all raters of this run; of pairs that are alike the first one stays.

    Args:
        run: An open lane of the run's owner. The raters' records must lie in the folder.

    Returns:
        The receipt.

    Raises:
        NotFound: No rater signed a pair whose record is there.
        ProofError: A record is not the one that its rater signed; `.where` names it.
    """
    run.flush()
    record = Record(run.path)
    found: dict[bytes, Salted] = {}
    sources: dict[str, bytes] = {}
    for worker, lane in record.lanes:
        latest = _latest(record, worker, lane)
        for each in _held(record.path, latest):
            if each is not None and latest is not None:
                found.setdefault(each.content, each)
                sources[_name(latest)] = latest.digest
    if not found:
        raise NotFound(
            f"no rater of {record.path} signed a pair whose record is here", where=str(record.path)
        )
    pairs = records.keep(run.path, list(found.values()))
    fields = {"pairs": pairs, "sources": _named(sources)}
    return _signed(run, run.record("preference-set", {}, fields))


def collected(path: str | os.PathLike[str], collection: bytes) -> list[Collected]:
    """The pairs of a collection, in its order. Whether its receipts hold is for `counterfoil.verify` to say.

    Args:
        path: The folder of the run in which it was signed.
        collection: Digest of its receipt, 32 bytes.

    Raises:
        NotFound: There is no such collection, or its list is not here.
        ProofError: A record is not the one that is signed, or two are alike; `.where` names it.
    """
    record = Record(path)
    receipt = _collection(record, collection)
    raters: dict[bytes, str] = {}
    kept: set[bytes] = set()
    for name, digest in _entries(record, receipt, "sources").items():
        worker, lane, _ = name.split("/")
        source = next((each for each in record.receipts(worker, int(lane)) if each.digest == digest), None)
        raters |= dict.fromkeys(_entries(record, source, "pairs").values(), worker)
        kept |= set(_entries(record, _latest(record, worker, int(lane)), "pairs").values())
    signed = _entries(record, receipt, "pairs")
    salted = _held(record.path, receipt)
    alike: dict[Pair, int] = {}
    found = []
    for number, each in enumerate(salted):
        where = f"{_spoken(receipt)}: pair {number}"
        pair = None if each is None else Pair._decode(each.content)
        if each is not None and pair is None:
            raise ProofError(f"{where} is no pair of answers", where=where)
        if pair is not None and alike.setdefault(pair, number) != number:
            raise ProofError(f"{where} is pair {alike[pair]} again", where=where)
        root = signed[str(number)]
        found.append(Collected(pair, raters.get(root), root in raters and root not in kept))
    return found


def pin(path: str | os.PathLike[str], collection: bytes) -> dict[str, str]:
    """What a training run's `spec` holds as `preferences`, so that its id depends on the collection.

    Args:
        path: The run in which it was signed.
        collection: Digest of its receipt, 32 bytes.

    Raises:
        NotFound: There is no such collection.
    """
    record = Record(path)
    _collection(record, collection)
    return {"run": str(record.run), "receipt": "0x" + collection.hex()}


def check(
    training: str | os.PathLike[str],
    preferences: str | os.PathLike[str],
    *,
    signer: str | None = None,
) -> list[Collected]:
    """Checks that a training run names a collection, and that its dataset is those pairs, in that order.

    Both runs are verified first. What this does not show: that the batches that were fed are made of this
    dataset. They are signed, too: examples/preferences compares them with the pairs.

    Args:
        training: The training run, a folder or a bundle that opens `dataset`.
        preferences: The folder of the run with the preferences.
        signer: The address that you expect to own the training run.

    Returns:
        The pairs. Of one that was erased nothing is compared.

    Raises:
        Refuted: One of the two runs does not hold.
        ProofError: A link between them does not; `.where` names it.
        InvalidInput: The training run names no collection.
        NotFound: The collection, its list or the opened dataset is not here.
    """
    verify(training, signer=signer)
    verify(preferences)
    trained, preferred = Record(training), Record(preferences)
    pinned = trained.spec.get("preferences")
    is_pin = isinstance(pinned, dict) and set(pinned) == {"run", "receipt"}
    if not is_pin or not all(isinstance(each, str) and _is_digest(each) for each in pinned.values()):
        raise InvalidInput(
            "the training run names no collection of preferences",
            expected='spec={"preferences": alignment.pin(..)} when it was created',
            actual=json.dumps(pinned)[:200],
            where="spec.json: preferences",
        )
    if pinned["run"] != preferred.run:
        raise ProofError(
            "the training run names the preferences of another run",
            expected=pinned["run"],
            actual=str(preferred.run),
            where="spec.json: preferences <- run",
        )
    pairs = collected(preferences, bytes.fromhex(pinned["receipt"][2:]))
    samples = _samples(trained, trained.receipts()[0], "dataset")
    if len(samples) != len(pairs):
        raise ProofError(
            "the dataset has another number of samples than the collection has pairs",
            expected=str(len(pairs)),
            actual=str(len(samples)),
            where="genesis: dataset <- pairs",
        )
    for number, (each, actual) in enumerate(zip(pairs, samples, strict=True)):
        if each.pair is not None and each.pair.sample != actual:
            where = f"genesis: dataset: sample {number} <- pair {number}"
            raise ProofError(
                f"{where}: what was trained on is not what {each.rater or 'a rater'} signed",
                expected="0x" + each.pair.sample.hex(),
                actual="0x" + actual.hex(),
                where=where,
            )
    return pairs


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
    """
    fields = {"heldOut": held_out, "metrics": commit_tensors(dict(metrics), keep=True)}
    return _signed(run, run.record("evaluation", place("evaluated", checkpoint), fields))


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
    trained, held_out = (_samples(record, receipt, field) for receipt, field in lists)
    known = set(trained)
    return sum(each in known for each in held_out)


def _samples(record: Record, receipt: Receipt, field: str) -> list[bytes]:
    opened = record.opened(receipt).get(field)
    content = None if opened is None else (opened.values or {}).get("content")
    if content is None:
        raise NotFound(f"{_spoken(receipt)}: {field} is not opened", where=_spoken(receipt))
    return [content[at : at + 32] for at in range(0, len(content), 32)]


def record_release(run: Run, checkpoint: Receipt, evaluations: Iterable[Receipt]) -> Receipt:
    """Signs that the run's owner gives a checkpoint away, after these evaluations of it.

    Verification refutes a run whose owner names an evaluation of another checkpoint, or one that there is not.

    Args:
        run: A lane of the run's owner; one that observes, if training has ended.
        checkpoint: Its receipt, of one with parameters.
        evaluations: Theirs.

    Returns:
        The receipt.
    """
    named = {_name(each): each.digest for each in evaluations}
    fields = {"evaluations": _named(named)} if named else {}
    return _signed(run, run.record("release", place("released", checkpoint), fields))


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
            the output directly before in this lane. Verification compares them with the released ones.

    Returns:
        The receipt's sequence number.
    """
    fields = {"exchange": run.commit_records([request, answer])}
    if parameters is not None:
        fields["parameters"] = parameters
    return run.record("output", place("release", release), fields)


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
    """All answers of a run, lane after lane, each compared with its receipt.

    Whether they are bound to the released weights is for `counterfoil.verify` to say, and whether those weights
    give them for whoever makes them again.

    Args:
        path: The run's folder.

    Raises:
        NotFound: The list of an answer is not here, or its opening is withheld.
        ProofError: A record is not the one that is signed; `.where` names it.
    """
    record = Record(path)
    for worker, lane in record.lanes:
        for receipt in record.receipts(worker, lane):
            if receipt.kind == "output":
                texts = [
                    None if each is None else each.content for each in _held(record.path, receipt, "exchange")
                ]
                if len(texts) != 2:
                    raise ProofError(
                        f"{_spoken(receipt)} is not a request and an answer", where=_spoken(receipt)
                    )
                request, answer = (None if text is None else text.decode(errors="replace") for text in texts)
                yield Answer(receipt, request, answer)


def _signed(run: Run, sequence: int) -> Receipt:
    return run.receipts()[sequence]


def _latest(record: Record, worker: str, lane: int) -> Receipt | None:
    """The last set of a rater's lane."""
    sets = (
        receipt
        for receipt in reversed(record.receipts(worker, lane))
        if receipt.kind == "preference-set" and not any(receipt.fields["sources"])
    )
    return next(sets, None)


def _collection(record: Record, digest: bytes) -> Receipt:
    owner = record.receipts()[0].fields["owner"]
    own = (record.receipts(worker, lane) for worker, lane in record.lanes if worker == owner)
    for receipt in chain.from_iterable(own):
        if receipt.digest == digest and receipt.kind == "preference-set" and any(receipt.fields["sources"]):
            return receipt
    raise NotFound(
        f"the owner of {record.path} signed no collection 0x{digest.hex()}", where=str(record.path)
    )


def _entries(record: Record, receipt: Receipt | None, field: str) -> dict[str, bytes]:
    """The values of a list that a receipt opens; none when it is withheld."""
    opened = None if receipt is None else record.opened(receipt).get(field)
    return dict(opened.values or {}) if opened is not None else {}


def _held(path: Any, receipt: Receipt | None, field: str = "pairs") -> Sequence[Salted | None]:
    """The records of the list that a receipt signs, each compared with what is signed; None for an erased one."""
    if receipt is None or not any(receipt.fields[field]):
        return []
    opened = Record(path).opened(receipt).get(field)
    if opened is None or opened.values is None:
        raise NotFound(f"{_spoken(receipt)}: {field} is withheld", where=_spoken(receipt))
    held = records.read_records(path, opened.commitment.root)
    signed = opened.values
    if len(held) != len(signed):
        raise ProofError(
            f"{_spoken(receipt)}: another number of records than was signed",
            expected=str(len(signed)),
            actual=str(len(held)),
            where=_spoken(receipt),
        )
    for number, each in enumerate(held):
        if each is not None and each.digest != signed.get(str(number)):
            where = f"{_spoken(receipt)}: {field} <- record {number}"
            raise ProofError(
                f"{where}: this is not the record that was signed",
                expected="0x" + signed.get(str(number), b"").hex(),
                actual="0x" + each.digest.hex(),
                where=where,
            )
    return held


def _named(digests: Mapping[str, bytes]) -> Commitment:
    named = {name: np.frombuffer(digest, np.uint8) for name, digest in digests.items()}
    return commit_tensors(named, keep=True)


def _name(receipt: Receipt) -> str:
    fields = receipt.fields
    return f"{fields['worker'].lower()}/{fields['lane']}/{receipt.sequence}"


def _spoken(receipt: Receipt) -> str:
    return f"ledger of {receipt.fields['worker']} lane {receipt.fields['lane']}: receipt {receipt.sequence} ({receipt.kind})"


def _is_digest(text: str) -> bool:
    return len(text) == 66 and text.startswith("0x") and not text[2:].strip("0123456789abcdef")
