"""The training of several workers that is attacked: each a lane of one run, with a key of its own.

One process plays all of them, so that a cheat can know what the others contribute in the same round. It cheats from the
first step on, and is refuted. Of who begins later a replay says that it is undecided: what its recipe keeps from the
steps before cannot be tried, since those of several workers are not executed to their end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import counterfoil
from counterfoil.attacks.training import SPEC
from counterfoil.torch.demo import digits, ranks

STEPS, BATCH, CHEAT = 2, 32, 1
"""Steps of a training, samples of a worker's batch, and the number of the worker that may cheat."""

State = Mapping[str, NDArray[np.float32]]
Forge = Callable[[State, Sequence[State]], State]
"""What the cheat contributes, made from its own gradients and those of the others."""
Feed = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""What the cheat computes its gradients of, made from the batch that it was fed."""


@dataclass(frozen=True)
class Together:
    """A recorded training of several workers.

    Attributes:
        path: The run's folder.
        contributions: Of each step, what each worker contributed: gradients by parameter.
    """

    path: Path
    contributions: tuple[tuple[State, ...], ...]


@dataclass
class Worker:
    """One of several workers in its own lane: an own copy of the model, and own batches."""

    run: counterfoil.Run
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    batches: Iterator[Any]

    def gradients(self, images: torch.Tensor, labels: torch.Tensor) -> State:
        """The gradients of a batch, of which no recorder hears."""
        loss = torch.nn.functional.cross_entropy(self.model(images), labels)
        named = dict(self.model.named_parameters())
        found = torch.autograd.grad(loss, list(named.values()))
        return {name: each.numpy() for name, each in zip(named, found, strict=True)}

    def contribute(self, gradients: State) -> None:
        """Ends a backward pass with these gradients, which the recorder takes as this worker's contribution."""
        self.optimizer.zero_grad()
        named = dict(self.model.named_parameters())
        torch.autograd.backward(list(named.values()), [torch.tensor(gradients[name]) for name in named])


def train_together(
    folder: Path,
    *,
    workers: int = 2,
    forge: Forge = lambda own, others: own,
    feed: Feed = lambda images, labels: (images, labels),
) -> Together:
    """Trains one model with several workers, who apply the mean of their gradients, and records each of them.

    Args:
        folder: The run is its folder `run`.
        workers: How many; worker `CHEAT` may cheat.
        forge: Makes what the cheat contributes.
        feed: Changes what the cheat computes with.
    """
    torch.set_num_threads(1)  # small layers: a second thread costs more than it brings
    team = _team(folder / "run", workers)
    contributions = []
    for _ in range(STEPS):
        batches = [next(worker.batches) for worker in team]
        batches[CHEAT] = feed(*batches[CHEAT])
        computed = [worker.gradients(*batch) for worker, batch in zip(team, batches, strict=True)]
        computed[CHEAT] = forge(computed[CHEAT], [*computed[:CHEAT], *computed[CHEAT + 1 :]])
        for worker, gradients in zip(team, computed, strict=True):
            worker.contribute(gradients)
        contributions.append(tuple(computed))
        _apply_mean(team)
    for worker in team:
        worker.run.close()
    return Together(folder / "run", tuple(contributions))


def _team(path: Path, workers: int) -> list[Worker]:
    images, labels = digits().tensors
    team = []
    for lane in range(workers):
        key = counterfoil.Key.generate()
        if lane == 0:
            run = counterfoil.Run.create(path, key=key, spec=SPEC, recipe=ranks.__file__)
        else:
            run = counterfoil.Run.join(path, lane=lane, rank=lane, key=key)
        model, optimizer, _ = ranks.recipe(run.spec)
        run.attach(model, optimizer, every={"contribution": 1}, checkpoint_every=1)
        places = [slice(BATCH * at, BATCH * (at + 1)) for at in range(lane, STEPS * workers, workers)]
        loader = [(images[each].clone(), labels[each].clone()) for each in places]
        team.append(Worker(run, model, optimizer, iter(run.batches(loader))))
    return team


def _apply_mean(team: Sequence[Worker]) -> None:
    for together in zip(*(worker.model.parameters() for worker in team), strict=True):
        mean = torch.stack([each.grad for each in together if each.grad is not None]).mean(dim=0)
        for each in together:
            each.grad = mean.clone()
    for worker in team:
        worker.optimizer.step()


def each(change: Callable[[NDArray[np.float32]], NDArray[np.float32]], state: State) -> State:
    """Gradients of which each tensor was changed."""
    return {name: change(value) for name, value in state.items()}
