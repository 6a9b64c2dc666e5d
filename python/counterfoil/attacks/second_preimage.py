"""A prover shows an inner node of a Merkle tree as one of its leaves, and so a record that nobody committed to.

Defence: leaves and nodes are hashed with different first bytes, and a proof has the length that index and size demand.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from counterfoil import merkle
from counterfoil.attacks import plain_tree
from counterfoil.attacks.judging import judged

LAYER = "merkle.verify_inclusion"
_LEAVES = [b"alice", b"bob", b"carol", b"dave"]


@dataclass(frozen=True)
class Shown:
    """A leaf and its path to a root, in the plain tree and in ours: the same claim about the same records."""

    plain: tuple[bytes, int, list[bytes], bytes]
    ours: tuple[bytes, int, int, list[bytes], bytes]


def mount(folder: Path, *, honest: bool) -> Shown:
    """Four records; what is shown is the second one, or the node above the first two."""
    hashed = [plain_tree.node(leaf) for leaf in _LEAVES]
    right, known = plain_tree.node(*hashed[2:]), merkle.root(_LEAVES)
    proof = merkle.inclusion_proof(_LEAVES, 1)
    if honest:
        shown = (_LEAVES[1], 1, [hashed[0], right], plain_tree.root(_LEAVES))
        return Shown(shown, (_LEAVES[1], 1, len(_LEAVES), proof, known))
    beneath = b"".join(hashlib.sha256(b"\0" + leaf).digest() for leaf in _LEAVES[:2])
    shown = (b"".join(hashed[:2]), 0, [right], plain_tree.root(_LEAVES))
    return Shown(shown, (beneath, 0, 2, proof[1:], known))


def undefended(case: Shown) -> str | None:
    """A tree without domain separation."""
    return None if plain_tree.includes(*case.plain) else "the path leads to another root"


def defended(case: Shown) -> str | None:
    """RFC 9162."""
    return judged(lambda: merkle.verify_inclusion(*case.ours))
