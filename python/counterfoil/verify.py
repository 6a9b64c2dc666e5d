"""Verification: from a run folder to a verdict of four independent lines."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, NoReturn

from counterfoil import _native
from counterfoil._native import Record
from counterfoil.display import RED, STATUS, badge, card
from counterfoil.errors import InvalidInput, Refuted

if TYPE_CHECKING:
    from counterfoil.chain import Chain

_EDGES = 8
_NAMED: dict[str, dict[str, Any]] = {
    "integrity": {},
    "stranger": {"signer": True, "recipe": True, "time": True, "replayed": 20},
}


@dataclass(frozen=True)
class Edge:
    """A link of the evidence that does not hold.

    Attributes:
        edge: Between what: `ledger: receipt 17 (step 14): body`.
        expected: What the other end demands.
        actual: What lies there.
    """

    edge: str
    expected: str
    actual: str


@dataclass(frozen=True)
class Mismatch:
    """A replayed step, or a round that was aggregated again, that gave something else than its receipt says.

    Attributes:
        step: Its number.
        field: The receipt's field.
        tensor: Name of the first tensor that differs.
        expected: What the receipt binds.
        actual: What the replay gave.
        of: What the number counts, `step` or `round`.
    """

    step: int
    field: str
    tensor: str
    expected: str
    actual: str
    of: str = "step"


@dataclass(frozen=True)
class ReplayReport:
    """What re-executing steps showed.

    Attributes:
        steps: Steps whose every committed field was reproduced bit for bit, lane after lane; those that
            several ranks made are not among them.
        refuted: Fields that came out otherwise.
        notes: Remarks: steps that could not be replayed and why, how the child was confined.
        undecided: Findings that neither refute the run nor let it count as verified.
        begins: Whether the recipe makes the state from which the run began.
        tolerated: Steps that differ in bits, on another kind of machine, and lie within its tolerance.
        not_seen: What that tolerance hides.
        thresholds: Digest of the calibration; None without one.
    """

    steps: tuple[int, ...]
    refuted: tuple[Mismatch, ...] = ()
    notes: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    begins: bool = False
    tolerated: tuple[int, ...] = ()
    not_seen: tuple[str, ...] = ()
    thresholds: str | None = None


class Verdict:
    """What verification found: four lines, and a status that speaks of one requirement.

    Attributes:
        status: `verified`, `refuted` or `undecided`, always read together with `requirement`.
        requirement: What the status speaks of.
        integrity: The line on whether every link holds.
        signer: The line on who signed.
        time: The line on when the receipts existed.
        transition: The line on whether the training steps were what they claim.
        broken: Edges that do not hold.
        missing: What is required and not shown, with what to do next.
        notes: Remarks, such as openings that are missing.
        not_shown: What no verdict of this package shows.
    """

    def __init__(self, headline: str, document: dict[str, Any]) -> None:
        """Wraps the core's answer."""
        self._headline = headline
        self._document = document
        self.status: str = document["status"]
        self.requirement: str = document["requirement"]
        self.integrity: str = document["integrity"]["line"]
        self.signer: str = document["signer"]["line"]
        self.time: str = document["time"]["line"]
        self.transition: str = document["transition"]["line"]
        edges = document["integrity"]["broken"] + document["transition"]["mismatches"]
        self.broken = [Edge(**edge) for edge in edges]
        self.missing: list[str] = document["missing"]
        self.notes: list[str] = document["notes"]
        self.not_shown: list[str] = document["not_shown"]

    def to_json(self) -> str:
        """The verdict as JSON, stable for machines."""
        return json.dumps(self._document, indent=1)

    def __str__(self) -> str:
        """The headline, the four lines, what is missing, and remarks."""
        lines = [
            self._headline,
            f"  Integrity   {self.integrity}",
            f"  Signer      {self.signer}",
            f"  Time        {self.time}",
            f"  Transition  {self.transition}",
        ]
        lines += [
            f"  broken: {each.edge}: expected {each.expected}, found {each.actual}"
            for each in self.broken[:5]
        ]
        lines += [f"  broken: {len(self.broken) - 5} more edges"] if len(self.broken) > 5 else []
        lines += [f"  missing: {text}" for text in self.missing]
        lines += [f"  note: {text}" for text in self.notes]
        return "\n".join(lines)

    def __repr__(self) -> str:
        """The headline."""
        return f"<Verdict {self._headline}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the headline, the four lines, what is missing, edges that do not hold."""
        rows = [
            ("Integrity", self.integrity),
            ("Signer", self.signer),
            ("Time", self.time),
            ("Transition", self.transition),
            *(("missing", text) for text in self.missing),
            *(("note", text) for text in self.notes),
        ]
        broken = [
            f"{badge('broken', RED)} {escape(edge.edge)}: expected <code>{escape(edge.expected)}</code>, "
            f"actual <code>{escape(edge.actual)}</code>"
            for edge in self.broken[:_EDGES]
        ]
        if len(self.broken) > _EDGES:
            broken.append(f"{len(self.broken) - _EDGES} more broken edges are not listed")
        return card(self._headline, rows, mark=badge(*STATUS[self.status]), footer=broken)

    def __bool__(self) -> NoReturn:
        """A verdict is never just true: read `.status` and the four lines.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a verdict is neither true nor false: read .status and the four lines")


def verify(
    path: str | os.PathLike[str] | Record,
    *,
    signer: str | None = None,
    recipe: str | None = None,
    require: str | Mapping[str, Any] = "integrity",
    chain: Chain | None = None,
    trusted_blocks: Iterable[str] = (),
    replay: ReplayReport | None = None,
) -> Verdict:
    """Checks a run: every signature, link, opening, object and anchor.

    Args:
        path: The run folder, or a bundle of it.
        signer: The address that you expect to own the run, learnt from its owner. Without it the
            evidence is only consistent with itself.
        recipe: The recipe's digest, `0x` and 64 hexadecimal digits, after you read the recipe.
        require: `integrity`, `stranger` (signer and recipe pinned, every receipt anchored on a
            chain that you chose, 20 steps replayed by you,
            bit for bit or within a tolerance that you calibrated), or a mapping with some of `signer`,
            `recipe`, `time` (bool), `parameters_every`, `replayed` (int).
        chain: A chain that you chose, to confirm anchors with.
        trusted_blocks: Hashes of blocks that you know to be of a public chain, `0x` and 64
            hexadecimal digits each. An anchor in one of them is dated without a network, if its
            record holds the proof. What `chain` denies they do not date, and only a chain knows which
            keys are revoked.
        replay: What `counterfoil.torch.replay` found; it passes it itself.

    Returns:
        The verdict, `verified` or `undecided`.

    Raises:
        Refuted: Something claimed is false; `.verdict` says what.
        NotFound: The folder holds no run.
        InvalidInput: An argument is refused.
    """
    record = path if isinstance(path, Record) else Record(path)
    question = judgement(signer=signer, recipe=recipe, require=require, trusted_blocks=trusted_blocks)
    if replay is not None:
        question |= {
            "replayed": len(replay.steps),
            "mismatches": [_as_edge(wrong) for wrong in replay.refuted],
            "notes": list(replay.notes),
            "undecided": list(replay.undecided),
            "begins": replay.begins,
            "tolerated": len(replay.tolerated),
            "not_seen": list(replay.not_seen),
            "thresholds": replay.thresholds,
        }
    confirmed: list[tuple[str, bool, bool, int] | None] = [None for _ in record.anchors]
    if chain is not None and record.run is not None:
        heads = {
            (worker, lane): head
            for worker, lane in record.lanes
            if (head := chain.head(record, worker=worker, lane=lane)) is not None
        }
        question["heads"] = [
            {"worker": worker, "lane": lane, "count": count, "size": size}
            for (worker, lane), (count, size) in heads.items()
        ]
        confirmed = _confirmed(record, chain)
        question["revocations_at"], question["revocations"] = chain.revocations(record)
    headline, document = record.verify(json.dumps(question), confirmed)
    verdict = Verdict(headline, json.loads(document))
    if verdict.status == "refuted":
        raise Refuted(verdict)
    return verdict


def judgement(
    *,
    signer: str | None = None,
    recipe: str | None = None,
    require: str | Mapping[str, Any] = "integrity",
    trusted_blocks: Iterable[str] = (),
) -> dict[str, Any]:
    """What every build of the verifier is asked: the pins, the requirement and this machine's clock.

    Args:
        signer: As of `verify`.
        recipe: As of `verify`.
        require: As of `verify`.
        trusted_blocks: As of `verify`.

    Raises:
        InvalidInput: An argument is refused.
    """
    named = isinstance(require, str)
    if named and require not in _NAMED:
        raise InvalidInput(
            f"there is no requirement {require!r}", expected=" or ".join(_NAMED), where="require"
        )
    requirement = _NAMED[str(require)] if named else dict(require)  # type: ignore[arg-type]
    if recipe is not None and re.fullmatch("0x[0-9a-fA-F]{64}", recipe) is None:
        raise InvalidInput(
            f"{recipe!r} is no digest of a recipe; counterfoil inspect RUN and counterfoil doctor recipe FILE print it",
            expected="0x and 64 hexadecimal digits",
            actual=recipe,
            where="recipe",
        )
    return {
        "name": require
        if named
        else ", ".join(f"{key}={value}" for key, value in requirement.items() if value),
        "require": requirement,
        "signer": None if signer is None else _native.checksum_address(signer),
        "recipe": recipe,
        "trusted_blocks": [_block_hash(text) for text in trusted_blocks],
        "now": int(time.time()),
    }


def _confirmed(record: Record, chain: Chain) -> list[tuple[str, bool, bool, int] | None]:
    """What a chain says about each anchor record. Records are hints, and one anchor is asked for once."""
    known: dict[tuple[str, ...], tuple[str, bool, bool, int] | None] = {}
    answers = []
    for anchor in record.anchors:
        names = ("chainId", "contract", "run", "worker", "lane", "index", "size", "root", "headDigest")
        key = tuple(str(anchor[name]) for name in names)
        if key not in known:
            known[key] = chain.confirm(anchor)
        answers.append(known[key])
    return answers


def _block_hash(text: str) -> str:
    if re.fullmatch("0x[0-9a-fA-F]{64}", text) is None:
        raise InvalidInput(
            f"{text!r} is no hash of a block", expected="0x and 64 hexadecimal digits", where="trusted_blocks"
        )
    return text


def _as_edge(wrong: Mismatch) -> dict[str, str]:
    place = f"{wrong.of} {wrong.step}: {wrong.field} {wrong.tensor!r}"
    return {"edge": place, "expected": wrong.expected, "actual": wrong.actual}
