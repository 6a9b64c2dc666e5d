"""A trainer stores other weights under the name of a signed checkpoint.

Defence: a checkpoint's receipt commits to every kilobyte of its tensors.
"""

from pathlib import Path

import numpy as np

from counterfoil import Record, Run
from counterfoil.attacks.judging import by_signatures
from counterfoil.attacks.ledgers import go_on

LAYER = "verify"
defended = by_signatures


def mount(folder: Path, *, honest: bool) -> Path:
    """Records a checkpoint, and writes other weights of the same shape over the stored ones."""
    path = folder / "run"
    with Run.create(path) as run:
        go_on(run)
        run.record_checkpoint(1, {"parameters": run.store({"weight": np.ones(600, np.float32)})})
    if not honest:
        (stored,) = (path / "objects").iterdir()
        stored.write_bytes(np.full(600, 2, np.float32).tobytes())
    return path


def undefended(case: Path) -> str | None:
    """Judges as a loader of checkpoints does: every tensor is there, and has the bytes of its shape and dtype."""
    record = Record(case)
    for receipt in record.receipts():
        opened = record.opened(receipt).get("parameters")
        for tensor in opened.entries if opened else ():
            stored = case / "objects" / tensor.root.hex()
            if not stored.exists() or stored.stat().st_size != tensor.size:
                return f"{tensor.name} does not have {tensor.size} bytes"
    return None
