"""A worker who trained one model shows those receipts as work on another one.

Defence: a receipt names its run.
"""

from pathlib import Path

from counterfoil.attacks.judging import by_each_receipt, by_signatures
from counterfoil.attacks.ledgers import journal, record, splice

LAYER = "verify"
undefended, defended = by_each_receipt, by_signatures


def mount(folder: Path, *, honest: bool) -> Path:
    """Records two runs with one key, and splices the steps of the second into the first."""
    path, other = record(folder / "run"), record(folder / "other", scale=2.0)
    if not honest:
        splice(journal(other), journal(path))
    return path
