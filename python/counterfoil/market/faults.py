"""Faults of a submitted run that the chain decides, found in what was delivered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from counterfoil import merkle
from counterfoil._native import Receipt, Record
from counterfoil.errors import NotFound
from counterfoil.market import proofs
from counterfoil.market.client import Job
from counterfoil.market.terms import pins

Fault = tuple[str, tuple[Any, ...]]
"""A function of `IChallenge`, and its arguments behind the job and its terms."""


def find(job: Job, record: Record, other: Record | None = None) -> Fault | None:
    """The first fault that the contract `Challenge` would convict the run's worker of.

    Args:
        job: The job that the run was submitted for.
        record: The delivered run.
        other: The same run from elsewhere, to be searched for another history.

    Returns:
        What `Market.prove` takes; None where there is no such fault. A run without one can still be wrong:
        `counterfoil.verify` and a replay see more, and the chain decides only what receipts show.
    """
    return next(_faults(job, record, other), None)


def _faults(job: Job, record: Record, other: Record | None) -> Iterator[Fault]:
    head = record.tree_head()
    if head is None or record.run is None:
        return
    receipts = record.receipts()[: head.size]
    if len(receipts) < head.size:
        # Of a part nothing can be shown: the proofs need all leaves.
        return
    worker, shown = receipts[0].fields["owner"], proofs.head(head)
    for place, receipt in enumerate(receipts):
        fields = receipt.fields
        is_in_place = (
            fields["run"].hex() == record.run[2:]
            and fields["worker"].lower() == worker.lower()
            and (fields["lane"], fields["sequence"]) == (0, place)
        )
        if place and not (is_in_place and fields["previous"] == receipts[place - 1].digest):
            pair = (proofs.included(receipts, each) for each in (place, place - 1))
            yield "proveMisplaced", (shown, *pair)
        if not any(fields["delegation"]) and receipt.signer.lower() != worker.lower():
            yield "proveSignature", (shown, proofs.included(receipts, place))
    yield from _pinned(record, receipts, shown)
    for one, another in zip(receipts, other.receipts() if other is not None else (), strict=False):
        if one.digest != another.digest and another.signer.lower() == worker.lower():
            yield "proveContradiction", (proofs.signed(one), proofs.signed(another))


def _pinned(record: Record, receipts: list[Receipt], shown: dict[str, Any]) -> Iterator[Fault]:
    leaves = pins(record.spec)
    wanted: list[dict[str, Any]] = record.spec.get("pins", [])
    for place, receipt in enumerate(receipts):
        if receipt.kind != "step":
            continue
        for number, pin in enumerate(wanted):
            field, name = pin["field"], pin["name"]
            if pin["step"] not in (0, receipt.fields["step"]):
                continue
            opened = record.opened(receipt).get(field)
            names = [] if opened is None else [entry.name for entry in opened.entries]
            if name not in names:
                continue
            try:
                opening = proofs.opening(record, receipt, field, names.index(name), 0)
            except NotFound:
                # Whoever withholds a value must not keep the rest from being looked through.
                continue
            if opening["chunk"] != bytes.fromhex(pin["value"]):
                proof = merkle.inclusion_proof(leaves, number)
                included = proofs.included(receipts, place)
                yield "provePin", (shown, included, opening, leaves[number], number, proof)
