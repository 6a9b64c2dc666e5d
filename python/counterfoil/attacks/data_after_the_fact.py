"""A trainer replaces the data that an anchored run commits to, signs its history anew and anchors that as well.

Defence: the chain still holds the anchor of the first history. The new one is dated too, so that its dates alone show
nothing; but a second history is excluded only where every anchor that the chain holds was compared, and whoever
verifies has to demand that it is.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

import counterfoil
from counterfoil import Run, commit_tensors
from counterfoil.attacks.judging import by_chain, judged
from counterfoil.attacks.ledgers import Dated, PublicChain, device_secret, go_on
from counterfoil.testing.resign import resign

LAYER = "verify with a chain"
defended = by_chain


def mount(folder: Path, *, honest: bool) -> Dated:
    """Anchors a run in its middle and at its end; the trainer withholds its openings, and names other data before that."""
    chain, path = PublicChain.dev(folder / "chain"), folder / "run"
    content = {"content": np.zeros((6, 32), np.uint8)}
    with Run.create(path, dataset=commit_tensors(content, keep=True)) as run:
        go_on(run, 2)
        chain.anchor(run)
        go_on(run, 2)
    if not honest:
        shutil.rmtree(path / "anchors")
        counterfoil.erase(path)
        resign(path, device_secret(), _name_other_data)
    chain.anchor(path)
    return Dated(path, chain)


def undefended(case: Dated) -> str | None:
    """Asks the chain for dates alone."""
    return judged(lambda: counterfoil.verify(case.path, chain=case.chain, require={"time": True}))


def _name_other_data(told: dict[str, Any]) -> None:
    for field in {"dataset", "batch"} & {*told}:
        told[field] = "0x" + commit_tensors({field: 1.0}).digest(bytes(32)).hex()
