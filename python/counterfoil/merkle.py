"""RFC 9162 Merkle trees over byte strings: roots, inclusion proofs, consistency proofs.

A proof means nothing without the size of its tree, so every verifier takes index or sizes and
refuses a proof whose length is not exactly the one they determine.

Example:
    >>> leaves = [b"a", b"b", b"c"]
    >>> verify_inclusion(b"b", 1, 3, inclusion_proof(leaves, 1), root(leaves))

Source:
    RFC 9162, section 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from counterfoil import _native

__all__ = ["consistency_proof", "inclusion_proof", "root", "verify_consistency", "verify_inclusion"]


def root(leaves: Sequence[bytes]) -> bytes:
    """The 32-byte root over these leaves; `SHA-256("")` for none."""
    return _native.merkle_root(list(leaves))


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The 32-byte siblings from leaf `index` up to the root.

    Raises:
        ProofError: `index` is not below the number of leaves.
    """
    return _native.inclusion_proof(list(leaves), index)


def consistency_proof(leaves: Sequence[bytes], m: int) -> list[bytes]:
    """The 32-byte hashes that show the first `m` leaves to be a prefix of all of them.

    Raises:
        ProofError: Unless 0 < m <= number of leaves.
    """
    return _native.consistency_proof(list(leaves), m)


def verify_inclusion(
    leaf: bytes,
    index: int,
    size: int,
    proof: Sequence[bytes],
    root: bytes,
    *,
    hashed: bool = False,
) -> None:
    """Checks that `leaf` stands at `index` in the tree of `size` leaves with this root.

    Args:
        leaf: The leaf's bytes; with `hashed`, its 32-byte leaf hash.
        index: Position of the leaf, from 0.
        size: Number of leaves of the tree.
        proof: Siblings from the leaf up, 32 bytes each.
        root: The tree's root, 32 bytes.
        hashed: Whether `leaf` is a leaf hash, as test vectors of transparency logs give it.

    Raises:
        ProofError: The proof does not show it.
        InvalidInput: A hash does not have 32 bytes.
    """
    _native.verify_inclusion(leaf, index, size, list(proof), root, hashed)


def verify_consistency(m: int, n: int, proof: Sequence[bytes], root_m: bytes, root_n: bytes) -> None:
    """Checks that the tree of `m` leaves with `root_m` is a prefix of the tree of `n` leaves.

    Raises:
        ProofError: The proof does not show it, or not 0 < m <= n.
        InvalidInput: A hash does not have 32 bytes.
    """
    _native.verify_consistency(m, n, list(proof), root_m, root_n)
