"""A worker computes nothing and contributes zeros to the mean of all.

Defence: what its batch gives is computed again, and compared with what it signed.
"""

from pathlib import Path

from counterfoil.attacks.judging import by_replay, by_signatures
from counterfoil.attacks.workers import each, train_together
from counterfoil.testing import forge

LAYER = "replay"
undefended, defended = by_signatures, by_replay


def mount(folder: Path, *, honest: bool) -> Path:
    """Records two workers, one of whom contributes zeros."""
    if honest:
        return train_together(folder).path
    return train_together(folder, forge=lambda own, others: each(forge.zeros, own)).path
