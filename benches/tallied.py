"""Counts what benches/judged.py said, and lays it out in tables; for benches/tolerance.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import forged
from judged import EXACT, REFUSED, UNDECIDED, WITHIN

from counterfoil.torch.tolerance import MARGIN, REFUSAL

DTYPES = ("fp32", "bf16", "fp64")
SWEPT = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Values of MARGIN that are tried."""
SAID = (EXACT, WITHIN, UNDECIDED, REFUSED)
Rows = list[dict[str, Any]]


def counted(rows: Rows, done: Rows) -> dict[str, Any]:
    """Verdicts on honest steps and on lies, by precision."""
    honest = [row for row in rows if not row["lie"]]
    lying = [row for row in rows if row["lie"] and row["name"].endswith("gradients")]
    updates = [row for row in rows if row["lie"] in forged.SETTINGS]
    above = [row for row in lying if row["lie, of what is accepted"] >= REFUSAL]
    found: dict[str, Any] = {
        "honest": by(honest, lambda row: f"{row['spec']['dtype']}, {row['title']}{older(row)}"),
        "honest steps that were refused or not decided": [plainly(row) for row in honest if odd(row)],
        "lies above what is refused": by(above, lambda row: row["spec"]["dtype"]),
        "of these, not refused": [plainly(row) for row in above if row["said"] != REFUSED],
        "lies between": by(between(lying), lambda row: row["spec"]["dtype"]),
        "lies below what is accepted": by(
            [row for row in lying if row["lie, of what is accepted"] < 1], lambda row: row["spec"]["dtype"]
        ),
        "lies": {dtype: by(of(lying, dtype), lambda row: row["lie"]) for dtype in DTYPES},
        "updates": {dtype: by(of(updates, dtype), lambda row: row["lie"]) for dtype in DTYPES},
        "blind": {dtype: blind(of(lying, dtype)) for dtype in DTYPES},
        "curve": {dtype: curve(of(honest, dtype), of(lying, dtype)) for dtype in DTYPES},
        "noise of a gradient": {dtype: spread([job["noise"] for job in of(done, dtype)]) for dtype in DTYPES},
        "whole replays": {
            f"{job['name']}, {job['title']}": job["replay"] for job in done if job.get("replay")
        },
    }
    by_verify = {job["name"]: job["refused by verify"] for job in done}
    lied = [refused for name, refused in by_verify.items() if name.endswith("updates")]
    found["trainings with lying updates that verify refuses by itself"] = {
        "refused": sum(lied),
        "of": len(lied),
    }
    others = [name for name, refused in by_verify.items() if refused and not name.endswith("updates")]
    found["other trainings that verify refuses"] = others
    return found


def odd(row: dict[str, Any]) -> bool:
    """Whether it was not accepted."""
    return row["said"] in (REFUSED, UNDECIDED)


def older(row: dict[str, Any]) -> str:
    """Whether an older torch recorded it."""
    return ", recorded by an older torch" * row["name"].endswith("older")


def of(rows: Rows, dtype: str) -> Rows:
    """Those of one precision."""
    return [row for row in rows if row["spec"]["dtype"] == dtype]


def between(rows: Rows) -> Rows:
    """Lies of which nothing need be decided."""
    return [row for row in rows if 1 <= row["lie, of what is accepted"] < REFUSAL]


def by(rows: Rows, named: Callable[[dict[str, Any]], str]) -> dict[str, dict[str, int]]:
    """How many steps got which verdict, by name, and all together."""
    groups: dict[str, Counter[str]] = {}
    for row in rows:
        for name in (named(row), "all"):
            groups.setdefault(name, Counter())[row["said"]] += 1
    ordered = sorted(groups, key=lambda name: (name == "all", name))
    return {name: {said: groups[name][said] for said in SAID if groups[name][said]} for name in ordered}


def plainly(row: dict[str, Any]) -> dict[str, Any]:
    """A step with its numbers."""
    return {
        name: f"{value:.3g}" if isinstance(value, float) else value
        for name, value in row.items()
        if name not in ("spec", "sketched")
    }


def blind(rows: Rows) -> dict[str, Any]:
    """The largest lie of each kind that passes, and the smallest that is refused, as a share of the norm."""
    kinds = {"noise": "noise of", "scale": "scaled by", "one sample": "one sample", "rounding": "rounded to"}
    found = {}
    for name, begins in kinds.items():
        sizes: dict[str, list[float]] = {said: [] for said in SAID}
        for row in rows:
            if row["lie"].startswith(begins):
                sizes[row["said"]].append(row["lie, of the norm"])
        passed = sizes[EXACT] + sizes[WITHIN]
        found[name] = {
            "largest accepted": f"{max(passed):.1e}" if passed else None,
            "largest undecided": f"{max(sizes[UNDECIDED]):.1e}" if sizes[UNDECIDED] else None,
            "smallest refused": f"{min(sizes[REFUSED]):.1e}" if sizes[REFUSED] else None,
        }
    return found


def curve(honest: Rows, lying: Rows) -> dict[str, Any]:
    """How well the score tells them apart, and what other margins would give."""
    found: dict[str, Any] = {"honest": len(honest), "lies": len(lying)}
    for score in ("score", "score of the gradient"):
        true, false = ([row[score] for row in rows] for rows in (honest, lying))
        wins = sum((one < other) + (one == other) / 2 for one in true for other in false)
        found[f"area under the curve, {score}"] = round(wins / max(1, len(true) * len(false)), 4)
        found[f"largest honest {score}"] = float(f"{max(true, default=0.0):.3g}")
    found["margins"] = {
        str(margin): {
            "honest not accepted": sum(row["score"] > margin for row in honest),
            "honest beyond refusal": sum(row["score"] >= REFUSAL * margin for row in honest),
            "lies accepted": sum(row["score"] <= margin for row in lying),
            "lies beyond refusal": sum(row["score"] >= REFUSAL * margin for row in lying),
        }
        for margin in SWEPT
    }
    found["margin of the product"] = MARGIN
    return found


def spread(values: list[float]) -> list[str]:
    """The least, the median and the greatest."""
    ordered = sorted(values)
    return [f"{ordered[at]:.1e}" for at in (0, len(ordered) // 2, -1)] if ordered else []


def tables(results: dict[str, Any]) -> str:
    """The tables of BENCHMARKS.md."""
    parts = [
        _table(["honest steps, by precision and verifier", *SAID], _verdicts(results["honest"])),
        _table(
            ["lies beyond what is refused, and nearer ones", *SAID],
            [
                line
                for kind in ("lies above what is refused", "lies between", "lies below what is accepted")
                for line in _verdicts(results[kind], kind.removeprefix("lies "))
            ],
        ),
        _table(
            ["lie: accepted / undecided / refused", *DTYPES],
            (
                [lie, *(_share(results["lies"][dtype].get(lie)) for dtype in DTYPES)]
                for lie in _lies(results, "lies")
            ),
        ),
        _table(
            ["lie about the update, by `judge` alone", *DTYPES],
            (
                [lie, *(_share(results["updates"][dtype].get(lie)) for dtype in DTYPES)]
                for lie in _lies(results, "updates")
            ),
        ),
        _table(
            ["blind, of the gradient's norm", "largest accepted", "largest undecided", "smallest refused"],
            (
                [f"{dtype}, {kind}", *sizes.values()]
                for dtype in DTYPES
                for kind, sizes in results["blind"][dtype].items()
            ),
        ),
        _table(
            [
                "drift, steps",
                "parameters",
                "score of 0",
                "right",
                "honest elsewhere: parameters",
                "score of 0",
                "right",
            ],
            (
                [f"{name}, {mark}", *stood.values()]
                for name, each in results["drift"].items()
                for mark, stood in each["behind"].items()
            ),
        ),
        _table(list(results["bounds"][0]), ([*row.values()] for row in results["bounds"])),
    ]
    return "\n".join(parts)


def _lies(results: dict[str, Any], kind: str) -> list[str]:
    return list(dict.fromkeys(lie for dtype in DTYPES for lie in results[kind][dtype]))


def _verdicts(groups: dict[str, dict[str, int]], kind: str = "") -> Iterable[list[Any]]:
    for name, counts in groups.items():
        yield [f"{kind}, {name}" if kind else name, *(counts.get(said, 0) for said in SAID)]


def _share(counts: dict[str, int] | None) -> str:
    if counts is None:
        return ""
    accepted = counts.get(EXACT, 0) + counts.get(WITHIN, 0)
    return f"{accepted} / {counts.get(UNDECIDED, 0)} / {counts.get(REFUSED, 0)}"


def _table(head: list[str], lines: Iterable[list[Any]]) -> str:
    rows = [
        head,
        ["---"] * len(head),
        *([str("" if cell is None else cell) for cell in line] for line in lines),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
