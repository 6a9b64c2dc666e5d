"""Work that is ordered from oneself, for the issuance."""

from __future__ import annotations

import numpy as np

from counterfoil.economy.claim import Claim
from counterfoil.economy.parameters import Parameters


def returned(parameters: Parameters) -> float:
    """What an attacker gets back for each coin that it burns on its own jobs, on average.

    u/(u + U) of the issuance, over fee u: the issuance over all fees that were burned for the weights.
    """
    units = parameters.self_units + parameters.honest_units
    return parameters.issuance / (parameters.fee_per_unit * units)


def unburned_gain(parameters: Parameters) -> float:
    """What the same jobs earn where nothing is burned: u/(u + U) of the issuance, in wei."""
    share = parameters.self_units / (parameters.self_units + parameters.honest_units)
    return share * parameters.issuance


def quiet_returned(parameters: Parameters) -> float:
    """What comes back for each burned coin where weights of a quiet epoch draw the issuance of a busy one.

    The issuance is bound by the busy epoch's fees, 9/10 of them, and not by those that were burned for the weights.
    """
    return 9 / 10 * parameters.busy_units / (parameters.quiet_units + parameters.self_units)


def _won(own: int, others: int, slots: int, random: np.random.Generator) -> int:
    """How many slots fall to the attacker; each other unit is of somebody, and its owner does not matter."""
    return int(np.count_nonzero(random.integers(own + others, size=slots) < own))


def _simulate_returned(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    won = _won(parameters.self_units, parameters.honest_units, draws, random)
    burned = sum(parameters.fee_per_unit for _ in range(parameters.self_units))
    return won * (parameters.issuance / draws) / burned


def _simulate_unburned(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    return _won(parameters.self_units, parameters.honest_units, draws, random) * (parameters.issuance / draws)


def _simulate_quiet(parameters: Parameters, draws: int, random: np.random.Generator) -> float:
    burned = parameters.self_units * parameters.fee_per_unit
    issuance = parameters.busy_units * parameters.fee_per_unit * 9 // 10
    won = _won(parameters.self_units, parameters.quiet_units, draws, random)
    return won * (issuance / draws) / burned


CLAIMS = (
    Claim(
        "self-dealing",
        "issuance / (fee (u + U)): coins back for each coin burned on one's own u of u + U units",
        returned,
        _simulate_returned,
        draws=100_000,
    ),
    Claim(
        "self-dealing-without-burn",
        "u / (u + U) of the issuance: gain where no fee is burned",
        unburned_gain,
        _simulate_unburned,
        draws=100_000,
        money=True,
    ),
    Claim(
        "self-dealing-in-a-quiet-epoch",
        "9/10 busy / (quiet + u): coins back where another epoch's fees bind the issuance",
        quiet_returned,
        _simulate_quiet,
        draws=100_000,
    ),
)
