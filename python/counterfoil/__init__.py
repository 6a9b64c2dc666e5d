"""Counterfoil turns PyTorch training into signed, chunk-level, chain-anchored evidence.

    import counterfoil

    with counterfoil.Run.create("runs/digits") as run:
        run.attach(model, optimizer)
        for x, y in run.batches(loader):
            ...
    print(counterfoil.verify("runs/digits"))

Importing this package needs numpy alone; torch is imported when `Run.attach` is first called.
"""

from counterfoil import errors, merkle
from counterfoil._native import (
    DTYPES,
    Commitment,
    Entry,
    Key,
    Opened,
    Opening,
    Receipt,
    Record,
    TreeHead,
    __version__,
)
from counterfoil.chain import AnchorRecord, Chain
from counterfoil.commit import Alias, commit_bytes, commit_file, commit_tensors
from counterfoil.errors import CounterfoilError, Refuted
from counterfoil.run import Run
from counterfoil.verify import Mismatch, ReplayReport, Verdict, verify

__all__ = [
    "DTYPES",
    "Alias",
    "AnchorRecord",
    "Chain",
    "Commitment",
    "CounterfoilError",
    "Entry",
    "Key",
    "Mismatch",
    "Opened",
    "Opening",
    "Receipt",
    "Record",
    "Refuted",
    "ReplayReport",
    "Run",
    "TreeHead",
    "Verdict",
    "__version__",
    "commit_bytes",
    "commit_file",
    "commit_tensors",
    "errors",
    "merkle",
    "verify",
]
