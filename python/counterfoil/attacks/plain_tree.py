"""A Merkle tree as many tools have it: leaves and nodes are hashed alike, and an odd last node is paired with itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def node(*parts: bytes) -> bytes:
    """The hash of a leaf, or of two nodes."""
    return hashlib.sha256(b"".join(parts)).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The 32-byte root over at least one leaf."""
    level = [node(leaf) for leaf in leaves]
    while len(level) > 1:
        level += level[-1:] * (len(level) % 2)
        level = [node(*level[at : at + 2]) for at in range(0, len(level), 2)]
    return level[0]


def includes(leaf: bytes, index: int, proof: Sequence[bytes], known: bytes) -> bool:
    """Whether a path of siblings leads from this leaf to a known root."""
    found = node(leaf)
    for sibling in proof:
        found = node(sibling, found) if index % 2 else node(found, sibling)
        index //= 2
    return found == known
