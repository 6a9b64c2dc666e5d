"""Counterfoil turns PyTorch training into signed, chunk-level, chain-anchored evidence.

    import counterfoil

    with counterfoil.Run.create("runs/digits") as run:
        run.attach(model, optimizer)
        for x, y in run.batches(loader):
            ...
    print(counterfoil.verify("runs/digits"))

Importing this package needs numpy alone; torch is imported when `Run.attach` is first called.
"""

from counterfoil import cuda, errors, merkle, storage
from counterfoil._native import (
    DTYPES,
    Commitment,
    Contradiction,
    Entry,
    Key,
    Opened,
    Opening,
    Receipt,
    Record,
    Shard,
    TreeHead,
    __version__,
)
from counterfoil.bundle import export
from counterfoil.chain import AnchorRecord, Chain
from counterfoil.commit import (
    Alias,
    Block,
    Sharded,
    commit_block,
    commit_bytes,
    commit_file,
    commit_shard,
    commit_tensors,
    merge_shards,
)
from counterfoil.diff import diff
from counterfoil.errors import CounterfoilError, Refuted
from counterfoil.lookup import saved_at, uses
from counterfoil.records import erase, read_records
from counterfoil.run import Run, Session
from counterfoil.verify import Verdict, verify

__all__ = [
    "DTYPES",
    "Alias",
    "AnchorRecord",
    "Block",
    "Chain",
    "Commitment",
    "Contradiction",
    "CounterfoilError",
    "Entry",
    "Key",
    "Opened",
    "Opening",
    "Receipt",
    "Record",
    "Refuted",
    "Run",
    "Session",
    "Shard",
    "Sharded",
    "TreeHead",
    "Verdict",
    "__version__",
    "commit_block",
    "commit_bytes",
    "commit_file",
    "commit_shard",
    "commit_tensors",
    "cuda",
    "diff",
    "erase",
    "errors",
    "export",
    "merge_shards",
    "merkle",
    "read_records",
    "saved_at",
    "storage",
    "uses",
    "verify",
]
