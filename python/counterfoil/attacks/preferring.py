"""The runs that attacks on preferences and answers need: one rater's pairs, and a training run that names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from counterfoil import Key, Receipt, Record, Run, alignment, commit_tensors
from counterfoil._native import Commitment
from counterfoil.alignment import Pair

PAIRS = [Pair(f"question {number}", f"answer {number}", f"no answer {number}") for number in range(12)]
WEIGHTS = {"w": np.linspace(-1, 1, 600, dtype=np.float32), "b": np.ones(3, np.float32)}


def prefer(folder: Path, owner: Key) -> tuple[Path, Receipt]:
    """A rater signs the pairs and the owner collects them; returns the run and the collection."""
    with Run.create(folder, key=owner):
        pass
    rater = Key.generate()
    with Run.join(folder, lane=0, key=rater, observes=True) as lane:
        alignment.sign_preferences(lane, PAIRS)
    with Run.open(folder, key=owner) as run:
        return folder, alignment.collect(run, [rater.address])


def samples(pairs: Sequence[Pair]) -> Commitment:
    """These pairs as a training run's dataset, or as held out."""
    content = np.frombuffer(b"".join(pair.sample for pair in pairs), np.uint8).reshape(-1, 32)
    return commit_tensors({"content": content}, keep=True)


def train(folder: Path, owner: Key, pairs: Sequence[Pair], **spec: object) -> Receipt:
    """One step and a checkpoint of a run with this dataset; returns the checkpoint's receipt."""
    with Run.create(folder, key=owner, dataset=samples(pairs), spec=spec) as run:
        run.record_step(1, {"gradients": commit_tensors(WEIGHTS)})
        run.record_checkpoint(1, {"parameters": run.store(WEIGHTS)})
    return next(each for each in Record(folder).receipts() if each.kind == "checkpoint")
