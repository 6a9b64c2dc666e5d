"""What a reviewer asks of a training, each answer with the receipt that evidences it.

A receipt evidences that its signer said so, at its place in the run. Whether that is true is the verdict's matter,
which says what was executed again and what nobody showed.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from counterfoil._native import Opened, Receipt, Record
from counterfoil.alignment import overlap
from counterfoil.errors import InvalidInput, NotFound
from counterfoil.files import PREFIX
from counterfoil.lookup import lineage, uses
from counterfoil.verify import Verdict

NOT_EVIDENCED = "not evidenced"
_MACHINE = ("platform", "processor", "threads", "python", "torch")
_WIDTH = 64
_STEP, _CHECKPOINT = frozenset({"step"}), frozenset({"checkpoint"})


@dataclass(frozen=True)
class Fact:
    """One answer.

    Attributes:
        name: What is asked.
        value: The answer, in words; empty when there is none.
        receipt: The receipt that evidences it; None when nothing does.
    """

    name: str
    value: str
    receipt: Receipt | None

    @property
    def evidence(self) -> str:
        """Kind, step and first digits of the receipt, or `not evidenced`."""
        if self.receipt is None:
            return NOT_EVIDENCED
        step = self.receipt.fields.get("step")
        place = self.receipt.kind if step is None else f"{self.receipt.kind} {step}"
        return f"{place}, 0x{self.receipt.digest.hex()[:8]}"


@dataclass(frozen=True)
class _Evidence:
    """A run as far as it leads to where it stands, and what verification found.

    Attributes:
        lane: Receipts of the lane that is looked at closely: the owner's, or the first one that trained.
        lanes: Those of each lane, by worker and number.
        found: The verdict's document.
    """

    record: Record
    lane: list[Receipt]
    lanes: Mapping[tuple[str, int], list[Receipt]]
    found: dict[str, Any]

    @property
    def genesis(self) -> Receipt:
        return self.record.receipts()[0]

    def opening(self, kinds: Collection[str], field: str) -> list[tuple[Receipt, Opened]]:
        """The receipts of these kinds, in order, that open a field, with what they open."""
        chosen = [receipt for receipt in self.lane if receipt.kind in kinds]
        opened = [(receipt, self.record.opened(receipt).get(field)) for receipt in chosen]
        return [(receipt, each) for receipt, each in opened if each is not None and each.entries]

    def scalars(self, kinds: Collection[str], field: str) -> list[tuple[Receipt, dict[str, Any]]]:
        """As `opening`, of fields that are kept by value."""
        kept = self.opening(kinds, field)
        return [(receipt, each.scalars()) for receipt, each in kept if each.values is not None]


Answers = Iterable[tuple[str, Receipt]]


def _origin(evidence: _Evidence) -> Answers:
    told = evidence.record.spec.get("data")
    return [] if told is None else [(f"by its owner's word: {_words(told)}", evidence.genesis)]


def _size(evidence: _Evidence) -> Answers:
    return [(_count(opened), receipt) for receipt, opened in _datasets(evidence)]


def _commitment(evidence: _Evidence) -> Answers:
    return [(f"root 0x{opened.commitment.root.hex()}", receipt) for receipt, opened in _datasets(evidence)]


def _one_record(evidence: _Evidence) -> Answers:
    for receipt, opened in _datasets(evidence):
        if _is_salted(opened):
            yield "each can be shown by whoever holds it, with its random bytes, and no other", receipt
            continue
        found = uses(evidence.record, 0)
        if found.steps:
            worker, lane, step = found.steps[0]
            shown = evidence.record.receipts(worker, lane)
            fed = [each for each in shown if each.kind == "step" and each.fields["step"] == step]
            yield f"sample 0: {found}", fed[-1]
        elif not found.gaps:
            yield f"sample 0: {found}", receipt


def _datasets(evidence: _Evidence) -> Iterator[tuple[Receipt, Opened]]:
    """What the run commits to as its data: a dataset, or a list of salted records in a checkpoint."""
    dataset = evidence.record.opened(evidence.genesis).get("dataset")
    if dataset is not None:
        yield evidence.genesis, dataset
    lists = [each for each in evidence.opening(_CHECKPOINT, "extensions") if _is_salted(each[1])]
    yield from lists[:1]


def _is_salted(opened: Opened) -> bool:
    return all(each.name.isdecimal() and (each.dtype, each.shape) == ("U8", [32]) for each in opened.entries)


def _count(opened: Opened) -> str:
    if _is_salted(opened):
        return f"{len(opened.entries)} records, each salted"
    return f"{opened.entries[0].shape[0]} samples"


def _batches(evidence: _Evidence) -> Answers:
    steps = [receipt for receipt in evidence.lane if receipt.kind == "step"]
    fed = [receipt for receipt in steps if any(receipt.fields["batch"])]
    return [(f"the receipts of {len(fed)} of {len(steps)} steps bind a batch", fed[-1])] if fed else []


def _workers(evidence: _Evidence) -> Answers:
    owner = evidence.genesis.fields["owner"]
    pinned = "as expected" if evidence.found["signer"]["pinned"] else "not pinned: anybody can make a key"
    yield f"{owner}, the owner; {pinned}", evidence.genesis
    for (worker, lane), receipts in evidence.lanes.items():
        has_trained = any(each.kind == "step" for each in receipts)
        joins = [each for each in receipts if each.kind == "join"]
        if has_trained and worker != owner:
            yield f"{worker}, lane {lane}; not pinned", joins[0]


def _own_clock(evidence: _Evidence) -> Answers:
    for word, receipt in (("from", evidence.lane[0]), ("to", evidence.lane[-1])):
        yield f"{word} {_date(receipt)} UTC, by the trainer's own clock", receipt


def _chain_clock(evidence: _Evidence) -> Answers:
    time, first = evidence.found["time"], evidence.lane[0].fields
    lane = evidence.record.receipts(first["worker"], first["lane"])
    # Of several lanes, the count does not say which of their receipts are dated.
    if len(evidence.lanes) == 1 and 0 < time["covered"] <= len(lane):
        yield time["line"], lane[time["covered"] - 1]
    elif 0 < time["covered"] == time["receipts"]:
        yield time["line"], lane[-1]


def _machine(evidence: _Evidence) -> Answers:
    for receipt, told in evidence.scalars(_STEP | _CHECKPOINT, "environment")[-1:]:
        yield _words({name: told[name] for name in _MACHINE if name in told}), receipt


def _hyperparameters(evidence: _Evidence) -> Answers:
    told = evidence.scalars(_STEP, "hyperparameters")
    for receipt, values in told[:1]:
        yield _words({name: value for name, value in values.items() if value is not None}), receipt
        last, later = told[-1]
        changed = {name: value for name, value in later.items() if value != values.get(name)}
        if changed:
            yield f"in the end {_words(changed)}", last


def _specification(evidence: _Evidence) -> Answers:
    told = {
        name: value
        for name, value in evidence.record.spec.items()
        if name not in ("data", "policy", "public")
    }
    return [(_words(told), evidence.genesis)] if told else []


def _seed(evidence: _Evidence) -> Answers:
    if "seed" in evidence.record.spec:
        yield f"seed {evidence.record.spec['seed']}", evidence.genesis
    for receipt, opened in evidence.opening(_STEP, "randomness")[:1]:
        names = sorted({entry.name.partition("/")[0] for entry in opened.entries})
        yield f"states of the generators of {', '.join(names)} with each step that opens them", receipt
    for receipt, told in evidence.scalars(_STEP | _CHECKPOINT, "environment")[-1:]:
        if "deterministic" in told:
            yield f"torch's deterministic algorithms: {'on' if told['deterministic'] else 'off'}", receipt


def _recipe(evidence: _Evidence) -> Answers:
    digest = evidence.record.recipe_digest
    pinned = "pinned by you" if evidence.found["transition"]["recipe_pinned"] else "not pinned"
    return [] if digest is None else [(f"{digest}; {pinned}", evidence.genesis)]


def _steps(evidence: _Evidence) -> Answers:
    steps = [receipt for receipt in evidence.lane if receipt.kind == "step"]
    return [(f"{len(steps)} step{'s' * (len(steps) != 1)}", receipt) for receipt in steps[-1:]]


def _executed(evidence: _Evidence) -> Answers:
    transition = evidence.found["transition"]
    # The genesis receipt binds the recipe with which they were.
    return [(transition["line"], evidence.genesis)] if transition["replayed"] else []


def _loss(evidence: _Evidence) -> Answers:
    told = evidence.scalars(_STEP, "metrics")
    first_and_last = told if len(told) < 3 else [told[0], told[-1]]
    return [
        (f"{_words(values)} at step {receipt.fields['step']}", receipt) for receipt, values in first_and_last
    ]


def _evaluation(evidence: _Evidence) -> Answers:
    for receipt, checkpoint in _naming(evidence, "evaluation", "evaluated"):
        opened = evidence.record.opened(receipt)
        metrics, held_out = opened.get("metrics"), opened.get("heldOut")
        if metrics is not None and metrics.values is not None:
            by = "the owner" if receipt.fields["worker"] == evidence.genesis.fields["owner"] else "not pinned"
            place = f"of checkpoint {checkpoint.fields['step']}, by {receipt.fields['worker']}, {by}"
            yield f"{_words(metrics.scalars())}; {place}", receipt
        if held_out is not None:
            root = held_out.commitment.root.hex()
            yield f"on {_count(held_out)}{_overlap(evidence, receipt)}; root 0x{root}", receipt


def _overlap(evidence: _Evidence, evaluation: Receipt) -> str:
    try:
        return f", {overlap(evidence.record, evaluation)} of them in the dataset to the byte"
    except NotFound:
        return ""


def _weights(evidence: _Evidence) -> Answers:
    for receipt, opened in evidence.opening(_STEP | _CHECKPOINT, "parameters")[-1:]:
        after, root = receipt.fields["step"], opened.commitment.root.hex()
        yield f"{len(opened.entries)} tensors after step {after}, root 0x{root}", receipt


def _files(evidence: _Evidence) -> Answers:
    for receipt, opened in evidence.opening(_CHECKPOINT, "extensions"):
        if all(entry.name.startswith(PREFIX) for entry in opened.entries):
            yield f"{len(opened.entries)} files, root 0x{opened.commitment.root.hex()}", receipt


def _release(evidence: _Evidence) -> Answers:
    for receipt, checkpoint in _naming(evidence, "release", "released"):
        # A release by others than the owner counts for nobody, and refutes nothing.
        if receipt.fields["worker"] == evidence.genesis.fields["owner"]:
            named = evidence.record.opened(receipt).get("evaluations")
            count = "no" if named is None else str(len(named.entries))
            if named is None and any(receipt.fields["evaluations"]):
                count = "withheld"
            what = f"checkpoint {checkpoint.fields['step']}; evaluations that it names: {count}"
            yield f"{receipt.fields['worker']}, the owner: {what}", receipt


QUESTIONS: dict[str, Callable[[_Evidence], Answers]] = {
    "data origin": _origin,
    "data size": _size,
    "data commitment": _commitment,
    "batches": _batches,
    "use of one record": _one_record,
    "trained by": _workers,
    "trained when": _own_clock,
    "dated by a chain": _chain_clock,
    "machine": _machine,
    "specification": _specification,
    "hyperparameters": _hyperparameters,
    "seed, determinism": _seed,
    "code": _recipe,
    "steps": _steps,
    "executed again": _executed,
    "metrics in training": _loss,
    "evaluation": _evaluation,
    "model weights": _weights,
    "model files": _files,
    "released by": _release,
}
"""What is asked, in this order, and where the answers come from."""


def review(run: str | os.PathLike[str] | Record, verdict: Verdict) -> list[Fact]:
    """Answers what a reviewer asks of a training; what nothing evidences is in the list and says so.

    Only a run that is `verified` evidences anything: under another verdict every answer is `not evidenced`. Hand in
    the `Record` that was verified, so that nothing can change in between.

    Args:
        run: A run folder, a bundle, or a record of one.
        verdict: What `counterfoil.verify` or `counterfoil.torch.replay` said of it, with your pins.

    Returns:
        The answers in a fixed order, of each question at least one; then what the verdict does not show.

    Raises:
        NotFound: There is no run.
        InvalidInput: The verdict is another run's.

    Example:
        >>> from counterfoil import Run, commit_tensors, verify
        >>> with Run.create("reviewed", spec={"seed": 7}) as run:
        ...     _ = run.record_step(1, {"metrics": commit_tensors({"loss": 0.5}, keep=True)})
        >>> facts = review("reviewed", verify("reviewed"))
        >>> [fact.value for fact in facts if fact.name == "seed, determinism"]
        ['seed 7']
        >>> [fact.evidence for fact in facts if fact.name == "evaluation"]
        ['not evidenced']
    """
    record = run if isinstance(run, Record) else Record(run)
    found = json.loads(verdict.to_json())
    if record.run is None:
        raise NotFound(f"{record.path} shows no beginning of a run", where=str(record.path))
    if found["run"] != record.run:
        raise InvalidInput(
            "the verdict is another run's", expected=record.run, actual=str(found["run"]), where="verdict"
        )
    not_shown = [Fact("not shown", text, None) for text in verdict.not_shown]
    if verdict.status != "verified":
        return [Fact(name, "", None) for name in QUESTIONS] + not_shown
    owner = record.receipts()[0].fields["owner"]
    places = sorted(record.lanes, key=lambda place: (place[0] != owner, place))
    lanes = {place: lineage(record.receipts(*place)) for place in places}
    trained = [lanes[place] for place in lanes if any(each.kind == "step" for each in lanes[place])]
    evidence = _Evidence(record, trained[0] if trained else lineage(record.receipts()), lanes, found)
    facts = []
    for name, ask in QUESTIONS.items():
        answers = [Fact(name, _printable(value), receipt) for value, receipt in ask(evidence)]
        facts += answers or [Fact(name, "", None)]
    return facts + not_shown


def table(facts: Iterable[Fact]) -> str:
    """The facts in three columns, for a terminal: what is asked, the answer, and its evidence."""
    lines, before = [], ""
    for fact in facts:
        wrapped = textwrap.wrap(fact.value, _WIDTH) or [""]
        name = fact.name if fact.name != before else ""
        lines.append(f"{name:<20} {wrapped[0]:<{_WIDTH}} {fact.evidence}")
        lines += [f"{'':<20} {rest}" for rest in wrapped[1:]]
        before = fact.name
    return "\n".join(lines)


def _naming(evidence: _Evidence, kind: str, of: str) -> Iterator[tuple[Receipt, Receipt]]:
    """Receipts of a kind, each with the owner's checkpoint that it names; those that name none do not count."""
    owner = evidence.genesis.fields["owner"]
    checkpoints = {
        (worker, lane, receipt.sequence, receipt.digest): receipt
        for (worker, lane), receipts in evidence.lanes.items()
        for receipt in receipts
        if receipt.kind == "checkpoint" and worker == owner
    }
    for receipt in (each for receipts in evidence.lanes.values() for each in receipts if each.kind == kind):
        told = receipt.fields
        place = (told[f"{of}Worker"], told[f"{of}Lane"], told[f"{of}Sequence"], told["receipt"])
        if place in checkpoints:
            yield receipt, checkpoints[place]


def _printable(text: str) -> str:
    """Without what would move a terminal's cursor: names and specifications are strangers' words."""
    return "".join(each if each.isprintable() else " " for each in text)


def _date(receipt: Receipt) -> str:
    time = receipt.fields["time"]
    try:
        return datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError):  # the signer's clock says what it likes
        return f"{time} milliseconds after 1970"


def _words(value: Any) -> str:
    """A value for people: names and values, rounded to what is read."""
    if isinstance(value, Mapping):
        nested = {
            name: f"({_words(each)})" if isinstance(each, Mapping) else _words(each)
            for name, each in value.items()
        }
        return ", ".join(f"{name} {each}" for name, each in nested.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)
