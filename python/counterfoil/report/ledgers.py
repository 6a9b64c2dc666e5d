"""The lanes and anchors of a record as tables for the page."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from counterfoil._native import DEVELOPMENT_CHAIN, Record
from counterfoil.report.reading import Lane, Seen

ROWS = 200
"""Receipts of a lane that are listed at most, beside those that the verdict names."""
_LANES, _ANCHORS, _MARKS, _KEYS = 64, 200, 400, 8
_ROLES = {1: "worker", 2: "coordinator", 3: "observer"}
_REASONS = {0: "finished", 1: "stopped by an exception", 2: "abandoned"}


def lanes(record: Record, walked: list[Lane]) -> dict[str, Any]:
    """What each lane holds; when there are many, those that the verdict names and the first ones."""
    session: dict[str, list[str]] = {}
    for worker, key in record.keys:
        if key != worker:
            session.setdefault(worker, []).append(key)
    chosen = sorted(walked, key=lambda lane: not lane.accused)[:_LANES]
    return {
        "listed": [_lane(lane, session.get(lane.worker, [])) for lane in walked if lane in chosen],
        "leftOut": len(walked) - min(len(walked), _LANES),
    }


def anchors(record: Record) -> dict[str, Any]:
    """Anchor records: hints until somebody confirms them."""
    found, path = record.anchors, Path(record.path) / "anchors"
    names = sorted(each.name for each in path.iterdir()) if path.is_dir() else []
    sizes = {(worker.lower(), lane): record.size(worker, lane) for worker, lane in record.lanes}
    listed = [
        {
            "name": names[place] if len(names) == len(found) else "",
            "chain": anchor["chainId"],
            "development": anchor["chainId"] == str(DEVELOPMENT_CHAIN),
            "contract": anchor["contract"],
            "block": anchor["blockNumber"],
            "blockHash": anchor["blockHash"],
            "time": anchor["blockTime"],
            "worker": anchor["worker"],
            "lane": anchor["lane"],
            "size": anchor["size"],
            "of": sizes.get((anchor["worker"].lower(), anchor["lane"]), 0),
            "proof": anchor.get("proof") is not None,
        }
        for place, anchor in enumerate(found[:_ANCHORS])
    ]
    return {"listed": listed, "leftOut": len(found) - len(listed)}


def _lane(lane: Lane, session: list[str]) -> dict[str, Any]:
    kinds = Counter(seen.receipt.kind for seen in lane.seen)
    times = [seen.fields["time"] for seen in lane.seen if "time" in seen.fields]
    join = next((seen.fields for seen in lane.seen if seen.receipt.kind == "join"), {})
    close = lane.seen[-1].fields if lane.seen and lane.seen[-1].receipt.kind == "close" else None
    rows, left_out = _rows(lane)
    return {
        "worker": lane.worker,
        "lane": lane.lane,
        "role": _ROLES.get(join.get("role", 0), "not shown"),
        "rank": join.get("rank"),
        "keys": session[:_KEYS],
        "keysLeftOut": len(session) - min(len(session), _KEYS),
        "size": lane.size,
        "shown": len(lane.seen),
        "abandoned": sum(seen.receipt.kind == "step" and _is_abandoned(seen, lane) for seen in lane.seen),
        "error": lane.error,
        "closed": None if close is None else _REASONS.get(close.get("reason", 0), "closed"),
        "first": min(times, default=None),
        "last": max(times, default=None),
        "kinds": sorted(kinds.items()),
        "checkpoints": _thinned([seen.position for seen in lane.seen if seen.receipt.kind == "checkpoint"]),
        "rows": rows,
        "leftOut": left_out,
    }


def _rows(lane: Lane) -> tuple[list[list[Any]], int]:
    """Those that are named, the others than steps, and steps from both ends."""

    def rank(seen: Seen) -> tuple[bool, bool, int]:
        from_end = min(seen.position, lane.size - seen.position)
        return seen.position not in lane.named, seen.receipt.kind == "step", from_end

    chosen = sorted(lane.seen, key=rank)[:ROWS]
    chosen.sort(key=lambda seen: seen.position)
    listed = [
        [seen.position, seen.receipt.kind, seen.number, seen.fields.get("time"), _remark(seen, lane)]
        for seen in chosen
    ]
    return listed, len(lane.seen) - len(chosen)


def _remark(seen: Seen, lane: Lane) -> str:
    flags = seen.fields.get("flags", 0) if seen.receipt.kind == "step" else 0
    told = {1: "skipped", 2: "not replayable", 4: "hashed by the CPU"}
    remarks = [text for bit, text in told.items() if flags & bit]
    # An evaluation, a release, an answer or a replay names the receipt that it is of.
    for of in (name.removesuffix("Worker") for name in seen.fields if name.endswith("Worker")):
        worker, lane_of, at = (seen.fields.get(f"{of}{part}") for part in ("Worker", "Lane", "Sequence"))
        remarks += [] if at is None else [f"of receipt {at} of {str(worker)[:8]}… lane {lane_of}"]
    if _is_abandoned(seen, lane):
        remarks.append("abandoned by a resume")
    return ", ".join(remarks)


def _is_abandoned(seen: Seen, lane: Lane) -> bool:
    # A close receipt tells the last step, and ends nothing that a resume goes back behind.
    return seen.receipt.kind in ("step", "checkpoint", "round") and seen.position not in lane.led


def _thinned(positions: list[int]) -> list[int]:
    every = -(-len(positions) // _MARKS) or 1
    return positions[::every]
