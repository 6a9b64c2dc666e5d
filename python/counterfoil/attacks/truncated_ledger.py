"""A trainer cuts off the end of a run, as if its last steps had never happened.

Defence: an anchor tells how many receipts there were.
"""

import shutil
from pathlib import Path

from counterfoil.attacks.judging import by_chain, without_a_chain
from counterfoil.attacks.ledgers import Dated, PublicChain, record
from counterfoil.testing.tamper import cut_behind_the_anchor

LAYER = "verify with a chain"
undefended, defended = without_a_chain, by_chain


def mount(folder: Path, *, honest: bool) -> Dated:
    """Records and anchors a run, and ends its ledger in the middle, without the record of its anchor."""
    path, chain = record(folder / "run"), PublicChain.dev(folder / "chain")
    chain.anchor(path)
    if not honest:
        cut_behind_the_anchor(path)
        shutil.rmtree(path / "anchors")
    return Dated(path, chain)
