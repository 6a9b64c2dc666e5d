"""A trainer signs a step that it never applied: weights and momentum stay what they were.

Defence: the step is executed again, and the state behind it compared with what was signed.
"""

from pathlib import Path
from typing import Any

from counterfoil.attacks.judging import by_replay, by_signatures
from counterfoil.attacks.training import Training, before_recording, honestly, train

LAYER = "replay"
AT = 4
undefended, defended = by_signatures, by_replay


def mount(folder: Path, *, honest: bool) -> Path:
    """Records a training of which one step changes nothing."""
    return train(folder, deed=honestly if honest else skipping)


def skipping(training: Training, batch: Any, number: int) -> None:
    """Undoes one step before it is recorded."""
    moments = [
        value for state in training.optimizer.state.values() for value in state.values() if value is not None
    ]
    kept = [(each, each.detach().clone()) for each in (*training.model.parameters(), *moments)]

    def undo() -> None:
        for tensor, before in kept if number == AT else ():
            tensor.copy_(before)

    with before_recording(training.optimizer, undo):
        training.step(batch, number)
