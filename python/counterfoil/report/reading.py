"""Reads a record once for the page: what can be read of each receipt, and what cannot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from counterfoil._native import Opened, Receipt, Record
from counterfoil.errors import CounterfoilError
from counterfoil.lookup import lineage
from counterfoil.verify import Verdict

NUMBERS = {"step": "step", "checkpoint": "step", "round": "round", "aggregation": "round", "close": "step"}
"""Which field of a receipt counts, by kind."""


@dataclass(frozen=True)
class Seen:
    """One receipt of a lane.

    Attributes:
        position: Its place in the ledger, as the verdict's edges count.
        receipt: The receipt.
        fields: Its signed fields; empty when they cannot be read.
    """

    position: int
    receipt: Receipt
    fields: dict[str, Any]

    @property
    def number(self) -> int | None:
        """The step or round that it is of."""
        return self.fields.get(NUMBERS.get(self.receipt.kind, ""))

    def opened(self, record: Record) -> dict[str, Opened]:
        """What is opened of it; nothing where an opening is broken, as an edge of the verdict says."""
        try:
            return record.opened(self.receipt)
        except CounterfoilError:
            return {}


@dataclass(frozen=True)
class Lane:
    """One ledger.

    Attributes:
        worker: Its worker's address.
        lane: Its number.
        size: Receipts, with those that are withheld.
        seen: The receipts that are shown.
        led: Positions of those that lead to where the lane stands, without steps that a resume abandoned.
        error: Why the ledger cannot be read; empty when it can.
        named: Positions that the verdict's edges name, in whichever lane.
        accused: Whether an edge names this lane.
    """

    worker: str
    lane: int
    size: int
    seen: list[Seen]
    led: frozenset[int]
    error: str
    named: frozenset[int]
    accused: bool


def walk(record: Record, verdict: Verdict) -> list[Lane]:
    """The record's lanes, and what the verdict's edges name in them."""
    edges = [edge.edge for edge in verdict.broken]
    return [_lane(record, worker, lane, edges) for worker, lane in record.lanes]


def _lane(record: Record, worker: str, lane: int, edges: list[str]) -> Lane:
    size, error = record.size(worker, lane), ""
    try:
        receipts = record.receipts(worker, lane)
    except CounterfoilError as refused:
        receipts, error = [], str(refused)
    seen = list(_seen(receipts, size))
    try:
        leading = {id(receipt) for receipt in lineage(receipts)}
    except CounterfoilError:
        leading = {id(receipt) for receipt in receipts}
    led = frozenset(each.position for each in seen if id(each.receipt) in leading)
    positions, steps = _numbers(edges, "receipt"), _numbers(edges, "step")
    positions |= {each.position for each in seen if each.receipt.kind == "step" and each.number in steps}
    accused = any(edge.startswith(f"ledger of {worker} lane {lane}:") for edge in edges)
    return Lane(worker, lane, size, seen, led, error, frozenset(positions), accused)


def _numbers(edges: list[str], of: str) -> set[int]:
    """What edges count first; names of tensors, which may say anything, come behind it."""
    return {int(found) for edge in edges for found in re.findall(rf"\b{of} (\d+)", edge)[:1]}


def _seen(receipts: list[Receipt], size: int) -> Iterator[Seen]:
    for place, receipt in enumerate(receipts):
        # Of a whole ledger the place is the position, even where a forger's numbers say otherwise.
        try:
            fields = receipt.fields
            position = place if size == len(receipts) else receipt.sequence
        except CounterfoilError:
            fields, position = {}, place
        yield Seen(position, receipt, fields)
