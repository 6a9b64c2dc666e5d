"""A prover shows a list whose last record stands there twice, under the root of the list that was signed.

Defence: an odd node is not paired with itself, and no root travels without the number of its leaves.
"""

from __future__ import annotations

from pathlib import Path

import counterfoil
from counterfoil.attacks import plain_tree

LAYER = "commit_bytes"
_CHUNK = 1024


def mount(folder: Path, *, honest: bool) -> tuple[bytes, bytes]:
    """Three kilobytes that were committed to, and what is shown for them."""
    committed = b"".join(bytes([value]) * _CHUNK for value in range(3))
    return committed, committed if honest else committed + committed[-_CHUNK:]


def undefended(case: tuple[bytes, bytes]) -> str | None:
    """Compares the roots of a tree that pairs an odd node with itself."""
    committed, shown = (plain_tree.root(_chunks(data)) for data in case)
    return None if committed == shown else f"another root: {shown.hex()}"


def defended(case: tuple[bytes, bytes]) -> str | None:
    """Compares what is signed of both."""
    committed, shown = (counterfoil.commit_bytes(data).digest() for data in case)
    return None if committed == shown else f"another digest: {shown.hex()}"


def _chunks(data: bytes) -> list[bytes]:
    return [data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)]
