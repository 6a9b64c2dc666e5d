"""A worker computes a step once, and signs it in two lanes as the work of two ranks.

Defence: `verify` compares the contributions of the lanes that it is shown, and notes which are the same. It accuses
nobody: the note says so, and somebody has to read it.
"""

from pathlib import Path

import numpy as np

import counterfoil
from counterfoil import Run, commit_tensors
from counterfoil.attacks.judging import by_signatures

LAYER = "verify (a note)"
undefended = by_signatures


def mount(folder: Path, *, honest: bool) -> Path:
    """Records two ranks that applied one gradient, of which the second contributed its own or the first's."""
    path = folder / "run"
    with Run.create(path) as first, Run.join(path, lane=1, rank=1) as second:
        for step in (1, 2):
            for rank, run in enumerate((first, second)):
                own = np.array([step, rank if honest else 0], np.float32)
                applied = commit_tensors({"w": np.array([step], np.float32)})
                run.record_step(step, {"contribution": commit_tensors({"w": own}), "gradients": applied})
    return path


def defended(case: Path) -> str | None:
    """Reads the notes as well."""
    notes = counterfoil.verify(case).notes
    return by_signatures(case) or next((note for note in notes if "the same gradients" in note), None)
