"""A worker shows the work of one lane in another lane as well, to be credited twice.

Defence: `verify` follows the links. The first receipt that was moved names the one before it in its own lane, and that
does not stand here. A receipt also names its lane, but the link breaks before that is compared.
"""

from pathlib import Path

from counterfoil import Run
from counterfoil.attacks.judging import by_each_receipt, by_signatures
from counterfoil.attacks.ledgers import STEPS, go_on, journal, record, splice

LAYER = "verify (links)"
undefended, defended = by_each_receipt, by_signatures


def mount(folder: Path, *, honest: bool) -> Path:
    """Records two lanes, the second of which holds the first one's steps in the place of its own."""
    path = record(folder / "run")
    with Run.join(path, lane=1) as run:
        go_on(run, STEPS, scale=2.0)
    if not honest:
        splice(journal(path, 0), journal(path, 1))
    return path
