"""Verifiers who do not look, and panels that an attacker holds."""

from __future__ import annotations

import math

import numpy as np

from counterfoil.economy.agents import break_even, distinct
from counterfoil.economy.claim import Claim
from counterfoil.economy.parameters import Parameters


def canary_share(parameters: Parameters) -> float:
    """The share of planted games at which agreeing with everything earns what looking earns.

    e = c_v / S_v, where S_v is what a wrong vote forfeits: the fee of that game. 1 where no share is enough.
    """
    return min(1.0, parameters.verifier_cost / parameters.verifier_fee)


def bad_majority(seats: int, adversarial: int, panel: int) -> float:
    """The odds that more than half of a panel of distinct seats are the attacker's (hypergeometric)."""
    ways = (
        math.comb(adversarial, bad) * math.comb(seats - adversarial, panel - bad)
        for bad in range(panel // 2 + 1, panel + 1)
    )
    return sum(ways) / math.comb(seats, panel)


def no_honest_member(seats: int, adversarial: int, panel: int) -> float:
    """The odds that all of a panel of distinct seats are the attacker's (hypergeometric)."""
    return math.comb(adversarial, panel) / math.comb(seats, panel)


def first_majority(parameters: Parameters) -> float:
    """The odds that the first panel has a bad majority."""
    return bad_majority(parameters.seats, parameters.adversarial_seats, parameters.panel)


def appeal_majority(parameters: Parameters) -> float:
    """The odds that the panel whose verdict is final has a bad majority."""
    return bad_majority(parameters.seats, parameters.adversarial_seats, parameters.appeal_panel)


def first_without_honest(parameters: Parameters) -> float:
    """The odds that the first panel has no honest member."""
    return no_honest_member(parameters.seats, parameters.adversarial_seats, parameters.panel)


def _simulate_canaries(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    luck = random.random(draws)

    def lazy_profit(share: float) -> float:
        planted = int(np.count_nonzero(luck < share))
        looking = draws * (parameters.verifier_fee - parameters.verifier_cost)
        return (draws - planted) * parameters.verifier_fee - looking

    return break_even(lazy_profit, limit=1.0)


def _simulate_majority(parameters: Parameters, panel: int, draws: int, random: np.random.Generator) -> float:
    panels = distinct(random, parameters.seats, panel, draws)
    bad = np.count_nonzero(panels < parameters.adversarial_seats, axis=1)
    return float((2 * bad > panel).mean())


def _simulate_first(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    return _simulate_majority(parameters, parameters.panel, draws, random)


def _simulate_appeal(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    return _simulate_majority(parameters, parameters.appeal_panel, draws, random)


def _simulate_no_honest(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    """Panels are drawn member by member; those with an honest one are put away, and copies of the others go on.

    So odds of a millionth are seen without a billion panels: they are the product of the shares that stay.
    """
    panels = np.empty((draws, 0), dtype=np.int64)
    odds = 1.0
    for _ in range(parameters.panel):
        seat = random.integers(parameters.seats, size=draws)
        while (again := (panels == seat[:, None]).any(axis=1)).any():
            seat[again] = random.integers(parameters.seats, size=np.count_nonzero(again))
        bad = seat < parameters.adversarial_seats
        odds *= float(bad.mean())
        if odds == 0:
            break
        stay = np.column_stack([panels[bad], seat[bad]])
        panels = stay[random.integers(len(stay), size=draws)]
    return odds


CLAIMS = (
    Claim(
        "canaries",
        "c_v / S_v: the share of planted games at which looking earns what not looking earns",
        canary_share,
        _simulate_canaries,
        draws=200_000,
    ),
    Claim(
        "panel-with-a-bad-majority",
        "hypergeometric: k distinct seats, more than half the attacker's",
        first_majority,
        _simulate_first,
        draws=60_000,
    ),
    Claim(
        "panel-without-an-honest-member",
        "C(bad, k) / C(seats, k): all k distinct seats are the attacker's",
        first_without_honest,
        _simulate_no_honest,
        draws=120_000,
    ),
    Claim(
        "appeal-with-a-bad-majority",
        "hypergeometric: the same for the panel whose verdict is final",
        appeal_majority,
        _simulate_appeal,
        draws=200_000,
    ),
)
