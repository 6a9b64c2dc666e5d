"""A trainer whose bits nobody else's machine computes takes gradients that are a thousandth too long.

Defence: honest executions on the verifier's machine say by how much gradients may differ there, and this is more.
"""

from pathlib import Path

from counterfoil.attacks.judging import by_signatures, by_tolerance
from counterfoil.attacks.training import stretched, train, untouched

LAYER = "replay within a tolerance"
undefended, defended = by_signatures, by_tolerance


def mount(folder: Path, *, honest: bool) -> Path:
    """Records a training that stores what a tolerance needs."""
    return train(
        folder, prepare=untouched if honest else stretched(1.001), checkpoint_every=1, store_gradients=True
    )
