"""The training that is attacked: a small perceptron on scikit-learn's digits, with the demo's recipe."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import counterfoil
from counterfoil.torch.demo import mlp

SPEC: dict[str, Any] = {"seed": 1, "hidden": 16, "learning_rate": 0.05}
STEPS = 6


def train(
    folder: Path,
    *,
    recipe: str | Path = mlp.__file__,
    told: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
    prepare: Callable[[torch.nn.Module, torch.optim.Optimizer], None] = lambda model, optimizer: None,
    **options: Any,
) -> Path:
    """Trains for a few steps and records each.

    Args:
        folder: The run is its folder `run`.
        recipe: The file that is handed over; by default the one that is executed.
        told: Makes the loss that is logged from the one that was computed.
        prepare: Called behind `attach`, before the first step.
        options: As of `Run.attach`.

    Returns:
        The run's folder.
    """
    path = folder / "run"
    torch.set_num_threads(1)  # small layers: a second thread costs more than it brings
    with counterfoil.Run.create(path, spec=SPEC, recipe=recipe) as run:
        model, optimizer, step = mlp.recipe(run.spec)
        recorder = run.attach(model, optimizer, **{"every": 1, "checkpoint_every": 3} | options)
        prepare(model, optimizer)

        def log(loss: torch.Tensor) -> None:
            recorder.log(loss=told(loss))

        epochs = itertools.repeat(run.batches(mlp.batches(run.spec)))
        batches = itertools.chain.from_iterable(epochs)
        for number, batch in zip(range(1, STEPS + 1), batches, strict=False):
            step(batch, number, log)
    return path
