"""0G storage: the root under which a file is known there, and proofs of its segments.

0G storage cuts a file into chunks of 256 bytes and segments of 1,024 chunks; the tree over the chunks
has Keccak-256 hashes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from counterfoil import _native
from counterfoil._native import StorageRoot
from counterfoil.commit import Progress, _flat, _offset

__all__ = ["StorageRoot", "root", "verify_segment"]


def root(
    data: bytes | bytearray | memoryview | npt.NDArray[Any] | str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> StorageRoot:
    """The root of bytes, or of the file at a path.

    Args:
        data: Anything that exposes contiguous bytes; a str or a path names a file.
        progress: As for `counterfoil.commit_bytes`.

    Returns:
        The root, which does not bind the length: keep both. `.nodes` are the full subtrees that are
        submitted on chain, `(root, height)`, the largest first; `.segment_proof(i)` is the proof
        of segment i, as storage nodes exchange it.

    Raises:
        InvalidInput: There are no bytes; 0G takes no empty file.
        NotFound: There is no such file.

    Example:
        >>> root(bytes(range(256))).length
        256

    Source:
        docs/format.md, section 11; 0G's own clients.
    """
    if isinstance(data, str | os.PathLike):
        return _native.storage_root_of_file(os.fspath(data), progress)
    return _native.storage_root(_flat(data), progress)


def verify_segment(
    segment: bytes, index: int, lemma: Sequence[bytes], path: Sequence[bool], root: bytes, length: int
) -> None:
    """Checks 262,144 bytes of a file, or the fewer at its end, against its root and length.

    Args:
        segment: The file's bytes from 262,144 x index on.
        index: Position of the segment.
        lemma: Hashes from the segment's root over the siblings to the file's root.
        path: For each sibling whether it stands on the right.
        root: The file's root, 32 bytes.
        length: The file's length, bytes.

    Raises:
        ProofError: They do not belong together.
        InvalidInput: A hash has not 32 bytes, or a number is no size.
    """
    index, length = _offset(index, "the index"), _offset(length, "the length")
    _native.verify_storage_segment(segment, index, list(lemma), list(path), root, length)
