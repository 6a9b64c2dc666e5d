"""A worker multiplies its contribution by twenty, so that the mean follows its batch alone.

Defence: its contribution is computed again, and compared with what it signed.
"""

from pathlib import Path

import numpy as np

from counterfoil.attacks.judging import by_replay, by_signatures
from counterfoil.attacks.workers import each, train_together

LAYER = "replay"
undefended, defended = by_signatures, by_replay


def mount(folder: Path, *, honest: bool) -> Path:
    """Records two workers, one of whom scales its gradients."""
    if honest:
        return train_together(folder).path
    scaled = train_together(folder, forge=lambda own, others: each(lambda one: one * np.float32(20), own))
    return scaled.path
