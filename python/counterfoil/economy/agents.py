"""What the people of several simulations do alike."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from counterfoil.errors import InvalidInput

_HALVINGS = 50
_WITHOUT_END = 2.0**200
"""Wei that nobody has."""


def distinct(random: np.random.Generator, population: int, size: int, count: int) -> npt.NDArray[np.integer]:
    """Draws sets of distinct numbers, as a contract does: a number that was drawn already is drawn again.

    Args:
        random: Where numbers come from.
        population: Numbers are below it.
        size: Of a set.
        count: Of sets.

    Returns:
        An ascending row for each set, shape (count, size).
    """
    kind = np.int16 if population < 1 << 15 else np.int64
    drawn = np.sort(random.integers(population, size=(count, size), dtype=kind))
    unfinished = np.arange(count)
    while True:
        rows = drawn[unfinished]
        twice = rows[:, 1:] == rows[:, :-1]
        some = twice.any(axis=1)
        if not some.any():
            return drawn
        unfinished, rows, twice = unfinished[some], rows[some], twice[some]
        rows[:, 1:][twice] = random.integers(population, size=np.count_nonzero(twice), dtype=kind)
        drawn[unfinished] = np.sort(rows)


def break_even(profit: Callable[[float], float], limit: float | None = None) -> float:
    """The setting at which a profit that falls with it is gone, found by trying settings.

    Args:
        profit: Of somebody who lives with a setting; the same people each time.
        limit: The largest setting there is; by default there is none.

    Raises:
        InvalidInput: Everybody profits however large it is: nobody was caught, of as many as are simulated.
    """
    high = 1.0 if limit is None else limit
    while limit is None and profit(high) > 0:
        high *= 2
        if high > _WITHOUT_END:
            raise InvalidInput("nobody is caught in the simulation: the odds are too small to be simulated")
    low = 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if profit(middle) > 0:
            low = middle
        else:
            high = middle
    return high
