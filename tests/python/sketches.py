"""Section 17 of docs/format.md once more, in numpy and Python's integers, to compare the library with."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from oracle import sha256

MASK = 0xFFFF_FFFF


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10 of many counters at once, as columns of uint64 that hold 32 bits: (n, 4) to (n, 4)."""
    words = counter.astype(np.uint64)
    for number in range(10):
        keys = [np.uint64((key[i] + number * step) & MASK) for i, step in enumerate((0x9E3779B9, 0xBB67AE85))]
        first, second = words[:, 0] * np.uint64(0xD2511F53), words[:, 2] * np.uint64(0xCD9E8D57)
        high, low = np.uint64(32), np.uint64(MASK)
        columns = [second >> high ^ words[:, 1] ^ keys[0], second & low]
        columns += [first >> high ^ words[:, 3] ^ keys[1], first & low]
        words = np.stack(columns, axis=1)
    return words


def fixed(value: float) -> int:
    """q(x), by exact arithmetic."""
    if value != value:
        return -(2**63)
    if value in (float("inf"), float("-inf")):
        return 2**63 - 1 if value > 0 else -(2**63)
    return max(-(2**63), min(2**63 - 1, round(Fraction(value) * 2**48)))


def sketch_of(numbers: list[int], name: str, key: bytes) -> np.ndarray:
    """Adds fixed-point numbers, one by one, modulo 2^64."""
    seed = sha256(b"counterfoil.fingerprint.v1" + key + name.encode())
    keys = (int.from_bytes(seed[:4], "little"), int.from_bytes(seed[4:8], "little"))
    places = np.arange(-(-len(numbers) // 4), dtype=np.uint64)
    counters = np.zeros((places.size, 4), np.uint64)
    counters[:, 0], counters[:, 1] = places & np.uint64(MASK), places >> np.uint64(32)
    words = philox(counters, keys).reshape(-1)
    rows = [[0] * 64 for _ in range(4)]
    for number, word in zip(numbers, words.tolist(), strict=False):
        for row in range(4):
            byte = word >> 8 * row & 0xFF
            rows[row][byte & 63] += -number if byte & 0x80 else number
    wrapped = [[(total + 2**63) % 2**64 - 2**63 for total in row] for row in rows]
    return np.array(wrapped, np.int64)


def fingerprint(tensors: Mapping[str, np.ndarray], key: bytes) -> dict[str, np.ndarray]:
    """The sketches of numpy's float arrays of at least two bytes an element."""
    units: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        numbers = [fixed(value) for value in np.asarray(array).reshape(-1).tolist()]
        unit = f"tensor/{name}" if len(numbers) >= 4096 else "pool"
        # numpy's integers wrap as the format says.
        units[unit] = units.get(unit, np.zeros((4, 64), np.int64)) + sketch_of(numbers, name, key)
    return units
