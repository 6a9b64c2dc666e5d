"""A trainer replaces the dataset and the batches that a finished run commits to, and signs its history anew.

Defence: the history was anchored when it ended, and a chain holds only that one.
"""

from pathlib import Path
from typing import Any

import numpy as np

import counterfoil
from counterfoil import commit_tensors
from counterfoil.attacks.judging import by_chain, without_a_chain
from counterfoil.attacks.ledgers import Dated, PublicChain, device_secret, record
from counterfoil.testing.resign import resign

LAYER = "verify with a chain"
undefended, defended = without_a_chain, by_chain


def mount(folder: Path, *, honest: bool) -> Dated:
    """Records and anchors a run; the trainer then withholds what the receipts open, and names other data."""
    content = {"content": np.zeros((6, 32), np.uint8)}
    path = record(folder / "run", dataset=commit_tensors(content, keep=True))
    chain = PublicChain.dev(folder / "chain")
    chain.anchor(path)
    if not honest:
        (path / "anchors" / "0.json").unlink()
        secret = device_secret()
        counterfoil.erase(path)
        resign(path, secret, _name_other_data)
    return Dated(path, chain)


def _name_other_data(told: dict[str, Any]) -> None:
    for field in {"dataset", "batch"} & {*told}:
        told[field] = "0x" + commit_tensors({field: 1.0}).digest(bytes(32)).hex()
