"""Bytes at which hashing code goes wrong: particular lengths, alignments, and borders of pages."""

import ctypes
import mmap
import random
from dataclasses import dataclass

import numpy as np

import oracle
from oracle import CHUNK

# Around one block of padding (55), one block (64), two blocks of padding (119), and whole chunks.
EDGES = [0, 1, 2, 31, 32, 33, 54, 55, 56, 57, 63, 64, 65, 118, 119, 120, 127, 128, 129]
EDGES += [chunks * CHUNK + more for chunks in (1, 2, 3, 8, 15, 16, 17, 31, 32, 33) for more in (-1, 0, 1)]
POOL = np.frombuffer(random.Random(1).randbytes(400 * CHUNK), np.uint8)
PAGE = mmap.PAGESIZE
PAGES = 40


def root_of(data: np.ndarray) -> bytes:
    return oracle.root(oracle.chunks(data.tobytes()))


@dataclass(frozen=True)
class Case:
    """Bytes of the pool at any alignment, and what hashlib makes of them."""

    data: np.ndarray
    root: bytes

    @staticmethod
    def cut(chosen: random.Random, size: int) -> "Case":
        start = chosen.randrange(POOL.size - size + 1)
        data = POOL[start : start + size]
        return Case(data, root_of(data))


def cases() -> list[Case]:
    """All edges often, everything up to 20 chunks, and some of hundreds of chunks."""
    chosen = random.Random(2)
    sizes = EDGES * 40 + [chosen.randrange(200) for _ in range(1000)]
    sizes += [chosen.randrange(20 * CHUNK) for _ in range(2500)]
    sizes += [max(0, chosen.randrange(80) * CHUNK + chosen.randint(-1, 1)) for _ in range(400)]
    sizes += [chosen.randrange(390 * CHUNK) for _ in range(100)]
    assert len(sizes) > 5000
    return [Case.cut(chosen, size) for size in sizes]


class Guarded:
    """Some pages of random bytes; the pages before and behind them cannot be touched."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, (PAGES + 2) * PAGE)
        whole = np.frombuffer(self.memory, np.uint8)
        self.inside = whole[PAGE:-PAGE]
        self.inside[:] = POOL[: self.inside.size]
        libc = ctypes.CDLL(None, use_errno=True)
        for at in (0, (PAGES + 1) * PAGE):
            address = ctypes.c_void_p(whole.ctypes.data + at)
            if libc.mprotect(address, ctypes.c_size_t(PAGE), 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")

    def first(self, size: int) -> np.ndarray:
        """Bytes directly behind the lower forbidden page."""
        return self.inside[:size]

    def last(self, size: int) -> np.ndarray:
        """Bytes directly before the upper forbidden page."""
        return self.inside[self.inside.size - size :]


def bordering(guarded: Guarded) -> list[Case]:
    """Runs of bytes that begin behind a forbidden page, or end before one."""
    chosen = random.Random(3)
    sizes = EDGES + [PAGE + more for more in (-1, 0, 1)] + [guarded.inside.size]
    sizes += [chosen.randrange(6 * CHUNK) for _ in range(200)]
    sizes += [chosen.randrange(guarded.inside.size) for _ in range(50)]
    return [Case(data, root_of(data)) for n in sizes for data in (guarded.first(n), guarded.last(n))]
