"""A trainer leaves a rank's ledger out of what is shown, which no other rank observed.

Not caught: nothing that is shown names the ledger. The chain holds its anchor, but is asked for the lanes that are shown
alone, and the verdict speaks of those. Ranks that observe each other catch it.

Defence: whoever verifies looks for more anchors of the run on the chain.
"""

import shutil
from pathlib import Path

from counterfoil import Record, Run
from counterfoil.attacks.judging import by_chain, without_a_chain
from counterfoil.attacks.ledgers import Dated, PublicChain, go_on, journal

LAYER = "verify with a chain"
undefended, defended = without_a_chain, by_chain


def mount(folder: Path, *, honest: bool) -> Dated:
    """Anchors two lanes of a run, and removes the second one with the record of its anchor."""
    path, chain = folder / "run", PublicChain.dev(folder / "chain")
    with Run.create(path) as first, Run.join(path, lane=1, rank=1) as second:
        go_on(first)
        go_on(second, scale=2.0)
    for run in (first, second):
        chain.anchor(run)
    if not honest:
        shutil.rmtree(journal(path, 1).parent)
        last = len(Record(path).anchors) - 1
        (path / "anchors" / f"{last}.json").unlink()
    return Dated(path, chain)
