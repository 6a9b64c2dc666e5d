"""How attacks are judged: by a verdict, or by another call that refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import counterfoil
from counterfoil.errors import CounterfoilError, Refuted
from counterfoil.torch import replay


def judged(call: Callable[[], object]) -> str | None:
    """What a call refuses with: the first broken edge of a verdict, or an error; None when it accepts.

    A verdict that is undecided is no acceptance.
    """
    try:
        result = call()
    except Refuted as refuted:
        return refuted.verdict.broken[0].edge if refuted.verdict.broken else str(refuted)
    except CounterfoilError as refused:
        return str(refused)
    if isinstance(result, counterfoil.Verdict) and result.status != "verified":
        return f"{result.status}: {'; '.join(result.missing)}"
    return None


def by_signatures(path: Path, **pins: Any) -> str | None:
    """Judges a run by its signatures and links alone."""
    return judged(lambda: counterfoil.verify(path, **pins))


def by_replay(path: Path, steps: str = "all") -> str | None:
    """Judges a run by executing steps of it again with its recipe, which is pinned as in the folder."""
    pin = counterfoil.Record(path).recipe_digest
    return judged(lambda: replay(path, steps, recipe=pin))
