"""A trainer learns the same few samples again and again, and records the batches of the whole data.

Defence: the step is executed again with the batch that was recorded.
"""

from pathlib import Path
from typing import Any

from counterfoil.attacks.judging import by_replay, by_signatures
from counterfoil.attacks.training import Deed, Training, honestly, train

LAYER = "replay"
undefended, defended = by_signatures, by_replay


def mount(folder: Path, *, honest: bool) -> Path:
    """Records a training on its first batch alone, as one on all."""
    return train(folder, deed=honestly if honest else easy())


def easy() -> Deed:
    """Takes each step with the first batch."""
    first: list[Any] = []

    def deed(training: Training, batch: Any, number: int) -> None:
        first.append(batch)
        training.step(first[0], number)

    return deed
