"""What a sample of steps misses."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from counterfoil.economy.agents import distinct
from counterfoil.economy.claim import Claim
from counterfoil.economy.parameters import Parameters


def missed(parameters: Parameters) -> float:
    """The odds that none of the false steps is among the sampled ones, which are distinct."""
    honest = parameters.steps - parameters.false_steps
    return math.comb(honest, parameters.sampled_steps) / math.comb(parameters.steps, parameters.sampled_steps)


def missed_in_tries(parameters: Parameters) -> float:
    """The odds that one of several samples misses, for a cheat who may sign anew until one does."""
    return 1 - (1 - missed(parameters)) ** parameters.tries


def samples_needed(parameters: Parameters) -> float:
    """The fewest samples that miss a share of false steps with no more than the given odds.

    Source:
        (1 - share)^k <= odds, for many more steps than samples.
    """
    share = parameters.false_steps / parameters.steps
    if share == 1 or parameters.missed_odds == 1:
        return float(parameters.missed_odds < 1)
    return float(math.ceil(math.log(parameters.missed_odds) / math.log1p(-share)))


def _kind(parameters: Parameters, count: int, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Cheats fake a span of steps somewhere, auditors draw samples: whose sample misses the span."""
    first = random.integers(parameters.steps, size=(count, 1))
    sample = distinct(random, parameters.steps, parameters.sampled_steps, count)
    false = (sample - first) % parameters.steps < parameters.false_steps
    unseen: npt.NDArray[np.bool_] = np.count_nonzero(false, axis=1) == 0
    return unseen


def _simulate_missed(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    return float(_kind(parameters, draws, random).mean())


def _simulate_tries(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    waiting = draws
    for _ in range(parameters.tries):
        waiting -= int(_kind(parameters, waiting, random).sum())
    return 1 - waiting / draws


def _simulate_samples(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    """Auditors draw step after step; whoever finds a false one stops, the others go on.

    Odds such as 2^-20 are seen without millions of auditors: when half of them have stopped, those who are left stand
    for twice as many, who go on from where these are.
    """
    share = parameters.false_steps / parameters.steps
    left, reached, samples = draws, 1.0, 0
    while reached * left / draws > parameters.missed_odds:
        samples += 1
        left -= int(np.count_nonzero(random.random(left) < share))
        if left == 0:
            break
        if 2 * left <= draws:
            reached *= left / draws
            left = draws
    return float(samples)


CLAIMS = (
    Claim(
        "audit-missed",
        "C(n - bad, k) / C(n, k): k sampled of n steps miss the bad ones",
        missed,
        _simulate_missed,
        draws=20_000,
    ),
    Claim(
        "audit-missed-in-tries",
        "1 - (1 - missed)^t: one of t samples misses them",
        missed_in_tries,
        _simulate_tries,
        draws=10_000,
    ),
    Claim(
        "audit-samples",
        "ln(odds) / ln(1 - bad/n), rounded up: samples that miss with no more than the odds",
        samples_needed,
        _simulate_samples,
        draws=8_000,
    ),
)
