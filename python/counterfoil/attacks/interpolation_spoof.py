"""A thief of a model claims to have trained it, by states on the line from a fresh model to the stolen one.

Each segment of that line is shorter than what a verifier of weights tolerates, and the claimed learning rate is so
small that whatever it executes hardly moves. Of each segment the thief signs the gradient that leads along it, which
costs nothing: the optimiser's updates follow bit for bit, and `verify` has nothing to say.

Defence: the gradient is computed again from the batch, and compared bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from counterfoil.attacks.judging import by_replay
from counterfoil.attacks.proof_of_learning import by_distance, feed, trained
from counterfoil.attacks.training import SPEC, Deed, Training, honestly, train, weights
from counterfoil.testing import forge
from counterfoil.torch.demo import ranks

LAYER = "replay"
SEGMENTS = 150
CLAIMED = SPEC | {"learning_rate": 1e-5}
"""What the thief claims to have trained with."""


def mount(folder: Path, *, honest: bool) -> Path:
    """Records a training, or states on the line to a model that another one trained."""
    if honest:
        return claim(folder, honestly, SPEC, SEGMENTS)
    return claim(folder, led_to(trained(SEGMENTS, SPEC | {"seed": 7}), SEGMENTS), CLAIMED, SEGMENTS)


def claim(folder: Path, deed: Deed, spec: Mapping[str, Any], steps: int, **options: Any) -> Path:
    """Records steps, each with the state behind it, as proof-of-learning wants them."""
    chosen = {"checkpoint_every": 1} | options
    return train(folder, deed=deed, recipe=ranks, spec=spec, steps=steps, loader=feed(), **chosen)


def led_to(stolen: Mapping[str, NDArray[np.float32]], segments: int) -> Deed:
    """Steps the optimiser with gradients that lead along the line, and computes none."""
    line: list[dict[str, NDArray[np.float32]]] = []

    def deed(training: Training, batch: Any, number: int) -> None:
        if number == 1:
            line.extend(forge.interpolate(weights(training.model), stolen, segments))
        (group,) = training.optimizer.param_groups
        for name, parameter in training.model.named_parameters():
            buffer = training.optimizer.state[parameter].get("momentum_buffer")
            forged = forge.gradient_between(
                parameter.detach().numpy(), line[number - 1][name], group["lr"], group["momentum"],
                None if buffer is None else buffer.numpy(),
            )  # fmt: skip
            parameter.grad = torch.from_numpy(forged)
        training.optimizer.step()

    return deed


undefended = by_distance


def defended(path: Path) -> str | None:
    """Executes three steps again."""
    return by_replay(path, "1:3")
