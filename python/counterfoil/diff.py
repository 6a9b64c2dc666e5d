"""The first difference between two records of what should be the same training."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from counterfoil._native import Entry, Record, first_element
from counterfoil.commit import commit_tensors, describe
from counterfoil.display import AMBER, GREY, badge, card
from counterfoil.errors import CounterfoilError

Pairs = Mapping[str, tuple[str, str]]
"""What differs, by name, on the first side and on the second."""

STATE = ("parameters", "optimizer", "buffers")
_SOURCES = {
    "contribution": {"state", "batch"},
    "gradients": {"state", "batch"},
    "metrics": {"state", "batch"},
    "parameters": {"state", "gradients", "hyperparameters"},
    "optimizer": {"state", "gradients", "hyperparameters"},
    "buffers": {"state", "batch"},
}
_SHOWN, _WIDTH = 3, 60


@dataclass(frozen=True)
class Difference:
    """Where two records first differ.

    Attributes:
        lane: Worker and lane, `0x../0`; those of both records, with a bar between, where they are not equal. Of a
            replay `0x.. lane 0`, empty where there is one lane.
        step: Number of the step or round; 0 before the first.
        kind: Kind of the receipt, or `lane` when only one record has the lane.
        field: The receipt's field; empty when only one record has the receipt.
        tensor: Its name; empty when the difference is none of a tensor.
        chunk: Number of the 1,024 bytes in which the first differing element begins; None when the bytes of
            one side are not stored.
        index: Place of that element in the tensor's shape, outermost dimension first.
        ours: The first record's value: decimal, and of floats the raw bits. Without an element, what the record
            holds there, or that its bytes are not stored.
        theirs: The second record's.
        ours_root: Root of the first record's tensor, `0x` and 64 hexadecimal digits.
        theirs_root: Root of the second record's.
        ulps: Numbers of this dtype from one value to the other, when both are finite and of one sign.
        differing: Elements of the tensor that differ.
        diagnosis: What this may come from, in words.
        notes: What is wrong with the two receipts themselves: openings that are not the signed ones.
    """

    lane: str
    step: int
    kind: str
    field: str
    tensor: str
    chunk: int | None
    index: tuple[int, ...] | None
    ours: str
    theirs: str
    ours_root: str | None
    theirs_root: str | None
    ulps: int | None
    differing: int | None
    diagnosis: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """What a comparison of two records found.

    Attributes:
        first: The first difference; None when all that could be compared is equal.
        steps: Steps that were compared.
        fields: Fields of receipts that were compared.
        gaps: What could not be compared, and why.
    """

    first: Difference | None
    steps: int
    fields: int
    gaps: tuple[str, ...]

    def __str__(self) -> str:
        """The story, in ten lines at most."""
        compared = f"{self.steps} step{'s' * (self.steps != 1)} ({self.fields} fields)"
        gaps = [f"  not compared: {gap}" for gap in self.gaps[:2]]
        gaps += [f"  not compared: {len(self.gaps) - 2} more"] if len(self.gaps) > 2 else []
        if self.first is None:
            return "\n".join([f"nothing differs in {compared}", *gaps])
        found = self.first
        place = f"{found.kind} {found.step}" if found.kind != "lane" else f"lane {found.lane}"
        place += f": {found.field}" if found.field else ""
        place += f" {found.tensor!r}" if found.tensor else ""
        place += f" at {list(found.index)} (chunk {found.chunk})" if found.index else ""
        apart = [] if found.ulps is None else [f"{found.ulps} ulp{'s' * (found.ulps != 1)} apart"]
        apart += [] if found.differing is None else [f"elements that differ: {found.differing}"]
        return "\n".join(
            [
                f"first difference: {place}",
                f"  first   {found.ours}",
                f"  second  {found.theirs}" + (f"  ({'; '.join(apart)})" if apart else ""),
                f"  {found.diagnosis}",
                *([f"  {'; '.join(found.notes)}"] if found.notes else []),
                f"  compared up to there: {compared}; signatures were not checked (counterfoil verify)",
                *gaps,
            ]
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the same story, with a badge that says how it ends."""
        headline, *lines = str(self).splitlines()
        rows = []
        for line in lines:
            name, gap, text = line.strip().partition("  ")
            rows.append((name, text.strip()) if gap else ("", name))
        # Equal is not verified, so that no badge of a comparison is green.
        mark = badge("equal as far as compared", GREY) if self.first is None else badge("differs", AMBER)
        return card(headline, rows, mark=mark)


def diff(a: str | os.PathLike[str] | Record, b: str | os.PathLike[str] | Record) -> Comparison:
    """Finds the first difference between two records of what should be the same training.

    What the receipts open is compared, step by step and in the order in which data flow: hyperparameters,
    batch, samples, randomness; contribution, gradients, metrics; parameters, optimizer, buffers; whether the
    step was skipped. Each receipt is looked at, since a lie need not show in what follows. Signatures are not checked,
    which `verify` does. Tensors are read only where the first difference lies: element and values are told
    when both records store the tensor (`checkpoint_every=1`) or keep it by value.

    Args:
        a: A run folder or a bundle.
        b: Another one.

    Returns:
        The first difference, what was compared, and what could not be.

    Raises:
        NotFound: There is no run.
        CorruptJournal: A receipt cannot be read again.

    Example:
        >>> from counterfoil import Run, commit_tensors
        >>> for name, loss in (("one", 0.5), ("two", 0.25)):
        ...     with Run.create(name) as run:
        ...         _ = run.record_step(1, {"metrics": commit_tensors({"loss": loss}, keep=True)})
        >>> found = diff("one", "two").first
        >>> found.step, found.field, found.tensor, found.ours, found.theirs
        (1, 'metrics', 'loss', '0.5 (0x3fe0000000000000)', '0.25 (0x3fd0000000000000)')

    Source:
        docs/format.md, sections 4 and 7.
    """
    ours, theirs = (each if isinstance(each, Record) else Record(each) for each in (a, b))
    document = json.loads(ours.diff(theirs))
    first = document["first"]
    if first is not None:
        equal, environment = set(first.pop("equal")), first.pop("environment")
        values = None if first["index"] is None else (first["ours"], first["theirs"])
        first["diagnosis"] = diagnose(
            first["field"] or first["kind"],
            first["tensor"],
            environment or {},
            _unequal(_specification(ours), _specification(theirs)),
            equal >= _SOURCES.get(first["field"], {"everything"}),
            begins=first["kind"] == "checkpoint" and first["step"] == 0,
            values=values,
        )
        first["index"] = None if first["index"] is None else tuple(first["index"])
        first = Difference(**{**first, "notes": tuple(first["notes"])})
    return Comparison(first, document["steps"], document["fields"], tuple(document["gaps"]))


def between(tensor: str, ours: tuple[Entry | None, bytes | None], theirs: Any, **place: Any) -> Difference:
    """Where a recorded tensor and one in memory differ.

    Args:
        tensor: Its name.
        ours: The recorded entry and its canonical bytes, as far as they are there.
        theirs: What was computed: a tensor, number or None.
        place: The attributes of the difference that say where it is.
    """
    entry, kept = ours
    description = describe(tensor, theirs)
    other = commit_tensors({tensor: description}).entries[0]
    known: dict[str, Any] | None = None
    content = None if description.data is None else description.data.tobytes()
    alike = entry is not None and (entry.dtype, entry.shape) == (other.dtype, other.shape)
    if alike and kept is not None and content is not None:
        known = first_element(other.dtype, other.shape, kept, content)
    roots = [
        None if each is None or each.kind != "dense" else f"0x{each.root.hex()}" for each in (entry, other)
    ]
    if known is None:
        known = {"chunk": None, "index": None, "ulps": None, "differing": None}
        known |= dict(zip(("ours", "theirs"), (_told(entry), _told(other)), strict=True))
    else:
        known["index"] = tuple(known["index"])
    return Difference(tensor=tensor, ours_root=roots[0], theirs_root=roots[1], **known, **place)


def _told(entry: Entry | None) -> str:
    if entry is None or entry.kind != "dense":
        return "no tensor"
    return f"0x{entry.root.hex()}"


def diagnose(
    field: str,
    tensor: str,
    environment: Pairs,
    spec: Pairs,
    alike: bool,
    *,
    begins: bool = False,
    values: tuple[str, str] | None = None,
) -> str:
    """Says in words what the first difference of two trainings may come from.

    Args:
        field: Field of a step or checkpoint; `lane` or `step` where one side has no such thing at all.
        tensor: The first tensor that differs.
        environment: What differs in the environments.
        spec: What differs in the specifications.
        alike: Whether all that the field is computed from was compared and is equal: the state before the step, and
            the batch; or the gradients and the hyperparameters.
        begins: Whether this is the state with which the trainings began.
        values: The two values, if they are known.
    """
    settings = _listed("environments", environment), _listed("specifications", spec)
    others = " and ".join(filter(None, settings))
    because = f"; {others}" if others else ""
    if field == "lane":
        return f"only one record has this lane: other workers or ranks{because}"
    if begins and field in (*STATE, "randomness"):
        return f"the trainings began from other values: other seed or other initial weights{because}"
    if field in ("hyperparameters", "metrics"):
        told = " | ".join(value.partition(" (")[0] for value in values or ())
        what = f"{field} {tensor} differ" + (f": {told}" if told else "")
    else:
        what = f"{field} {'differs' if field in ('batch', 'randomness') else 'differ'}"
    causes = {
        "step": "one training ended earlier than the other",
        "round": "one training ended earlier than the other",
        "aggregation": "one training ended earlier than the other",
        "hyperparameters": what,
        "batch": f"{what}: other data or order",
        "samples": f"{what}: other data or order",
        "randomness": f"{what}: other seed, or one training drew random numbers that the other did not",
        "flags": "only one training made this step; the other one skipped it",
    }
    if field in causes:
        return causes[field] + because
    if not alike:
        return (
            f"{what}: all that both show before is equal, but not all that this is computed from is shown "
            f"(attach with every=1, draw from run.batches){because}"
        )
    if others:
        return f"{what}: the inputs are equal and {others}: expect other bits"
    if field in STATE and field != "buffers":
        return (
            f"gradients and everything before are equal, {what}: "
            "the update is not the one of the recorded hyperparameters"
        )
    return f"{what}: everything before is equal: forged, other code or precision, or nondeterminism"


def _listed(what: str, pairs: Pairs) -> str:
    if not pairs:
        return ""
    shown = [f"{name} ({ours[:_WIDTH]} | {theirs[:_WIDTH]})" for name, (ours, theirs) in pairs.items()]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return f"the {what} differ in {', '.join(shown[:_SHOWN])}{more}"


def _specification(record: Record) -> dict[str, str]:
    """What the owner pinned, as texts; how often something is recorded has no bearing on it."""
    try:
        pinned: dict[str, Any] = {**record.spec, "recipe": record.recipe_digest}
    except CounterfoilError as refused:
        return {"spec.json": type(refused).__name__}
    return {name: json.dumps(value) for name, value in pinned.items() if name not in ("policy", "public")}


def _unequal(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Pairs:
    names = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    return {name: (ours.get(name, "none"), theirs.get(name, "none")) for name in names}
