"""Measures how long the first difference between two long records takes to find.

Two runs of so many steps, each with a gradient of ten tensors, parameters every 50 steps and a stored checkpoint every
1,000, which differ in one gradient at the end, in the middle, or not at all. Beside them the naive way: load the
checkpoints of both runs as torch saved them, and compare tensor by tensor, which sees no gradient.

    python benches/diff.py [--steps 10000]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import counterfoil

TENSORS, ELEMENTS, PARAMETERS, CHECKPOINT = 10, 100_000, 50, 1_000


def record(path: Path, steps: int, differs: int) -> Path:
    """A run whose gradient at step `differs` is another one; beside its checkpoints those of torch."""
    draw = np.random.default_rng(0)
    state = {f"layer{i}.weight": draw.normal(size=ELEMENTS).astype(np.float32) for i in range(TENSORS)}
    kinds = [
        counterfoil.commit_tensors({name: np.float32([i, j]) for i, name in enumerate(state)})
        for j in range(8)
    ]
    with counterfoil.Run.create(path) as run:
        for step in range(1, steps + 1):
            fields = {"gradients": kinds[7 if step == differs else step % 7]}
            if step % PARAMETERS == 0:
                state["layer0.weight"][0] = step
                fields["parameters"] = counterfoil.commit_tensors(state)
            run.record_step(step, fields)
            if step % CHECKPOINT == 0:
                run.record_checkpoint(step, {"parameters": run.store(state)})
                torch.save({name: torch.tensor(value) for name, value in state.items()}, path / f"{step}.pt")
    return path


def naive(one: Path, two: Path, steps: int) -> bool:
    """Whether all checkpoints are equal."""
    equal = True
    for step in range(CHECKPOINT, steps + 1, CHECKPOINT):
        ours, theirs = torch.load(one / f"{step}.pt"), torch.load(two / f"{step}.pt")
        equal &= all(torch.equal(value, theirs[name]) for name, value in ours.items())
    return equal


def main() -> None:
    """Prints the fastest of five, in seconds, and what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["COUNTERFOIL_HOME"] = str(folder / "home")
        one = record(folder / "one", steps, 0)
        for what, differs in (("at the end", steps), ("in the middle", steps // 2), ("none", 0)):
            two = record(folder / f"differs-{differs}", steps, differs)
            seconds, found = fastest(lambda two=two: counterfoil.diff(one, two))
            print(f"difference {what:<14} {seconds:.3f} s  {str(found).splitlines()[0]}")
            seconds, found = fastest(lambda two=two: naive(one, two, steps))
            print(f"  checkpoints by torch    {seconds:.3f} s  {'all equal' if found else 'differ'}")


def fastest(work):
    """Seconds of the fastest of five calls, and the last answer."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        found = work()
        times.append(time.perf_counter() - start)
    return min(times), found


if __name__ == "__main__":
    main()
