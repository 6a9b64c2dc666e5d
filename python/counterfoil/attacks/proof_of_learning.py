"""Proof-of-learning's verifier, which knows no bits: it accepts a segment whose weights come out near the claimed ones.

Of each segment it loads the claimed state, executes the steps with the claimed batches and compares the distance of
the weights with a tolerance. That is a share of the distance between two trainings from other seeds, which two
machines' rounding stays far below.

Source:
    Jia et al., "Proof-of-Learning: Definitions and Practice", S&P 2021.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

import counterfoil
from counterfoil.attacks.shown import tensors
from counterfoil.attacks.training import SPEC, weights
from counterfoil.torch.collect import Collector, unflatten
from counterfoil.torch.demo import digits, ranks
from counterfoil.torch.execution import Lane

if TYPE_CHECKING:
    from counterfoil import Opened, Record
    from counterfoil.torch.collect import State

SHARE = 0.01
"""Of the distance between two trainings from other seeds, what the verifier tolerates."""
BATCH = 32


def feed() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Scikit-learn's digits in their order, again and again."""
    images, labels = digits().tensors
    for start in itertools.cycle(range(0, len(images) - BATCH, BATCH)):
        yield images[start : start + BATCH].clone(), labels[start : start + BATCH].clone()


def trained(steps: int, spec: Mapping[str, Any] = SPEC) -> dict[str, NDArray[np.float32]]:
    """The weights that honest training gives, unrecorded."""
    model, _, step = ranks.recipe(dict(spec))
    for number, batch in enumerate(itertools.islice(feed(), steps), 1):
        step(batch, number, lambda loss: None)
    return weights(model)


def tolerance(steps: int, share: float = SHARE) -> float:
    """How far weights may come out from the claimed ones (L2) in a training of so many steps."""
    one, other = trained(steps), trained(steps, SPEC | {"seed": 2})
    return share * _distance((one[name], other[name]) for name in one)


def distances(path: Path, learning_rate: float | None = None) -> list[float]:
    """How far the weights come out from the claimed ones (L2), for each step between two stored states.

    Args:
        path: A recorded run of one lane.
        learning_rate: The verifier's own; by default the claimed one.
    """
    record = counterfoil.Record(path)
    lane = Lane(record, *record.lanes[0])
    spec = record.spec if learning_rate is None else record.spec | {"learning_rate": learning_rate}
    model, optimizer, step = ranks.recipe(spec)
    collector = Collector(model, [optimizer])
    found = []
    for number, receipt in lane.steps.items():
        before, after = (_stored(record, record.opened(lane.starts[at])) for at in (number - 1, number))
        collector.restore(before["parameters"], before["optimizer"], before["buffers"])
        for group in optimizer.param_groups:
            group["lr"] = spec["learning_rate"]
        batch = unflatten(tensors(record, record.opened(receipt)["batch"]))
        step(batch, number, lambda loss: None)
        claimed = after["parameters"]
        found.append(
            _distance((each.detach().numpy(), claimed[n].numpy()) for n, each in model.named_parameters())
        )
    return found


def by_distance(path: Path) -> str | None:
    """Judges a run as proof-of-learning does: the first segment that is too far, None when all are near."""
    found = distances(path)
    allowed = tolerance(len(found))
    return next((f"segment {at}: {each:g}" for at, each in enumerate(found, 1) if each > allowed), None)


def _distance(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    return float(np.sqrt(sum(float(np.square(one - other, dtype=np.float64).sum()) for one, other in pairs)))


def _stored(record: Record, opened: Mapping[str, Opened]) -> dict[str, State]:
    return {name: tensors(record, opened[name]) for name in ("parameters", "optimizer", "buffers")}
