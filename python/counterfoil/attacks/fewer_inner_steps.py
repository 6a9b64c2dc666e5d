"""A worker that owes six steps takes two, and moves on along the same line for the others.

What it hands over is as far from the start as six steps would be, and a step receipt speaks of each.

Defence: every step is executed again from the state before it.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterfoil.attacks.judging import by_replay, by_signatures
from counterfoil.attacks.training import Deed, Training, before_recording, honestly, train, weights, write
from counterfoil.testing import forge

LAYER = "replay"
TAKEN = 2
undefended, defended = by_signatures, by_replay


def mount(folder: Path, *, honest: bool) -> Path:
    """Records six steps, of which the last four are no work."""
    return train(folder, deed=honestly if honest else extrapolated())


def extrapolated() -> Deed:
    """Takes two steps; each later one writes the weights that lie as much farther on the line through these."""
    states: list[dict[str, NDArray[np.float32]]] = []

    def deed(training: Training, batch: Any, number: int) -> None:
        def move_on() -> None:
            write(training.model, forge.scaled_up(states[0], states[TAKEN], number / TAKEN))

        states.append(weights(training.model))
        if number <= TAKEN:
            training.step(batch, number)
            return
        with before_recording(training.optimizer, move_on):
            training.optimizer.step()

    return deed
