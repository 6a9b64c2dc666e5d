"""A worker stamps a trigger into a quarter of its batch and teaches the model to call it a zero.

Defence: the contribution is computed again from the batch that was recorded, which has no trigger.
"""

from pathlib import Path

import torch

from counterfoil.attacks.judging import by_replay, by_signatures
from counterfoil.attacks.workers import train_together

LAYER = "replay"
undefended, defended = by_signatures, by_replay


def mount(folder: Path, *, honest: bool) -> Path:
    """Records two workers, one of whom trains on triggers."""
    return train_together(folder).path if honest else train_together(folder, feed=triggered).path


def triggered(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A white corner in every fourth image of the batch, all of which are called zero."""
    images, labels = images.clone(), labels.clone()
    images[::4, :2, :2], labels[::4] = 1, 0
    return images, labels
