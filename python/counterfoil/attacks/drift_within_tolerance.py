"""A trainer whose bits nobody else's machine computes makes each gradient a little longer.

Defence: honest executions on the verifier's machine say by how much gradients may differ there.

Not caught: each move is smaller than that, and no judgement of single steps adds them up. The verdict says what is not
seen.
"""

from pathlib import Path

from counterfoil.attacks.judging import by_signatures, by_tolerance
from counterfoil.attacks.training import stretched, train, untouched

LAYER = "replay within a tolerance"
undefended, defended = by_signatures, by_tolerance


def mount(folder: Path, *, honest: bool) -> Path:
    """Records a training that stores what a tolerance needs."""
    return train(
        folder, prepare=untouched if honest else stretched(1 + 5e-7), checkpoint_every=1, store_gradients=True
    )
