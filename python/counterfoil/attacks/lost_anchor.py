"""A prover shows a run that was anchored in a block which the chain has taken back since.

Defence: the chain is asked when the run is verified, and holds no such anchor any more.
"""

import shutil
from pathlib import Path

import counterfoil
from counterfoil import Record
from counterfoil.attacks.judging import by_chain, judged
from counterfoil.attacks.ledgers import Dated, PublicChain, record

LAYER = "verify with a chain"
defended = by_chain


def mount(folder: Path, *, honest: bool) -> Dated:
    """Anchors a run on a chain that then goes on without those blocks."""
    before, path = folder / "before", record(folder / "run")
    chain = PublicChain.dev(folder / "chain")
    shutil.copytree(folder / "chain", before)
    chain.anchor(path)
    return Dated(path, chain if honest else PublicChain.dev(before))


def undefended(case: Dated) -> str | None:
    """Trusts the block whose hash stood in an explorer when the transaction came in."""
    seen = [str(anchor["blockHash"]) for anchor in Record(case.path).anchors]
    return judged(lambda: counterfoil.verify(case.path, trusted_blocks=seen, require={"time": True}))
