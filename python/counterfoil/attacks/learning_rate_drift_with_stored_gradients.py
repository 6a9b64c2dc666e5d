"""A trainer applies 1.0001 times the learning rate that it signs, in a run that stores its gradients.

Defence: `verify` alone executes the optimiser's update again from the stored gradient, without recipe or torch. The
same lie in a run that stores none is what it does not see.
"""

from pathlib import Path

from counterfoil.attacks.judging import by_signatures
from counterfoil.attacks.learning_rate_drift import drift
from counterfoil.attacks.training import train, untouched

LAYER = "verify with stored gradients"


def mount(folder: Path, *, honest: bool) -> tuple[Path, Path]:
    """Records the same training twice: without its gradients, and with them."""
    prepare = untouched if honest else drift
    plain = train(folder / "plain", prepare=prepare)
    return plain, train(folder / "stored", prepare=prepare, checkpoint_every=1, store_gradients=True)


def undefended(case: tuple[Path, Path]) -> str | None:
    """Judges the run that stores no gradients."""
    return by_signatures(case[0])


def defended(case: tuple[Path, Path]) -> str | None:
    """Judges the run that stores them."""
    return by_signatures(case[1])
