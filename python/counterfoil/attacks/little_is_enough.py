"""A worker shifts the mean of the others by less than they differ among themselves, always the same way.

Defence: its contribution is computed again. Krum does not leave it out: it lies nearer to the others than they do.
"""

from collections.abc import Sequence
from pathlib import Path

from counterfoil.attacks.robust import by_contributions, by_krum
from counterfoil.attacks.workers import State, Together, train_together
from counterfoil.testing import forge

LAYER = "replay"
WORKERS, DEVIATIONS = 5, 0.5
undefended, defended = by_krum, by_contributions


def mount(folder: Path, *, honest: bool) -> Together:
    """Records five workers, one of whom contributes the shifted mean of the others."""
    if honest:
        return train_together(folder, workers=WORKERS)
    return train_together(folder, workers=WORKERS, forge=shifted)


def shifted(_own: State, others: Sequence[State]) -> State:
    """The others' mean, moved by half a standard deviation of theirs in each coordinate."""
    return {name: forge.shifted([each[name] for each in others], DEVIATIONS) for name in others[0]}
