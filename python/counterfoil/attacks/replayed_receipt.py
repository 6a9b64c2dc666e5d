"""A worker hands in a receipt of finished work a second time, to be credited twice.

Defence: `verify` follows the links. A receipt names the digest of the one before it, which is another one where it
stands a second time.
"""

from pathlib import Path

from counterfoil.attacks.judging import by_each_receipt, by_signatures
from counterfoil.attacks.ledgers import journal, record
from counterfoil.testing.tamper import STEP, places_of, read_frames, write_frames

LAYER = "verify (links)"
undefended, defended = by_each_receipt, by_signatures


def mount(folder: Path, *, honest: bool) -> Path:
    """Records a run, and repeats its last step's receipt behind itself."""
    path = record(folder / "run")
    if not honest:
        frames = read_frames(journal(path))
        last = places_of(frames, STEP)[-1]
        write_frames(journal(path), [*frames[: last + 1], *frames[last:]])
    return path
