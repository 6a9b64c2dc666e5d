"""Paid training: jobs, bids, challenges and payment, on the contracts of `contracts/src/market`.

What the chain decides, what people decide and what nobody can: docs/economy.md.
"""

from counterfoil.market.agents import Challenger, Verifier, Worker
from counterfoil.market.client import Job, Market, Parameters, State
from counterfoil.market.explain import why
from counterfoil.market.faults import find
from counterfoil.market.terms import Terms, pin

__all__ = [
    "Challenger",
    "Job",
    "Market",
    "Parameters",
    "State",
    "Terms",
    "Verifier",
    "Worker",
    "find",
    "pin",
    "why",
]
