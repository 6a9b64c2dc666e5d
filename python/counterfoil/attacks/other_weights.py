"""An owner releases one model, and answers with another one, of which a single weight differs.

The commitment to the loaded weights is as true as the answer; it is only that of another model.

Defence: the weights that each answer names are compared with those of the released checkpoint, tensor by tensor.
"""

from pathlib import Path

import numpy as np

from counterfoil import Key, Run, alignment, commit_tensors
from counterfoil.attacks.judging import by_each_receipt, by_signatures
from counterfoil.attacks.preferring import PAIRS, WEIGHTS, train
from counterfoil.run import place

LAYER = "verify"
undefended, defended = by_each_receipt, by_signatures


def mount(folder: Path, *, honest: bool) -> Path:
    """Releases a checkpoint, and answers once."""
    owner, loaded = Key.generate(), dict(WEIGHTS)
    checkpoint = train(folder / "training", owner, PAIRS)
    if not honest:
        loaded["w"] = loaded["w"] + np.eye(1, 600, 77, dtype=np.float32)[0]
    with Run.join(folder / "training", lane=1, key=owner, observes=True) as lane:
        release = alignment.record_release(lane, checkpoint, [])
        # `alignment.record_output` compares what was loaded before it signs.
        fields = {
            "parameters": commit_tensors(loaded),
            "exchange": lane.commit_records(["question 1", "answer 1"]),
        }
        lane.record("output", place("release", release), fields)
    return folder / "training"
