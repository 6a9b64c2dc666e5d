"""The environment and hyperparameters that a run shows first, its specification and its recipe."""

from __future__ import annotations

import json
from typing import Any

from counterfoil._native import Record
from counterfoil.errors import CounterfoilError
from counterfoil.report.reading import Lane

_VALUES, _TEXT = 200, 20_000


def settings(record: Record, lanes: list[Lane]) -> dict[str, Any]:
    """Names and values as texts, and of which receipt they are."""
    return {
        "environment": _first(record, lanes, "environment"),
        "hyperparameters": _first(record, lanes, "hyperparameters"),
        "specification": _specification(record),
        "recipe": _recipe(record),
    }


def _first(record: Record, lanes: list[Lane], field: str) -> dict[str, Any] | None:
    """What the first step shows; what a checkpoint does when no step shows any."""
    for kind in ("step", "checkpoint"):
        for lane in lanes:
            for seen in lane.seen:
                if seen.receipt.kind != kind or not any(seen.fields.get(field, b"")):
                    continue
                opened = seen.opened(record).get(field)
                if opened is not None:
                    values = [[name, _text(value)] for name, value in opened.scalars().items()]
                    return {
                        "of": f"{kind} {seen.number}",
                        "values": values[:_VALUES],
                        "leftOut": len(values) - min(len(values), _VALUES),
                    }
    return None


def _text(value: object) -> str:
    return "not set" if value is None else str(value)


def _specification(record: Record) -> str:
    try:
        text = json.dumps(record.spec, indent=1, ensure_ascii=False)
    except CounterfoilError as refused:
        return f"cannot be read: {refused}"
    left_out = len(text) - min(len(text), _TEXT)
    return text[:_TEXT] + (f"\n({left_out:,} more characters are not listed)" if left_out else "")


def _recipe(record: Record) -> dict[str, Any] | None:
    try:
        digest = record.recipe_digest
    except CounterfoilError as refused:
        return {"digest": "", "error": str(refused), "files": []}
    if digest is None:
        return None
    files = [[name, len(content)] for name, content in record.recipe.items()]
    return {"digest": digest, "error": "", "files": files[:_VALUES]}
