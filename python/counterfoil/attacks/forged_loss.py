"""A trainer signs lower losses than its model has.

Defence: the step is executed again, and what it logs is compared with what was signed.
"""

from pathlib import Path

from counterfoil.attacks.judging import by_replay, by_signatures
from counterfoil.attacks.training import train

LAYER = "replay"
undefended, defended = by_signatures, by_replay


def mount(folder: Path, *, honest: bool) -> Path:
    """Records a training whose loss is told at nine tenths."""
    return train(folder, told=lambda loss: loss if honest else 0.9 * loss)
