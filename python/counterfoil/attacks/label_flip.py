"""A worker turns the labels of what it was fed, so that the model learns other names.

Defence: the contribution is computed again from the batch that was recorded, with its labels.
"""

from pathlib import Path

import torch

from counterfoil.attacks.judging import by_replay, by_signatures
from counterfoil.attacks.workers import train_together

LAYER = "replay"
undefended, defended = by_signatures, by_replay


def mount(folder: Path, *, honest: bool) -> Path:
    """Records two workers, one of whom trains on turned labels."""
    return train_together(folder).path if honest else train_together(folder, feed=flipped).path


def flipped(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Calls a nine a zero, an eight a one and so on."""
    return images, 9 - labels
