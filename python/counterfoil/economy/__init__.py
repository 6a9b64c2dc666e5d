"""The market's formulas, each held against a simulation, and what a deployment's parameters have to meet.

Amounts are wei, which are units of account here. A simulation lets people act and counts what comes of it; the formula
is known to the comparison alone.

Source:
    docs/economy.md, section "What the formulas say".
"""

from __future__ import annotations

from collections.abc import Iterator

from counterfoil.economy import audits, beacons, draws, flooding, stakes, verifiers, work
from counterfoil.economy.claim import Bound, Claim, Comparison, compare
from counterfoil.economy.conditions import Condition, conditions
from counterfoil.economy.parameters import Parameters

__all__ = [
    "CLAIMS",
    "Bound",
    "Claim",
    "Comparison",
    "Condition",
    "Parameters",
    "compare",
    "conditions",
    "simulate",
]

CLAIMS: tuple[Claim, ...] = (
    *audits.CLAIMS,
    *stakes.CLAIMS,
    *verifiers.CLAIMS,
    *work.CLAIMS,
    *draws.CLAIMS,
    *beacons.CLAIMS,
    *flooding.CLAIMS,
)


def simulate(parameters: Parameters, seed: int) -> Iterator[Comparison]:
    """Simulates every claim for a deployment, one after the other.

    Args:
        parameters: Of the deployment.
        seed: Of the random numbers, from 0.
    """
    for claim in CLAIMS:
        yield compare(claim, parameters, seed)
