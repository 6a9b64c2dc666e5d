"""A prover shows numbers that compare as equal to those that were committed to, and have other bits.

Defence: the raw bits are hashed, so that -0 is not 0 and one NaN is not another.
"""

from pathlib import Path

import numpy as np

from counterfoil.attacks.encodings import Offer, another_layout, by_commitment

LAYER = "commit_tensors"
_NAN, _OTHER_NAN = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)

defended = by_commitment


def mount(folder: Path, *, honest: bool) -> Offer:
    """A weight with a zero and a NaN, and versions with other bits in one of them."""
    weight = np.array([[0, 1], [2, _NAN]], np.float32)
    if honest:
        return Offer({"w": weight}, {"the layout": {"w": another_layout(weight)}})
    negative, payload = weight.copy(), weight.copy()
    negative[0, 0] = -0.0
    payload[1, 1:] = _OTHER_NAN
    return Offer({"w": weight}, {"the sign of a zero": {"w": negative}, "the bits of a NaN": {"w": payload}})


def undefended(case: Offer) -> str | None:
    """Compares values, as tests of arrays do."""
    for name, version in case.versions.items():
        if not np.array_equal(version["w"], case.committed["w"], equal_nan=True):
            return f"other values where {name} is another"
    return None
