"""A worker signs the contribution of another one of the same round as its own.

Defence: its own batch gives another gradient, which is computed again. Verification without a replay notes that two
lanes contributed the same, and cannot say who copied.
"""

from pathlib import Path

from counterfoil.attacks.judging import by_replay, by_signatures
from counterfoil.attacks.workers import train_together

LAYER = "replay"
undefended, defended = by_signatures, by_replay


def mount(folder: Path, *, honest: bool) -> Path:
    """Records two workers, one of whom contributes what the other did."""
    if honest:
        return train_together(folder).path
    return train_together(folder, forge=lambda own, others: others[0]).path
