"""A worker computes nothing and contributes noise that is as long as the gradients of the others.

Defence: what its batch gives is computed again, and compared with what it signed. Without that, an aggregator sees
norms, and those are usual.
"""

from collections.abc import Sequence
from pathlib import Path

from counterfoil.attacks.robust import by_contributions, by_norm
from counterfoil.attacks.workers import State, Together, train_together
from counterfoil.testing import forge

LAYER = "replay"
undefended, defended = by_norm, by_contributions


def mount(folder: Path, *, honest: bool) -> Together:
    """Records three workers, one of whom contributes noise."""
    return train_together(folder, workers=3) if honest else train_together(folder, workers=3, forge=noise)


def noise(_own: State, others: Sequence[State]) -> State:
    """Noise with the standard deviation that each tensor has with another worker."""
    return {name: forge.noise(value.shape, value.std(), seed=1) for name, value in others[0].items()}
