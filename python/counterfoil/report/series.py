"""Curves of what a run logged and of the norms of stored gradients, and what evaluations measured."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from counterfoil._native import Entry, Record
from counterfoil.errors import CounterfoilError
from counterfoil.report.reading import Lane

POINTS = 2000
"""Points of a curve at most."""
_NAMES, _LANES, _TOLD, _EVALUATIONS = 12, 6, 5, 100
_READ = 1 << 30
_FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
_NORM = re.compile("grad.*norm|norm.*grad", re.IGNORECASE)

Point = tuple[int, float]


def decimate(points: list[Point], most: int = POINTS) -> list[Point]:
    """At most so many points, which keep the smallest and the largest of each stretch.

    Args:
        points: Step and value, in order.
        most: How many, at least 4.
    """
    if len(points) <= most:
        return points
    # The first and the last stay, and each of the stretches between gives two.
    stretches = (most - 2) // 2
    inner, kept = points[1:-1], [points[0]]
    for at in range(stretches):
        stretch = inner[at * len(inner) // stretches : (at + 1) * len(inner) // stretches]
        ends = {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
        kept += sorted(ends)
    return [*kept, points[-1]]


def curves(record: Record, lanes: list[Lane]) -> dict[str, Any]:
    """Logged metrics by name, gradient norms, and why there are none."""
    logged: dict[str, list[dict[str, Any]]] = {}
    norms, unread = [], 0
    budget = _READ
    for lane in lanes:
        found: dict[str, list[Point]] = {}
        lengths: list[Point] = []
        for seen in lane.seen:
            if seen.number is None or seen.position not in lane.led:
                continue
            opened = seen.opened(record)
            if "metrics" in opened:
                for name, value in opened["metrics"].scalars().items():
                    if isinstance(value, int | float):
                        found.setdefault(name, []).append((seen.number, float(value)))
            if seen.receipt.kind == "step" and "gradients" in opened:
                entries = opened["gradients"].entries
                budget -= sum(entry.size for entry in entries)
                length = _norm(record, entries) if budget >= 0 else None
                unread += budget < 0
                lengths += [] if length is None else [(seen.number, length)]
        for name, points in found.items():
            logged.setdefault(name, []).append(_series(lane, points))
        norms += [_series(lane, lengths)] if lengths else []
    names = sorted(logged, key=lambda name: ("loss" not in name.lower(), name))
    return {
        "metrics": [
            _chart(name, logged[name], _unit(lanes), "as logged, no unit recorded") for name in names[:_NAMES]
        ],
        "metricsLeftOut": len(names) - min(len(names), _NAMES),
        "norm": _chart("gradient norm", norms, "step", "L2 norm over all stored gradients of the step")
        if norms
        else None,
        "normIsMetric": [name for name in names if _NORM.search(name)][:_NAMES],
        "normsUnread": unread,
    }


def evaluations(record: Record, lanes: list[Lane]) -> dict[str, Any]:
    """What evaluations measured: receipt, the receipt that they name, and their numbers."""
    found = []
    for lane in lanes:
        for seen in lane.seen:
            if seen.receipt.kind != "evaluation" or "evaluatedSequence" not in seen.fields:
                continue
            metrics = seen.opened(record).get("metrics")
            values = {} if metrics is None else metrics.scalars()
            found.append(
                {
                    "worker": lane.worker,
                    "lane": lane.lane,
                    "position": seen.position,
                    "ofWorker": seen.fields["evaluatedWorker"],
                    "ofLane": seen.fields["evaluatedLane"],
                    "ofReceipt": seen.fields["evaluatedSequence"],
                    "values": [[name, str(value)] for name, value in values.items()][:_NAMES],
                    "leftOut": len(values) - min(len(values), _NAMES),
                }
            )
    return {"listed": found[:_EVALUATIONS], "leftOut": len(found) - min(len(found), _EVALUATIONS)}


def _chart(name: str, series: list[dict[str, Any]], unit: str, measure: str) -> dict[str, Any]:
    left_out = len(series) - min(len(series), _LANES)
    return {
        "name": name,
        "unit": unit,
        "measure": measure,
        "series": series[:_LANES],
        "lanesLeftOut": left_out,
    }


def _unit(lanes: list[Lane]) -> str:
    kinds = {seen.receipt.kind for lane in lanes for seen in lane.seen}
    return "round" if "round" in kinds and "step" not in kinds else "step"


def _series(lane: Lane, points: list[Point]) -> dict[str, Any]:
    finite = [point for point in points if math.isfinite(point[1])]
    # JSON has no such numbers, and a loss that is none must not vanish from the curve unsaid.
    others = [[number, str(value)] for number, value in points if not math.isfinite(value)]
    return {
        "worker": lane.worker,
        "lane": lane.lane,
        "points": decimate(finite),
        "of": len(points),
        "notFinite": others[:_TOLD],
        "notFiniteCount": len(others),
    }


def _norm(record: Record, entries: Iterable[Entry]) -> float | None:
    """The norm over all tensors; None if one of them is not stored, since a part would mislead."""
    total, some = 0.0, False
    for entry in entries:
        if entry.kind == "absent":
            continue
        try:
            content = record.object(entry) if entry.kind == "dense" else None
        except CounterfoilError:
            content = None
        values = None if content is None else _decoded(entry.dtype, content)
        if values is None:
            return None
        total, some = total + float(np.square(values, dtype=np.float64).sum()), True
    return math.sqrt(total) if some else None


def _decoded(dtype: str, content: bytes) -> np.ndarray[Any, np.dtype[Any]] | None:
    if dtype == "BF16":
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, _FLOATS[dtype]) if dtype in _FLOATS else None
