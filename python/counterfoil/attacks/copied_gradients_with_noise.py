"""A worker copies another one's contribution and blurs it, so that no two lanes show the same.

Defence: its own batch gives another gradient, which is computed again.
"""

from collections.abc import Sequence
from pathlib import Path

from counterfoil.attacks.judging import by_replay, by_signatures
from counterfoil.attacks.workers import State, each, train_together
from counterfoil.testing import forge

LAYER = "replay"
undefended, defended = by_signatures, by_replay


def mount(folder: Path, *, honest: bool) -> Path:
    """Records two workers, one of whom contributes nearly what the other did."""
    return train_together(folder).path if honest else train_together(folder, forge=blurred).path


def blurred(_own: State, others: Sequence[State]) -> State:
    """Another's gradients, each element changed by about a hundredth."""
    return each(lambda gradient: forge.blurred(gradient, 0.01, seed=1), others[0])
