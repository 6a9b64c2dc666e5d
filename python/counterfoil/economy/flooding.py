"""Disputes without a reason, to cost others time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from counterfoil.economy.claim import Bound, Claim
from counterfoil.economy.parameters import Parameters


@dataclass
class _Job:
    """A job whose disputes are judged one after the other, each for twice the bond of the one before."""

    price: int
    places: int
    forfeited: int = 0

    def dispute(self, reason: bool) -> int:
        """Locks a bond and judges; returns what the challenger is without in the end."""
        bond = self.price
        self.price *= 2
        self.places -= 1
        self.forfeited += 0 if reason else bond
        return 0 if reason else bond


def flooding_cost(parameters: Parameters) -> float:
    """What it costs to fill a job's disputes without a reason: bond (2^n - 1), in wei."""
    return float(parameters.bond * (2**parameters.disputes - 1))


def locked_bond(parameters: Parameters) -> float:
    """What an honest challenger has to lock for a while who finds one place left: bond 2^(n - 1), in wei."""
    return float(parameters.bond * 2 ** (parameters.disputes - 1)) if parameters.disputes else 0.0


def _simulate_flooding(parameters: Parameters, _draws: int, _random: np.random.Generator) -> float:
    job = _Job(parameters.bond, parameters.disputes)
    lost = 0
    while job.places:
        lost += job.dispute(reason=False)
    return float(lost)


def _simulate_locked(parameters: Parameters, _draws: int, random: np.random.Generator) -> float:
    """The griefer leaves the last place to an honest challenger, who locks the price and gets it back."""
    job = _Job(parameters.bond, parameters.disputes)
    while job.places > 1:
        job.dispute(reason=False)
    locked = job.price if job.places else 0
    lost = job.dispute(reason=True) if job.places else 0
    return float(locked + lost)


CLAIMS = (
    Claim(
        "flooding",
        "bond (2^n - 1): cost of n disputes without a reason",
        flooding_cost,
        _simulate_flooding,
        draws=1,
        bound=Bound.EQUAL,
        money=True,
    ),
    Claim(
        "flooding-before-an-honest-dispute",
        "bond 2^(n - 1): what the n-th challenger locks, and gets back when right",
        locked_bond,
        _simulate_locked,
        draws=1,
        bound=Bound.EQUAL,
        money=True,
    ),
)
