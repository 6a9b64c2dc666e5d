"""A trainer computes a step in bfloat16 and signs it as one of the recipe, which computes in float32.

Defence: the step is executed again in the recipe's precision, and the gradient compared bit for bit.
"""

from pathlib import Path
from typing import Any

import torch

from counterfoil.attacks.judging import by_replay, by_signatures
from counterfoil.attacks.training import Training, honestly, train

LAYER = "replay"
undefended, defended = by_signatures, by_replay


def mount(folder: Path, *, honest: bool) -> Path:
    """Records a training whose forward passes are cheaper than the recipe's."""
    return train(folder, deed=honestly if honest else halved)


def halved(training: Training, batch: Any, number: int) -> None:
    """Takes a step within autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        training.step(batch, number)
