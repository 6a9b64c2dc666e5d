"""A prover shows another tensor that lies in memory as the same bytes as the one that was committed to.

Defence: elements are hashed in logical order and one byte order, with name, dtype and shape.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from counterfoil.attacks.encodings import Offer, Tensors, another_layout, by_commitment

LAYER = "commit_tensors"
defended = by_commitment


def mount(folder: Path, *, honest: bool) -> Offer:
    """A weight, and versions whose memory holds the same bytes."""
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    if honest:
        return Offer({"w": weight}, {"the layout": {"w": another_layout(weight)}})
    versions: dict[str, Tensors] = {
        "strides": {"w": weight.T},
        "byte order": {"w": weight.view(">f4")},
        "shape": {"w": weight.reshape(3, 2)},
        "dtype": {"w": weight.view(np.int32)},
        "name": {"v": weight},
    }
    return Offer({"w": weight}, versions)


def undefended(case: Offer) -> str | None:
    """Hashes the memory of each tensor, as a checksum of a buffer does."""
    expected = [_memory(each) for each in case.committed.values()]
    for name, version in case.versions.items():
        if [_memory(each) for each in version.values()] != expected:
            return f"other bytes where {name} is another"
    return None


def _memory(tensor: npt.NDArray[Any]) -> str:
    while isinstance(tensor.base, np.ndarray):
        tensor = tensor.base
    return hashlib.sha256(tensor.tobytes()).hexdigest()
