"""A trainer whose bits nobody else's machine computes takes gradients that are a thousandth too long.

Defence: honest executions on the verifier's machine say by how much gradients may differ there, and this is more.
"""

from pathlib import Path

import torch

from counterfoil.attacks.judging import by_signatures, by_tolerance
from counterfoil.attacks.training import train, untouched

LAYER = "replay within a tolerance"
undefended, defended = by_signatures, by_tolerance


def mount(folder: Path, *, honest: bool) -> Path:
    """Records a training that stores what a tolerance needs."""
    return train(folder, prepare=untouched if honest else stretch, checkpoint_every=1, store_gradients=True)


def stretch(_model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Has each gradient stretched before it is applied and recorded."""

    def longer(*_: object) -> None:
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad.mul_(1.001)

    optimizer.register_step_pre_hook(longer)
