"""Whoever makes the block that draws, and withholds it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from counterfoil.economy.claim import Claim
from counterfoil.economy.parameters import Parameters


def biased(parameters: Parameters) -> float:
    """The odds of being drawn, for whoever makes a share of the blocks and withholds unkind ones.

    V(m) = p + a (1 - p) V(m - 1) with V(0) = p, so p (1 - x^(m + 1)) / (1 - x) with x = a (1 - p): at most
    p / (1 - x), however many are withheld.
    """
    fair = parameters.drawn_share
    again = parameters.proposer_share * (1 - fair)
    return fair * sum(again**withheld for withheld in range(parameters.withheld_blocks + 1))


def biased_once(parameters: Parameters) -> float:
    """The same for one block: p + a p (1 - p)."""
    return biased(replace(parameters, withheld_blocks=1))


def biased_by_choice(parameters: Parameters) -> float:
    """The odds where the attacker names the first block and so one of its own: p + (1 - p) V(m - 1)."""
    fair, withheld = parameters.drawn_share, parameters.withheld_blocks
    if withheld == 0:
        return fair
    return fair + (1 - fair) * biased(replace(parameters, withheld_blocks=withheld - 1))


def bias(parameters: Parameters) -> str:
    """What withholding is worth, in words: it is bounded and not removed."""
    return (
        f"whoever makes {parameters.proposer_share:g} of the blocks is drawn with odds {biased(parameters):.3g} "
        f"instead of {parameters.drawn_share:g} where it withholds up to {parameters.withheld_blocks} in a row, and with "
        f"{biased_by_choice(parameters):.3g} where it can name a block of its own"
    )


def _simulate(parameters: Parameters, draws: int, random: np.random.Generator, chosen: bool = False) -> float:
    won = 0
    waiting, left = draws, parameters.withheld_blocks
    while waiting:
        own = chosen | (random.random(waiting) < parameters.proposer_share)
        kind = random.random(waiting) < parameters.drawn_share
        won += int(np.count_nonzero(kind))
        waiting = int(np.count_nonzero(own & ~kind)) if left else 0
        left -= 1
        chosen = False
    return won / draws


def _simulate_choice(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    return _simulate(parameters, draws, random, chosen=True)


def _simulate_once(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    return _simulate(replace(parameters, withheld_blocks=1), draws, random)


CLAIMS = (
    Claim(
        "beacon-of-one-block",
        "p + a p (1 - p): odds of being drawn, withholding one unkind block",
        biased_once,
        _simulate_once,
        draws=200_000,
    ),
    Claim(
        "beacon-of-blocks-in-a-row",
        "p (1 - x^(m + 1)) / (1 - x), x = a (1 - p): withholding up to m in a row",
        biased,
        _simulate,
        draws=200_000,
    ),
    Claim(
        "beacon-of-a-block-of-ones-choice",
        "p + (1 - p) V(m - 1): the same where the attacker names the first block, one of its own",
        biased_by_choice,
        _simulate_choice,
        draws=200_000,
    ),
)
