"""The training that is attacked: a small perceptron on scikit-learn's digits, with the demo's recipe."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import counterfoil
from counterfoil import Commitment
from counterfoil.torch.demo import mlp

SPEC: dict[str, Any] = {"seed": 1, "hidden": 16, "learning_rate": 0.05}
STEPS = 6


@dataclass(frozen=True)
class Training:
    """What a trainer has in hand.

    Attributes:
        model: The model, as the recipe made it.
        optimizer: Its optimiser.
        step: The recipe's step of a batch and its number; it logs the loss.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[[Any, int], None]


Deed = Callable[[Training, Any, int], None]
"""What a trainer does with a recorded batch at the step of a number."""


def honestly(training: Training, batch: Any, number: int) -> None:
    """Takes the recipe's step with the batch that was recorded."""
    training.step(batch, number)


Change = Callable[[torch.nn.Module, torch.optim.Optimizer], None]
"""What a trainer does to a model and its optimiser before the first step."""


def untouched(_model: torch.nn.Module, _optimizer: torch.optim.Optimizer) -> None:
    """Leaves both as the recipe made them."""


def stretched(factor: float) -> Change:
    """A change after which each gradient is so many times as long when it is applied and recorded."""

    def install(_model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        def stretch(*_: object) -> None:
            for parameter in optimizer.param_groups[0]["params"]:
                parameter.grad.mul_(factor)

        optimizer.register_step_pre_hook(stretch)

    return install


def train(
    folder: Path,
    *,
    deed: Deed = honestly,
    told: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
    begin: Change = untouched,
    prepare: Change = untouched,
    recipe: ModuleType = mlp,
    spec: Mapping[str, Any] = SPEC,
    steps: int = STEPS,
    dataset: Commitment | None = None,
    loader: Iterable[Any] | None = None,
    **options: Any,
) -> Path:
    """Trains for a few steps and records each.

    Args:
        folder: The run is its folder `run`.
        deed: Takes each step.
        told: Makes the loss that is logged from the one that was computed.
        begin: Called before `attach`.
        prepare: Called behind `attach`, before the first step.
        recipe: A recipe's module; its file is handed over.
        spec: The recipe's.
        steps: How many.
        dataset: As of `Run.create`.
        loader: What gives an epoch's batches; by default the recipe's.
        options: As of `Run.attach`.

    Returns:
        The run's folder.
    """
    path = folder / "run"
    torch.set_num_threads(1)  # small layers: a second thread costs more than it brings
    with counterfoil.Run.create(path, spec=spec, recipe=recipe.__file__, dataset=dataset) as run:
        model, optimizer, step = recipe.recipe(run.spec)
        begin(model, optimizer)
        recorder = run.attach(model, optimizer, **{"every": 1, "checkpoint_every": 3} | options)
        prepare(model, optimizer)

        def take(batch: Any, number: int) -> None:
            step(batch, number, lambda loss: recorder.log(loss=told(loss)))

        training = Training(model, optimizer, take)
        epochs = itertools.repeat(run.batches(recipe.batches(run.spec) if loader is None else loader))
        batches = itertools.chain.from_iterable(epochs)
        for number, batch in zip(range(1, steps + 1), batches, strict=False):
            deed(training, batch, number)
    return path


def weights(model: torch.nn.Module) -> dict[str, NDArray[np.float32]]:
    """A copy of a model's parameters."""
    return {name: each.detach().numpy().copy() for name, each in model.named_parameters()}


def write(model: torch.nn.Module, state: Mapping[str, NDArray[np.float32]]) -> None:
    """Puts these parameters into a model."""
    for name, parameter in model.named_parameters():
        parameter.detach().copy_(torch.from_numpy(state[name]))


@contextlib.contextmanager
def before_recording(optimizer: torch.optim.Optimizer, change: Callable[[], None]) -> Iterator[None]:
    """Calls `change` behind each step of an attached optimiser, before its recorder reads what came of it."""

    def intervene(*_: object) -> None:
        with torch.no_grad():
            change()

    handle = optimizer.register_step_post_hook(intervene)
    optimizer._optimizer_step_post_hooks.move_to_end(handle.id, last=False)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        handle.remove()
