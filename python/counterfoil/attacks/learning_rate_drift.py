"""A trainer applies 1.0001 times the learning rate that it signs, at one step.

Defence: the step is executed again with the signed learning rate, and every bit of the state compared.
"""

from pathlib import Path

import torch

from counterfoil.attacks.judging import by_replay, by_signatures
from counterfoil.attacks.training import train
from counterfoil.torch.demo import lying

LAYER = "replay"
undefended, defended = by_signatures, by_replay


def mount(folder: Path, *, honest: bool) -> Path:
    """Records a training whose fourth step goes a little too far."""
    return train(folder) if honest else train(folder, prepare=drift)


def drift(_model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Has an optimiser drift at one step."""
    lying(at=4)(optimizer)
