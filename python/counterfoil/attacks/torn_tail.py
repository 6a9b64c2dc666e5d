"""A trainer damages the end of a journal so that steps which left the machine look like an interrupted write.

Defence: the machine remembers how many receipts it has handed out, and does not go on from fewer. A verifier without
that number sees a shorter run, unless an anchor covers the rest.
"""

from pathlib import Path

import counterfoil
from counterfoil import Run
from counterfoil.attacks.judging import by_signatures, judged
from counterfoil.attacks.ledgers import journal, record

LAYER = "Run.open"
undefended = by_signatures


def mount(folder: Path, *, honest: bool) -> Path:
    """Hands a run out and cuts its journal; or an interrupted write leaves a few bytes behind it."""
    path = record(folder / "run")
    counterfoil.export(path, folder / "run.counterfoil")
    written = journal(path).read_bytes()
    journal(path).write_bytes(written + bytes(7) if honest else written[: len(written) * 2 // 3])
    return path


def defended(case: Path) -> str | None:
    """Its owner goes on with it."""
    return judged(lambda: Run.open(case).close())
