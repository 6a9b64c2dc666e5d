"""Who is drawn by a beacon, each by a weight; a contract draws the same.

A draw is as fair as its weights are old: they have to be settled before anybody knows the beacon.

Example:
    >>> draw(bytes(32), 0, [0, 5, 0])
    1

Source:
    docs/economy.md, section "Sortition".
"""

from __future__ import annotations

from collections.abc import Sequence

from counterfoil import _native
from counterfoil.errors import InvalidInput

__all__ = ["draw"]


def draw(beacon: bytes, slot: int, weights: Sequence[int]) -> int:
    """The position that a beacon draws for a slot, each as likely as its share of the weights.

    Args:
        beacon: 32 bytes that nobody knew when the weights were settled.
        slot: What is drawn for, from 0 to 2^64 - 1.
        weights: Of each position, from 0 and together below 2^128; a weight of 0 is never drawn.

    Raises:
        InvalidInput: The beacon has not 32 bytes, a number is out of its range, or all weights are 0.
    """
    if not 0 <= slot < 1 << 64:
        raise InvalidInput(
            f"a slot is a number from 0 to 2^64 - 1, found {slot}",
            expected="0 to 2^64 - 1",
            actual=str(slot),
            where="slot",
        )
    for position, weight in enumerate(weights):
        if not 0 <= weight < 1 << 128:
            raise InvalidInput(
                f"a weight is a number from 0 to 2^128 - 1, found {weight}",
                expected="0 to 2^128 - 1",
                actual=str(weight),
                where=f"weights[{position}]",
            )
    return _native.sortition_draw(beacon, slot, weights)
