"""Pairs of answers that raters sign, their collection, and the training run that names it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import chain

from counterfoil import records
from counterfoil._native import Receipt, Record
from counterfoil.alignment.lists import (
    held_records,
    name_of,
    named_list,
    opened_samples,
    opened_values,
    require_owner,
    signed_receipt,
    spoken,
)
from counterfoil.commit import commit_tensors
from counterfoil.errors import InvalidInput, NotFound, ProofError
from counterfoil.records import Salted
from counterfoil.run import Run
from counterfoil.verify import verify


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
        if not all(isinstance(each, str) for each in (self.prompt, self.chosen, self.rejected)):
            raise InvalidInput("prompt, chosen and rejected of a pair are texts", where="pair")
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
        rater: `0x..` in lower case; None when no set that is opened here has it.
        withdrawn: Whether a rater who signed it has a later set without it.
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
    known: set[bytes] = set()
    for number, each in enumerate(encoded):
        if each in known:
            raise InvalidInput(f"pair {number} was given before", where=f"pair {number}")
        known.add(each)
    if not encoded:
        return signed_receipt(run, run.record("preference-set", {}, {}))
    run.flush()
    record = Record(run.path)
    try:
        held = held_records(record, _latest(record, run.worker, run.lane))
    except (NotFound, ProofError):  # erased as a whole, or not what was signed
        held = []
    # A pair that stays keeps its salt, by which a collection knows it.
    salted = {each.content: each for each in held if each is not None}
    kept = records.keep(run.path, [salted.get(each) or Salted.new(each) for each in encoded])
    return signed_receipt(run, run.record("preference-set", {}, {"pairs": kept}))


def collect(run: Run, raters: Iterable[str]) -> Receipt:
    """Signs a collection of the last sets of these raters; of pairs that are alike the first one stays.

    Args:
        run: An open lane of the run's owner. The raters' records must lie in the folder.
        raters: Their addresses: anybody can join a run and sign pairs. Pairs whose records were erased are left out.

    Returns:
        The receipt.

    Raises:
        InvalidInput: The lane is not the owner's.
        NotFound: One of them signed no set, or its records are not here; or no pair is left.
        ProofError: A record is not the one that its rater signed, or no pair; `.where` names it.
    """
    require_owner(run)
    run.flush()
    record = Record(run.path)
    found: dict[bytes, Salted] = {}
    sources: dict[str, bytes] = {}
    for address in raters:
        latest = [
            each
            for worker, lane in record.lanes
            if worker.lower() == address.lower() and (each := _latest(record, worker, lane)) is not None
        ]
        if not latest:
            raise NotFound(f"{address} signed no preferences in {record.path}", where=address)
        for receipt in latest:
            for number, held in enumerate(held_records(record, receipt)):
                if held is None:
                    continue
                if Pair._decode(held.content) is None:
                    where = f"{spoken(receipt)}: pair {number}"
                    raise ProofError(f"{where} is no pair of answers", where=where)
                found.setdefault(held.content, held)
                sources[name_of(receipt)] = receipt.digest
    if not found:
        raise NotFound("no rater signed a pair whose record is here", where=str(record.path))
    fields = {"pairs": records.keep(run.path, list(found.values())), "sources": named_list(sources)}
    return signed_receipt(run, run.record("preference-set", {}, fields))


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
    withdrawn: set[bytes] = set()
    lanes = {f"{worker.lower()}/{lane}": (worker, lane) for worker, lane in record.lanes}
    for name, digest in opened_values(record, receipt, "sources").items():
        worker, lane = lanes.get(name.rpartition("/")[0], ("", 0))
        if not worker:
            continue
        log = record.receipts(worker, lane)
        source = next((each for each in log if each.digest == digest), None)
        own = set(opened_values(record, source, "pairs").values())
        for root in own:
            raters.setdefault(root, worker.lower())
        last = _latest(record, worker, lane)
        if last is not None and _is_opened(record, last):
            withdrawn |= own - set(opened_values(record, last, "pairs").values())
    signed = opened_values(record, receipt, "pairs")
    salted = held_records(record, receipt)
    alike: dict[Pair, int] = {}
    found = []
    for number, each in enumerate(salted):
        where = f"{spoken(receipt)}: pair {number}"
        pair = None if each is None else Pair._decode(each.content)
        if each is not None and pair is None:
            raise ProofError(f"{where} is no pair of answers", where=where)
        if pair is not None and alike.setdefault(pair, number) != number:
            raise ProofError(f"{where} is pair {alike[pair]} again", where=where)
        root = signed[str(number)]
        found.append(Collected(pair, raters.get(root), root in withdrawn))
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
        NotFound: The collection, its list or the opened dataset is not here, or verification leaves one of the two
            runs undecided.
    """
    trained, preferred = Record(training), Record(preferences)
    for record, pin_of in ((trained, signer), (preferred, None)):
        verdict = verify(record, signer=pin_of)
        if verdict.status != "verified":
            where = str(record.path)
            raise NotFound(f"{where} is {verdict.status}: {'; '.join(verdict.missing)}", where=where)
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
    samples = opened_samples(trained, trained.receipts()[0], "dataset")
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


def _collection(record: Record, digest: bytes) -> Receipt:
    owner = record.receipts()[0].fields["owner"]
    own = (record.receipts(worker, lane) for worker, lane in record.lanes if worker == owner)
    for receipt in chain.from_iterable(own):
        if receipt.digest == digest and receipt.kind == "preference-set" and any(receipt.fields["sources"]):
            return receipt
    raise NotFound(
        f"the owner of {record.path} signed no collection 0x{digest.hex()}", where=str(record.path)
    )


def _latest(record: Record, worker: str, lane: int) -> Receipt | None:
    """The last set of a rater's lane."""
    sets = (
        receipt
        for receipt in reversed(record.receipts(worker, lane))
        if receipt.kind == "preference-set" and not any(receipt.fields["sources"])
    )
    return next(sets, None)


def _is_opened(record: Record, receipt: Receipt) -> bool:
    return not any(receipt.fields["pairs"]) or "pairs" in record.opened(receipt)


def _is_digest(text: str) -> bool:
    return len(text) == 66 and text.startswith("0x") and not text[2:].strip("0123456789abcdef")
