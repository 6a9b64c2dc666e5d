"""Fingerprints: 2 KiB a tensor that tell how far it lies from one that somebody else computed.

A verifier on other hardware computes a gradient that differs in its last bits. What the distance may be is
for the verifier to say; what it is can be estimated from two fingerprints, without the recorded bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from counterfoil import _native
from counterfoil.commit import items
from counterfoil.errors import InvalidInput

Sketches = dict[str, npt.NDArray[np.int64]]

SHAPE = (4, 64)
_UNIT = 2.0**-48


def fingerprint(tensors: Mapping[str, Any], key: bytes) -> Sketches:
    """Sketches named tensors, on all cores. Order and devices do not matter.

    Args:
        tensors: As for `counterfoil.commit_tensors`; of float16, bfloat16, float32 or float64, whole, or
            None or an `Alias`, which add nothing.
        key: 32 bytes, which whoever chose the tensors did not know.

    Returns:
        An array of shape (4, 64), in units of 2^-48, for each `tensor/NAME` of 4,096 elements or more, and
        one for `pool`, all smaller ones together.

    Raises:
        UnsupportedDtype: A tensor is of another dtype; `.where` names it.
        InvalidInput: The key is not of 32 bytes, or a tensor is in parts.

    Example:
        >>> sketch = fingerprint({"w": np.ones(5000, np.float32), "b": np.zeros(3)}, bytes(32))
        >>> sorted(sketch), sketch["pool"].shape
        (['pool', 'tensor/w'], (4, 64))

    Source:
        docs/format.md, section 17.
    """
    return _native.fingerprint_tensors(dict(items(tensors)), key)


def distance(
    ours: Mapping[str, npt.NDArray[np.int64]], theirs: Mapping[str, npt.NDArray[np.int64]]
) -> dict[str, float]:
    """Estimates for each unit how far the two tensors lie apart.

    Args:
        ours: What `fingerprint` returned.
        theirs: Another one, of tensors with the same names and sizes and under the same key.

    Returns:
        For each unit an estimate of the Euclidean norm of the difference, in the tensors' own unit. Of the
        four rows the one that says most counts, since a difference must hide in each of them.

    Raises:
        InvalidInput: They do not have the same units, or an array is no sketch; `.where` names it.

    Example:
        >>> one, other = (fingerprint({"w": np.array(value)}, bytes(32)) for value in (1.5, 1.25))
        >>> distance(one, other)
        {'pool': 0.25}

    Source:
        docs/format.md, section 17; Charikar, Chen and Farach-Colton, "Finding frequent items in data
        streams" (ICALP 2002).
    """
    alone = sorted(ours.keys() ^ theirs.keys())
    if alone:
        raise InvalidInput(
            f"the fingerprints are of other tensors: only one of them has {alone[0]}",
            expected=" ".join(sorted(ours)),
            actual=" ".join(sorted(theirs)),
            where=alone[0],
        )
    return {unit: _apart(unit, ours[unit], theirs[unit]) for unit in ours}


def _apart(unit: str, ours: npt.NDArray[np.int64], theirs: npt.NDArray[np.int64]) -> float:
    for sketch in (ours, theirs):
        if sketch.shape != SHAPE or sketch.dtype != np.int64:
            raise InvalidInput(
                f"{unit} is no sketch",
                expected=f"int64 {SHAPE}",
                actual=f"{sketch.dtype} {sketch.shape}",
                where=unit,
            )
    # Modulo 2^64, as the sums themselves are.
    apart = (ours - theirs).astype(np.float64)
    return float(np.sqrt((apart * apart).sum(axis=1).max()) * _UNIT)
