"""Judges recorded steps for benches/tolerance.py as `replay` does, one process for each environment of the verifier."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import torch
from sketched import agreement

import counterfoil
import counterfoil.torch
from counterfoil import Record
from counterfoil.torch.calibrate import calibrate
from counterfoil.torch.environments import checked
from counterfoil.torch.execution import Differs, Execution, Lane
from counterfoil.torch.judge import judge
from counterfoil.torch.process import Child, NotReplayable
from counterfoil.torch.tolerance import MARGIN, Calibration, distances

Environment = dict[str, str | int | bool]
EXACT, WITHIN, UNDECIDED, REFUSED = "accepted, exact", "accepted, within", "undecided", "refused"
SECONDS = 600.0
"""What a step may take while other programs use the cores."""


class Kept(Child):
    """A process that outlives whoever used it: starting one takes longer than judging a run."""

    def __exit__(self, *_: object) -> None:
        self.stands = None


class Noted(Execution):
    """Keeps what a step computed from the recorded state, whatever is said of it."""

    computed: dict[str, Any]
    kept: ClassVar[dict[tuple[str, str], dict[str, Any]]] = {}

    def keeping(self, number: int) -> dict[str, Any]:
        """Once for each training and environment, since a new process is started for it; then as `once`."""
        place = (self.lane.record.path, json.dumps(self.here, sort_keys=True))
        if place not in self.kept:
            self.kept[place] = super().keeping(number)
            return self.kept[place]
        return super().once(number)

    def once(self, number: int, recorded: Any = None, change: Any = dict) -> dict[str, Any]:
        """Executes one step."""
        found = super().once(number, recorded, change)
        if recorded is None and change is dict:
            self.computed = found
        return found


class Verifier:
    """One machine's processes, by their variables. All runs have one recipe."""

    def __init__(self) -> None:
        self._children: dict[str, Kept] = {}

    def __call__(self, record: Record, variables: Mapping[str, str]) -> Kept:
        """As `Child(record, variables)`."""
        name = json.dumps(variables, sort_keys=True)
        if name not in self._children:
            self._children[name] = Kept(record, variables)
        return self._children[name]

    def end(self) -> None:
        """Ends them."""
        for child in self._children.values():
            child.end()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Has `calibrate` and `replay` use these processes."""
        with (
            mock.patch("counterfoil.torch.calibrate.Child", self),
            mock.patch("counterfoil.torch.replay.Child", self),
        ):
            yield

    def calibrated(self, path: Path, environment: Environment, steps: int) -> Calibration:
        """By the product."""
        with self.kept():
            return calibrate(path, steps=steps, run_untrusted=True, environment=environment, timeout=SECONDS)

    def rows(
        self, path: Path, environment: Environment, calibration: Calibration, numbers: list[int] | None = None
    ) -> list[dict[str, Any]]:
        """What comes of each step, and how far from what was recorded it lies.

        A score is the largest distance of a tensor divided by the calibrated noise: above `MARGIN` a step is
        not accepted, above `MARGIN * REFUSAL` it is refused.
        """
        record = Record(path)
        told = json.loads(path.with_suffix(".json").read_text())
        settings, variables = checked(environment)
        (place,) = record.lanes
        lane, child = Lane(record, *place), self(record, variables)
        rows = []
        for number in numbers or sorted(lane.steps):
            execution = Noted(lane, child, SECONDS, settings)
            row = {"lie": told["lies"][number - 1], "step": number, **outcome(execution, number, calibration)}
            lied = {
                unit: size / calibration.accepted(unit) for unit, size in told["sizes"][number - 1].items()
            }
            row["lie, of what is accepted"] = max(lied.values())
            row["lie, of the norm"] = whole(told["sizes"][number - 1])
            rows.append(row)
        return rows


def whole(sizes: Mapping[str, float]) -> float:
    """The distance of all tensors together, of those of each as a share of the whole norm."""
    return sum(size**2 for size in sizes.values()) ** 0.5


def outcome(execution: Noted, number: int, calibration: Calibration) -> dict[str, Any]:
    """The verdict on one step and the distances behind it."""
    why = ""
    try:
        said = EXACT if judge(execution, number, calibration).is_exact else WITHIN
    except NotReplayable as reason:
        said, why = UNDECIDED, str(reason)
    except Differs as differs:
        said, why = REFUSED, f"{differs.found.field}/{differs.found.tensor}: {differs.found.theirs}"
    receipt = execution.lane.steps[number]
    theirs = {
        field: execution.stored(receipt, field)
        for field in ("gradients", "metrics", "buffers")
        if any(receipt.fields.get(field, b""))
    }
    found = distances(execution.computed, theirs)
    noise = {unit: calibration.accepted(unit) / MARGIN for unit in found}
    scores = {unit: apart / noise[unit] for unit, apart in found.items()}
    unit = max(scores, key=lambda unit: scores[unit])
    gradients = [score for unit, score in scores.items() if unit.startswith("gradients/")]
    return {
        "said": said,
        "why": why,
        "score": scores[unit],
        "score of the gradient": max(gradients),
        "unit": unit,
        "distance": found[unit],
        "noise": noise[unit],
        "sketched": agreement(execution.computed["gradients"], theirs["gradients"], os.urandom(32)),
    }


def replayed(
    verifier: Verifier, path: Path, steps: str, environment: Environment, calibration: Calibration
) -> str:
    """The whole verdict."""
    options: dict[str, Any] = {"environment": environment, "tolerance": calibration, "timeout": SECONDS}
    with verifier.kept():
        try:
            verdict = counterfoil.torch.replay(path, steps, run_untrusted=True, **options)
        except counterfoil.errors.Refuted as refuted:
            verdict = refuted.verdict
    return f"{verdict.status}; {verdict.transition}"


def refused_update(path: Path) -> bool | None:
    """Whether `verify` by itself refuses an update, or nothing; None where it refuses something else."""
    try:
        counterfoil.verify(path)
    except counterfoil.errors.Refuted as refuted:
        edges = [broken.edge for broken in refuted.verdict.broken]
        return True if all("update of" in edge for edge in edges) else None
    return False


def main() -> None:
    """Does the jobs that are listed on standard input, and prints what came of each, a line each."""
    folder, verifier = Path(sys.argv[1]), Verifier()
    torch.set_num_threads(1)
    try:
        for job in json.loads(sys.stdin.read()):
            path, environment = folder / job["name"], job["environment"]
            if "thresholds" in job:
                calibration = Calibration.load(folder / job["thresholds"])
            else:
                calibration = verifier.calibrated(path, environment, job["calibrated"])
                calibration.save(folder / f"{job['name']}.{job['title']}.calibration")
            found = {
                "rows": verifier.rows(path, environment, calibration, job.get("steps")),
                "refused by verify": refused_update(path),
                "cheats": calibration.cheats,
                "noise": max(size for unit, size in calibration.noise.items() if "gradients/" in unit),
                "varied": calibration.environments,
            }
            if job.get("replay"):
                found["replay"] = replayed(verifier, path, job["replay"], environment, calibration)
            print(json.dumps({**job, **found}), flush=True)
    finally:
        verifier.end()


if __name__ == "__main__":
    main()
