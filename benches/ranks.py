"""Measures what recording adds to a training step of two ranks; `make bench-ranks` runs it.

Each rank holds two copies of one training under DistributedDataParallel, on gloo and one thread. They take turns,
one of them recorded, and a step lasts until both ranks have taken it. Writes benches/results/ranks.json and
prints the table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench import HERE, machine
from recorder import LEVELS, MODELS, images, mlp, timed, trainer
from torch.nn.parallel import DistributedDataParallel

import counterfoil
from counterfoil.torch import open_lane

RANKS = 2
TRAININGS: dict[str, tuple[Any, Any, int]] = {
    "MLP, 0.1 M parameters, 64 images": (lambda: mlp(128), images, 1000),
    "MLP, 1 M parameters, 64 images": (lambda: mlp(768, 512), images, 500),
    "transformer, 10 M parameters, 8 x 32 tokens": MODELS["10M transformer, 8 x 32 tokens"],
}


def together(step: Callable[[Any], None]) -> Callable[[Any], None]:
    """The step, until all ranks have taken it."""

    def last(batch: Any) -> None:
        step(batch)
        torch.distributed.barrier()

    return last


def measure(rank: int, name: str, steps: int, folder: str, port: int) -> None:
    """One training as one of the ranks: a recorded step after each bare one. Rank 0 writes what it found."""
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=RANKS)
    make, feed, _ = TRAININGS[name]
    plain, model = DistributedDataParallel(make()), DistributedDataParallel(make())
    _, bare_step = trainer(plain)
    optimizer, recorded_step = trainer(model)
    batches = list(itertools.islice(feed(), 8))
    fed = itertools.cycle(batches)
    bare, recorded = [], []
    with open_lane(f"{folder}/run", key=counterfoil.Key.generate()) as run:
        run.attach(model, optimizer, **LEVELS["gradients"])
        watched = iter(run.batches(itertools.cycle(batches)))
        for number in range(2 + steps):
            if number == 2:  # the first steps make buffers, and the run's first checkpoint
                bare, recorded = [], []
            bare.append(timed(together(bare_step), lambda: next(fed)))
            recorded.append(timed(together(recorded_step), lambda: next(watched)))
        cadence = run.summary().cadence
    ratios = [two / one for one, two in zip(bare, recorded, strict=True)]
    found = {
        "model": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": steps,
        "bare step, ms": [round(1000 * each, 3) for each in statistics.quantiles(bare)],
        "recorded step, ms": [round(1000 * each, 3) for each in statistics.quantiles(recorded)],
        "added, %": [round(100 * (each - 1), 2) for each in statistics.quantiles(ratios)],
        "cadence": {
            part: cadence[part] for part in ("contribution", "gradients", "parameters", "checkpoint")
        },
    }
    if rank == 0:
        Path(folder, "found.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def spawned(name: str, share: float) -> dict[str, Any]:
    """What the ranks, processes of their own, find of one training."""
    steps = max(5, int(TRAININGS[name][2] * share))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COUNTERFOIL_HOME"] = f"{folder}/home"
        torch.multiprocessing.spawn(measure, (name, steps, folder, port), RANKS)
        found = json.loads(Path(folder, "found.json").read_text())
        counterfoil.verify(f"{folder}/run")
    return found


def main() -> None:
    """Measures, writes the results, prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of steps")
    parser.add_argument("--only", default="", help="part of a model's name")
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    results = machine() | {"torch": torch.__version__, "ranks": RANKS, "threads of each rank": 1}
    results["quartiles"] = [spawned(name, chosen.share) for name in TRAININGS if chosen.only in name]
    if not chosen.only:
        (HERE / "results" / "ranks.json").write_text(json.dumps(results, indent=1) + "\n")
    print(
        "| two ranks, a step | bare, ms | recorded, ms | added, median | quartiles |\n|---|---|---|---|---|"
    )
    for row in results["quartiles"]:
        bare, recorded = row["bare step, ms"][1], row["recorded step, ms"][1]
        low, middle, high = row["added, %"]
        print(
            f"| {row['model']} | {bare:.2f} | {recorded:.2f} | {middle:.1f} % | {low:.1f} to {high:.1f} % |"
        )


if __name__ == "__main__":
    main()
