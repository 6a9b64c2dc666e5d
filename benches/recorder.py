"""Measures what recording adds to a training step; `make bench-torch` runs it.

Two copies of one training take turns, one of them recorded, so that both see the same machine. Writes
benches/results/recorder.json and prints the tables.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from bench import HERE, machine
from replayed import Transformer

import counterfoil

LEVELS: dict[str, dict[str, Any]] = {
    "gradients": {"every": 0, "checkpoint_every": 0},
    "all": {"every": 1, "checkpoint_every": 0},
    "budget 2 %": {"every": 1, "checkpoint_every": 50, "budget": 0.02},
}


def mlp(*hidden: int) -> torch.nn.Module:
    """A perceptron for images of 28 by 28."""
    first, *others = [torch.nn.Linear(one, two) for one, two in itertools.pairwise([784, *hidden, 10])]
    return torch.nn.Sequential(first, *(part for each in others for part in (torch.nn.ReLU(), each)))


def images() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of 64 images."""
    while True:
        yield torch.rand(64, 784), torch.randint(0, 10, (64,))


def tokens(length: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of 8 texts."""
    while True:
        text = torch.randint(0, 8192, (8, length + 1))
        yield text[:, :-1].contiguous(), text[:, 1:].contiguous()


MODELS: dict[str, tuple[Callable[[], torch.nn.Module], Callable[[], Iterator[Any]], int]] = {
    "MLP, 64 images": (lambda: mlp(512, 512), images, 300),
    "10M transformer, 8 x 32 tokens": (lambda: Transformer(256, 10, 8192), lambda: tokens(32), 60),
    "10M transformer, 8 x 128 tokens": (lambda: Transformer(256, 10, 8192), lambda: tokens(128), 30),
    "100M transformer, 8 x 32 tokens": (lambda: Transformer(768, 13, 8192), lambda: tokens(32), 16),
    "100M transformer, 8 x 128 tokens": (lambda: Transformer(768, 13, 8192), lambda: tokens(128), 10),
}


def trainer(model: torch.nn.Module) -> tuple[torch.optim.Optimizer, Callable[[Any], None]]:
    """The optimiser, and a function that takes one step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(batch: Any) -> None:
        inputs, targets = batch
        optimizer.zero_grad()
        scores = model(inputs)
        torch.nn.functional.cross_entropy(scores.flatten(0, -2), targets.flatten()).backward()
        optimizer.step()

    return optimizer, step


def timed(step: Callable[[Any], None], batch: Callable[[], Any]) -> float:
    """Seconds of one step, drawing its batch included."""
    begin = time.perf_counter()
    step(batch())
    return time.perf_counter() - begin


def measure(name: str, options: dict[str, Any], share: float) -> dict[str, Any]:
    """One model at one level: a recorded step after each bare one.

    A budget is a share of the time between its steps. There, bare steps stand before and behind all recorded ones.
    """
    make, feed, count = MODELS[name]
    steps = max(5, int(count * share))
    bare, recorded = [], []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COUNTERFOIL_HOME"] = f"{folder}/home"
        _, plain = trainer(make())
        model = make()
        optimizer, step = trainer(model)
        batches = list(itertools.islice(feed(), 8))
        fed = itertools.cycle(batches)
        for _ in range(2):
            plain(next(fed))
            step(next(fed))
        with counterfoil.Run.create(f"{folder}/run") as run:
            whole = "budget" in options
            bare += [timed(plain, lambda: next(fed)) for _ in range(steps if whole else 0)]
            run.attach(model, optimizer, **options)
            watched = iter(run.batches(itertools.cycle(batches)))
            for _ in range(steps * (4 if whole else 1)):
                bare += [] if whole else [timed(plain, lambda: next(fed))]
                recorded.append(timed(step, lambda: next(watched)))
            summary = run.summary()
            bare += [timed(plain, lambda: next(fed)) for _ in range(steps if whole else 0)]
    usual = sum(bare) / len(bare)
    ratios = [
        two / one for one, two in zip(itertools.cycle(bare) if whole else bare, recorded, strict=not whole)
    ]
    # The first and the last checkpoint belong to no step.
    spent = {part: seconds for part, seconds in summary.recording.items() if whole or part != "checkpoint"}
    return {
        "model": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": len(recorded),
        "bare step, ms": round(1000 * statistics.median(bare), 2),
        "added, median, %": round(100 * (statistics.median(ratios) - 1), 2),
        "added, mean, %": round(100 * (sum(recorded) / len(recorded) / usual - 1), 2),
        "by its own clock, %": round(100 * sum(spent.values()) / len(recorded) / usual, 2),
        "cadence": {part: summary.cadence[part] for part in ("gradients", "parameters", "checkpoint")},
    }


def fixed(steps: int) -> dict[str, Any]:
    """What a step of 150 small tensors costs beyond hashing its bytes."""

    def linears() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        model = torch.nn.ModuleList([torch.nn.Linear(8, 8) for _ in range(75)])
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    (_, plain), (model, optimizer) = linears(), linears()
    bare, recorded = [], []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COUNTERFOIL_HOME"] = f"{folder}/home"
        with counterfoil.Run.create(f"{folder}/run") as run:
            run.attach(model, optimizer, every=0, checkpoint_every=0)
            for _ in range(steps):
                bare.append(timed(lambda _: plain.step(), lambda: None))
                recorded.append(timed(lambda _: optimizer.step(), lambda: None))
            print(run.summary())
    added = [two - one for one, two in zip(bare, recorded, strict=True)]
    return {
        "tensors": 150,
        "bare step, ms": round(1000 * statistics.median(bare), 3),
        "added, ms": round(1000 * statistics.median(added), 3),
        "added, p99, ms": round(1000 * statistics.quantiles(added, n=100)[98], 3),
    }


def memory(recorded: str) -> None:
    """Prints the largest resident memory of a training, in MB; run in a process of its own."""
    make, feed, _ = MODELS["100M transformer, 8 x 32 tokens"]
    model = make()
    optimizer, step = trainer(model)
    batches: Any = itertools.islice(feed(), 4)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COUNTERFOIL_HOME"] = f"{folder}/home"
        with counterfoil.Run.create(f"{folder}/run") as run:
            if recorded == "yes":
                run.attach(model, optimizer, **LEVELS["all"])
                batches = run.batches(batches)
            for batch in batches:
                step(batch)
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1000)


def main() -> None:
    """Measures, writes the results, prints the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of steps")
    parser.add_argument("--only", default="", help="part of a model's name")
    parser.add_argument("--memory", choices=("yes", "no"))
    chosen = parser.parse_args()
    if chosen.memory:
        memory(chosen.memory)
        return
    results: dict[str, Any] = machine() | {"torch": torch.__version__, "threads": torch.get_num_threads()}
    results["fixed"] = fixed(int(1000 * chosen.share))
    print(results["fixed"], flush=True)
    table: dict[str, list[dict[str, Any]]] = {}
    for level, options in LEVELS.items():
        for name in (name for name in MODELS if chosen.only in name):
            table.setdefault(level, []).append(measure(name, options, chosen.share))
            print(level, table[level][-1], flush=True)
    results["levels"] = table
    if not chosen.only:
        command = [sys.executable, __file__, "--memory"]
        resident = {
            way: int(
                subprocess.run([*command, way], capture_output=True, text=True, check=True).stdout.split()[-1]
            )
            for way in ("no", "yes")
        }
        results["resident memory of the 100M transformer, MB"] = {
            "bare": resident["no"],
            "recorded": resident["yes"],
        }
        (HERE / "results" / "recorder.json").write_text(json.dumps(results, indent=1) + "\n")
    print("\n| | step, ms | " + " | ".join(LEVELS) + " |\n|---|---|" + "---|" * len(LEVELS))
    for rows in zip(*table.values(), strict=True):
        added = " | ".join(
            f"{row['added, mean, %']:.1f} % ({row['by its own clock, %']:.1f} %)" for row in rows
        )
        print(f"| {rows[0]['model']} | {rows[0]['bare step, ms']} | {added} |")
    print(json.dumps({key: value for key, value in results.items() if key != "levels"}, indent=1))


if __name__ == "__main__":
    main()
