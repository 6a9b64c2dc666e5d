"""A trainer whose bits nobody else's machine computes makes each gradient a little longer.

Defence: honest executions on the verifier's machine say by how much gradients may differ there.

Not caught: each move is smaller than that, and no judgement of single steps adds them up. The verdict says what is not
seen.
"""

from pathlib import Path

import torch

from counterfoil.attacks.judging import by_signatures, by_tolerance
from counterfoil.attacks.training import train, untouched

LAYER = "replay within a tolerance"
SHARE = 5e-7
"""By which each gradient is too long."""
undefended, defended = by_signatures, by_tolerance


def mount(folder: Path, *, honest: bool) -> Path:
    """Records a training that stores what a tolerance needs."""
    return train(folder, prepare=untouched if honest else drift, checkpoint_every=1, store_gradients=True)


def drift(_model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Has each gradient moved before it is applied and recorded."""

    def move(*_: object) -> None:
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad.mul_(1 + SHARE)

    optimizer.register_step_pre_hook(move)
