"""A claim: a formula, a simulation that does not know it, and how near the two have to come."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from counterfoil.economy.parameters import Parameters

BATCHES = 16
"""Independent repetitions of a simulation, whose spread is its standard error."""

TOLERANCE = 0.02
_STEADY = 0.006
"""A standard error above this share of the formula is too coarse for the tolerance."""

_STUDENT = 4.073
"""Student's t with 15 degrees of freedom leaves 0.1 % outside (NIST/SEMATECH e-Handbook, 1.3.6.7.2)."""

_UNSEEN = 7
"""Of something that happens this often on average, nothing is seen once in a thousand times."""


class Bound(StrEnum):
    """How a simulation is held against its formula."""

    NEAR = "within 2 %"
    INTERVAL = "99.9 % interval"
    EQUAL = "equal"
    AT_MOST = "at most"


@dataclass(frozen=True)
class Claim:
    """A formula and the simulation of what it is about.

    Attributes:
        name: Of the claim, with hyphens.
        formula: In words.
        expected: The formula's value.
        simulate: Lets people act, `draws` times; returns what came of it.
        draws: Of a batch.
        bound: How the two are compared. `NEAR` becomes `INTERVAL` where parameters make the simulation too coarse.
        money: Whether the values are wei.
    """

    name: str
    formula: str
    expected: Callable[[Parameters], float]
    simulate: Callable[[Parameters, int, np.random.Generator], float]
    draws: int
    bound: Bound = Bound.NEAR
    money: bool = False


@dataclass(frozen=True)
class Comparison:
    """What a simulation says of a claim.

    Attributes:
        name: The claim's.
        formula: In words.
        expected: The formula's value.
        simulated: The simulation's.
        standard_error: Of the simulation; 0 where nothing is left to chance.
        draws: Of all batches.
        bound: What was asked of the difference.
        holds: Whether it was met.
        money: Whether the values are wei.
    """

    name: str
    formula: str
    expected: float
    simulated: float
    standard_error: float
    draws: int
    bound: Bound
    holds: bool
    money: bool

    @property
    def difference(self) -> float:
        """Of the simulation, as a share of the formula; not a number where the formula gives 0."""
        return (self.simulated - self.expected) / abs(self.expected) if self.expected else math.nan


def compare(claim: Claim, parameters: Parameters, seed: int) -> Comparison:
    """Simulates a claim and holds the outcome against the formula.

    Args:
        claim: What is claimed.
        parameters: The deployment for which it is.
        seed: Of the random numbers; each claim makes its own of it, whatever else is simulated.
    """
    random = np.random.default_rng([seed, zlib.crc32(claim.name.encode())])
    chance = claim.bound is Bound.NEAR
    batches = [
        claim.simulate(parameters, claim.draws, each) for each in random.spawn(BATCHES if chance else 1)
    ]
    simulated = float(np.mean(batches))
    error = float(np.std(batches, ddof=1) / math.sqrt(BATCHES)) if chance else 0.0
    expected, draws = float(claim.expected(parameters)), claim.draws * len(batches)
    bound = claim.bound
    if chance and (error > _STEADY * abs(expected) or simulated == 0):
        bound = Bound.INTERVAL
    apart = abs(simulated - expected)
    holds = {
        Bound.NEAR: apart <= TOLERANCE * abs(expected),
        Bound.INTERVAL: apart <= _STUDENT * error + (_UNSEEN / draws if simulated == 0 else 0),
        Bound.EQUAL: simulated == expected,
        Bound.AT_MOST: simulated <= expected,
    }[bound]
    return Comparison(claim.name, claim.formula, expected, simulated, error, draws, bound, holds, claim.money)
