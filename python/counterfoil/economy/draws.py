"""Draws by weight: their shares, many identities, and keys that are made after the beacon."""

from __future__ import annotations

import math

import numpy as np

from counterfoil.economy.claim import Bound, Claim
from counterfoil.economy.parameters import Parameters
from counterfoil.sortition import draw

WEIGHTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
_CRITICAL = 27.877
"""Chi-square with 9 degrees of freedom exceeds it once in a thousand times (NIST/SEMATECH, 1.3.6.7.4)."""

_SPLIT = 9
_IDENTITIES = 10
MEMBERS, SLOTS, KEYS = 41, 3, 10_000
"""Of equal weight with the late one, which are drawn for, and which the late one makes for itself."""


def _critical(_: Parameters) -> float:
    return _CRITICAL


def _same(_: Parameters) -> float:
    return 1.0


def live_share(_: Parameters) -> float:
    """The share of slots that go to the best of many keys, where a key changes what the beacon draws.

    The largest of K binomial numbers: the sum over j from 1 to L of 1 - P(fewer than j of L)^K, over L.
    """
    fair = 1 / MEMBERS
    below = np.cumsum(
        [math.comb(SLOTS, won) * fair**won * (1 - fair) ** (SLOTS - won) for won in range(SLOTS)]
    )
    return float((1 - below**KEYS).sum() / SLOTS)


def settled_share(_: Parameters) -> float:
    """The share of one among equal weights."""
    return 1 / MEMBERS


def _simulate_shares(_: Parameters, draws: int, random: np.random.Generator) -> float:
    beacon = random.bytes(32)
    seen = np.bincount([draw(beacon, slot, WEIGHTS) for slot in range(draws)], minlength=len(WEIGHTS))
    due = np.asarray(WEIGHTS) * draws / sum(WEIGHTS)
    return float(((seen - due) ** 2 / due).sum())


def _simulate_splitting(_: Parameters, draws: int, random: np.random.Generator) -> float:
    beacon = random.bytes(32)
    parts = [WEIGHTS[_SPLIT] // _IDENTITIES] * _IDENTITIES
    split = [*WEIGHTS[:_SPLIT], *parts, *WEIGHTS[_SPLIT + 1 :]]
    one = sum(draw(beacon, slot, WEIGHTS) == _SPLIT for slot in range(draws))
    many = sum(_SPLIT <= draw(beacon, slot, split) < _SPLIT + _IDENTITIES for slot in range(draws))
    return many / one


def _simulate_live(_: Parameters, draws: int, random: np.random.Generator) -> float:
    """In each epoch the late one draws with every key in private, and joins with the best."""
    won = 0
    for _epoch in range(draws):
        numbers = random.integers(MEMBERS, size=(KEYS, SLOTS), dtype=np.int8)
        won += int(np.count_nonzero(numbers == MEMBERS - 1, axis=1).max())
    return won / (draws * SLOTS)


def _simulate_settled(_: Parameters, draws: int, random: np.random.Generator) -> float:
    """The late one's keys stand behind the settled weights and have none; it wins with the one that it had."""
    sums = np.cumsum([1] * MEMBERS + [0] * KEYS)
    winners = sums.searchsorted(random.integers(MEMBERS, size=draws), side="right")
    return float((winners >= MEMBERS - 1).mean())


CLAIMS = (
    Claim(
        "sortition-shares",
        "chi-square of the draws of ten weights, 9 degrees of freedom: p > 0.001",
        _critical,
        _simulate_shares,
        draws=200_000,
        bound=Bound.AT_MOST,
    ),
    Claim(
        "sortition-splitting",
        "wins of ten identities over those of one with their weight, in the same draws",
        _same,
        _simulate_splitting,
        draws=50_000,
        bound=Bound.EQUAL,
    ),
    Claim(
        "late-join-with-live-weights",
        "largest of 10,000 binomials (3 slots, 1/41), over 3: slots of whoever joins by the beacon",
        live_share,
        _simulate_live,
        draws=150,
    ),
    Claim(
        "late-join-with-settled-weights",
        "1/41: the same 10,000 keys behind weights that were settled before the beacon",
        settled_share,
        _simulate_settled,
        draws=200_000,
    ),
)
