"""What a worker has to lose so that faking pays nothing.

Two kinds of faults cost different things here. A step that a panel finds false costs the reward, and never the stake:
a panel can be wrong. A fault that a contract decides by itself costs both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from counterfoil.economy.agents import break_even
from counterfoil.economy.claim import Claim
from counterfoil.economy.parameters import Parameters

_SHARES = (0.01, 0.1, 0.25, 0.5, 1.0)
"""Of a job's steps, what a worker may fake; it takes what pays best."""


def gain(parameters: Parameters) -> int:
    """What a worker saves who fakes a whole job, in wei."""
    return parameters.steps * parameters.gain_per_step


def job_stake(parameters: Parameters) -> float:
    """The stake of a job at which a fault that a contract decides pays nothing.

    S + r = N g / p; below 0 where the reward alone is enough.
    """
    return gain(parameters) / parameters.inspection_probability - parameters.reward


def unit_stake(parameters: Parameters) -> float:
    """The stake of a unit at which faking it pays nothing, where a verdict may be wrong and slashes nevertheless.

    S = g / (p q) - r.
    """
    odds = parameters.inspection_probability * parameters.detection
    return gain(parameters) / parameters.units / odds - parameters.reward / parameters.units


def withheld_reward(parameters: Parameters) -> float:
    """The reward at which faking steps pays nothing, where a panel's verdict withholds it and slashes nothing.

    r = N g / (p q).
    """
    return gain(parameters) / (parameters.audit_probability * parameters.detection)


def audited_reward(parameters: Parameters) -> float:
    """The reward at which faking steps pays nothing without any stake, where every job is audited.

    r = N g / q; with a right verdict, what faking the job saves.
    """
    return gain(parameters) / parameters.detection


def _advantage(saved: float, caught: int, workers: int, reward: float, stake: float) -> float:
    """What cheats end with on average beyond honest workers, who do the work and are paid."""
    cheats = (workers - caught) * reward - caught * stake + workers * saved
    return cheats / workers - reward


def _simulate_job(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    caught = int(np.count_nonzero(random.random(draws) < parameters.inspection_probability))
    saved, reward = gain(parameters), parameters.reward
    # What is at stake may lie below the reward, so the search is for both together.
    return break_even(lambda lost: _advantage(saved, caught, draws, reward, lost - reward)) - reward


def _simulate_unit(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    looked_at = random.random(draws) < parameters.inspection_probability
    caught = int(np.count_nonzero(looked_at & (random.random(draws) < parameters.detection)))
    saved, reward = gain(parameters) / parameters.units, parameters.reward / parameters.units
    return break_even(lambda lost: _advantage(saved, caught, draws, reward, lost - reward)) - reward


def _share_breaks_even(
    parameters: Parameters, share: float, audit_probability: float, draws: int, random: np.random.Generator
) -> float:
    """The reward at which faking a share of the steps pays nothing, where sampled steps decide who is paid."""
    false = max(1, round(share * parameters.steps))
    audited = int(np.count_nonzero(random.random(draws) < audit_probability))
    seen = random.hypergeometric(false, parameters.steps - false, parameters.sampled_steps, audited) > 0
    refuted = int(np.count_nonzero(random.random(audited)[seen] < parameters.detection))
    saved = float(false * parameters.gain_per_step)
    return break_even(lambda reward: _advantage(saved, refuted, draws, reward, 0.0))


def _simulate_reward(
    parameters: Parameters, draws: int, random: np.random.Generator, audit_probability: float
) -> float:
    """Workers see which share of steps paid best for others, and fake as many themselves."""
    others = {
        share: _share_breaks_even(parameters, share, audit_probability, draws, random) for share in _SHARES
    }
    best = max(others, key=lambda share: others[share])
    return _share_breaks_even(parameters, best, audit_probability, draws, random)


def _simulate_withheld(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    return _simulate_reward(parameters, draws, random, parameters.audit_probability)


def _simulate_audited(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    return _simulate_reward(parameters, draws, random, 1.0)


def _claim(
    name: str,
    formula: str,
    expected: Callable[[Parameters], float],
    simulate: Callable[[Parameters, int, np.random.Generator], float],
    draws: int,
) -> Claim:
    return Claim(name, formula, expected, simulate, draws, money=True)


CLAIMS = (
    _claim(
        "stake-of-a-job",
        "N g / p - r: the stake at which a fault that a contract decides pays nothing",
        job_stake,
        _simulate_job,
        400_000,
    ),
    _claim(
        "stake-of-a-unit",
        "g / (p q) - r: the same for one unit, where a verdict is right with odds q",
        unit_stake,
        _simulate_unit,
        400_000,
    ),
    _claim(
        "reward-without-slashing",
        "N g / (p q): the reward at which false steps pay nothing, where a panel withholds it alone",
        withheld_reward,
        _simulate_withheld,
        100_000,
    ),
    _claim(
        "reward-with-every-job-audited",
        "N g / q: all or nothing, a sample of every job, and no stake",
        audited_reward,
        _simulate_audited,
        20_000,
    ),
)
