"""A worker contributes its gradient with the sign turned, and works against the others.

Defence: its contribution is computed again. A bound on norms does not see it: the norm is the honest one.
"""

from pathlib import Path

import numpy as np

from counterfoil.attacks.robust import by_contributions, by_norm
from counterfoil.attacks.workers import Together, each, train_together

LAYER = "replay"
undefended, defended = by_norm, by_contributions


def mount(folder: Path, *, honest: bool) -> Together:
    """Records three workers, one of whom turns the sign."""
    if honest:
        return train_together(folder, workers=3)
    return train_together(folder, workers=3, forge=lambda own, others: each(np.negative, own))
