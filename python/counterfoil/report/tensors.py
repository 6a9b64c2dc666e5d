"""Which tensors a receipt speaks of: their names, shapes and roots, as far as they are opened."""

from __future__ import annotations

from typing import Any

from counterfoil._native import Entry, Record
from counterfoil.report.reading import Lane, Seen

STEPS, TENSORS = 60, 250
"""Receipts whose tensors are listed, and tensors of one field, at most."""
_ENTRIES = 30_000
_FIELDS = ("gradients", "parameters")
_HIDDEN = frozenset(
    ("run", "previous", "delegation", "nonce", "policy", "beacon", "secret", "specification", "recipe")
)
_PREFIX = 12


def states(record: Record, lanes: list[Lane]) -> dict[str, Any]:
    """Fields and tensors of some steps, rounds and checkpoints; layouts that repeat are written once."""
    all_of_them = [
        (lane, seen)
        for lane in lanes
        for seen in lane.seen
        if seen.receipt.kind in ("step", "checkpoint", "round")
    ]
    layouts: dict[tuple[tuple[Any, ...], ...], int] = {}
    listed: list[dict[str, Any]] = []
    entries = 0
    for lane, seen in _chosen(all_of_them):
        state = _state(record, lane, seen, layouts)
        entries += sum(len(each["roots"]) for each in state["tensors"].values())
        listed.append(state)
        if entries > _ENTRIES:
            break
    listed.sort(key=lambda state: (state["order"], state["position"]))
    return {
        "listed": listed,
        "leftOut": len(all_of_them) - len(listed),
        "layouts": [list(map(list, layout)) for layout in layouts],
    }


def _chosen(found: list[tuple[Lane, Seen]]) -> list[tuple[Lane, Seen]]:
    """Those that the verdict names, the ends, and others evenly between."""
    named = [(lane, seen) for lane, seen in found if seen.position in lane.named][:STEPS]
    left = max(STEPS - len(named), 2)
    spread = [found[at * (len(found) - 1) // (left - 1)] for at in range(left)] if found else []
    return list(
        {(lane.worker, lane.lane, seen.position): (lane, seen) for lane, seen in named + spread}.values()
    )


def _state(
    record: Record, lane: Lane, seen: Seen, layouts: dict[tuple[tuple[Any, ...], ...], int]
) -> dict[str, Any]:
    opened = seen.opened(record)
    fields = []
    for name, value in seen.fields.items():
        if isinstance(value, bytes) and name not in _HIDDEN:
            count = len(opened[name].entries) if name in opened else None
            fields.append([name, value.hex()[:_PREFIX] if any(value) else "", count])
    tensors = {}
    for name in _FIELDS:
        if name not in opened:
            continue
        entries = opened[name].entries
        shown = entries[:TENSORS]
        layout = tuple((each.name, each.kind, each.dtype, tuple(each.shape), each.target) for each in shown)
        tensors[name] = {
            "layout": layouts.setdefault(layout, len(layouts)),
            "roots": [_root(each) for each in shown],
            "leftOut": len(entries) - len(shown),
        }
    return {
        "order": (lane.worker, lane.lane),
        "worker": lane.worker,
        "lane": lane.lane,
        "position": seen.position,
        "kind": seen.receipt.kind,
        "number": seen.number,
        "fields": fields,
        "tensors": tensors,
    }


def _root(entry: Entry) -> str:
    return entry.root.hex()[:_PREFIX] if entry.kind == "dense" else ""
