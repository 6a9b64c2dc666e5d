"""Reads a record once for the page: what can be read of each receipt, and what cannot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
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
    """

    worker: str
    lane: int
    size: int
    seen: list[Seen]
    led: frozenset[int]
    error: str
    named: frozenset[int] = field(default_factory=frozenset)


def walk(record: Record, verdict: Verdict) -> list[Lane]:
    """The record's lanes, the owner's first."""
    named = frozenset(
        int(found) for edge in verdict.broken for found in re.findall(r"receipt (\d+)", edge.edge)[:1]
    )
    return [_lane(record, worker, lane, named) for worker, lane in record.lanes]


def _lane(record: Record, worker: str, lane: int, named: frozenset[int]) -> Lane:
    size = record.size(worker, lane)
    try:
        receipts = record.receipts(worker, lane)
    except CounterfoilError as refused:
        return Lane(worker, lane, size, [], frozenset(), str(refused), named)
    seen = list(_seen(receipts, size))
    try:
        leading = {id(receipt) for receipt in lineage(receipts)}
    except CounterfoilError:
        leading = {id(receipt) for receipt in receipts}
    led = frozenset(each.position for each in seen if id(each.receipt) in leading)
    return Lane(worker, lane, size, seen, led, "", named)


def _seen(receipts: list[Receipt], size: int) -> Iterator[Seen]:
    for place, receipt in enumerate(receipts):
        # Of a whole ledger the place is the position, even where a forger's numbers say otherwise.
        try:
            fields = receipt.fields
            position = place if size == len(receipts) else receipt.sequence
        except CounterfoilError:
            fields, position = {}, place
        yield Seen(position, receipt, fields)
