"""A trainer hands over a recipe that tells lower losses, so that executing it confirms what was signed.

Defence: whoever verifies pins the digest of the recipe that they have read.
"""

from pathlib import Path

import numpy as np

from counterfoil import commit_tensors
from counterfoil.attacks.judging import by_replay, by_signatures
from counterfoil.attacks.training import train
from counterfoil.torch.demo import mlp
from counterfoil.torch.rehearsal import imported

LAYER = "verify with a pinned recipe"


def mount(folder: Path, *, honest: bool) -> Path:
    """Trains with the demo's recipe, or with one that logs nine tenths of each loss."""
    source, edited = Path(mlp.__file__).read_text(encoding="utf-8"), folder / "recipe.py"
    edited.write_text(source if honest else source.replace("log(loss=loss)", "log(loss=0.9 * loss)"))
    with imported(edited) as recipe:
        return train(folder, recipe=recipe)


def undefended(case: Path) -> str | None:
    """Executes a step with whatever recipe lies in the run."""
    return by_replay(case, "1")


def defended(case: Path) -> str | None:
    """Pins the recipe that was read: the demo's."""
    read = {"recipe.py": np.frombuffer(Path(mlp.__file__).read_bytes(), np.uint8)}
    pin = "0x" + commit_tensors(read).digest().hex()
    return by_signatures(case, recipe=pin)
