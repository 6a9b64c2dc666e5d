"""A trainer leaves one rank's ledger out of what is shown, because of what it holds.

Defence: the other ranks signed which ledgers they saw, and how far. A rank that nobody observed can be left out.
"""

import shutil
from pathlib import Path

from counterfoil import Run
from counterfoil.attacks.judging import by_each_receipt, by_signatures
from counterfoil.attacks.ledgers import go_on, journal

LAYER = "verify"
undefended, defended = by_each_receipt, by_signatures


def mount(folder: Path, *, honest: bool) -> Path:
    """Records two lanes, the first of which observes the second, and removes the second."""
    path = folder / "run"
    with Run.create(path) as first, Run.join(path, lane=1, rank=1) as second:
        go_on(first)
        go_on(second, scale=2.0)
        head = second.tree_head()
        first.record_observed_head(second.worker, 1, size=head.size, root=head.root)
    if not honest:
        shutil.rmtree(journal(path, 1).parent)
    return path
