"""What a deployment's parameters have to meet, and the number that would mend one that does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from counterfoil.economy.flooding import flooding_cost
from counterfoil.economy.parameters import COIN, Parameters
from counterfoil.economy.stakes import gain, job_stake, withheld_reward
from counterfoil.economy.verifiers import appeal_majority, bad_majority, canary_share


@dataclass(frozen=True)
class Condition:
    """What parameters have to meet.

    Attributes:
        name: With hyphens.
        holds: Whether they do.
        statement: Both sides with their numbers; where it fails, what would mend it.
    """

    name: str
    holds: bool
    statement: str


def coins(wei: float) -> str:
    """An amount in coins."""
    return f"{wei / COIN:.4g}"


def _above(name: str, what: str, value: float, least: float, formula: str, plain: bool = False) -> Condition:
    """A value that has to be above another one."""
    shown: Callable[[float], str] = (lambda each: f"{each:.4g}") if plain else coins
    holds = value > least
    relation = "is above" if holds else "is not above"
    exact = "" if plain else f" ({math.ceil(least)} wei)"
    mend = "" if holds else f": set it above {shown(least)}{exact}"
    return Condition(name, holds, f"{what} {shown(value)} {relation} {shown(least)} = {formula}{mend}")


def conditions(parameters: Parameters) -> Iterator[Condition]:
    """Judges a deployment by each of the market's conditions."""
    each = parameters
    saved = coins(gain(each))
    odds = f"(p {each.audit_probability:g} x q {each.detection:g})"
    yield _above(
        "reward-against-false-steps", "reward", each.reward, withheld_reward(each), f"N g {saved} / {odds}"
    )
    inspected = f"N g {saved} / p {each.inspection_probability:g} - r {coins(each.reward)}"
    yield _above("stake-against-structural-faults", "stake", each.stake, job_stake(each), inspected)
    paid = each.bounty + (each.panel + each.appeal_panel) * each.verifier_fee
    yield _above(
        "reward-pays-a-dispute", "reward", each.reward, paid, "bounty + fees of the panel and the appeal"
    )
    risked = (each.challenge_cost + (1 - each.detection) * each.bond) / each.detection
    yield _above("challenge-pays", "bounty", each.bounty, risked, "(cost + (1 - q) bond) / q")
    yield _above("verifying-pays", "fee", each.verifier_fee, each.verifier_cost, "cost of executing")
    formula = f"cost {coins(each.verifier_cost)} / fee {coins(each.verifier_fee)}"
    yield _above("canaries", "canary share", each.canary_share, canary_share(each), formula, plain=True)
    yield _final_verdict(each)
    yield _burn(each)
    prize = each.drawn_share * each.issuance / each.slots
    withheld = "p x issuance / slots, what a new draw is worth"
    yield _above("withholding-costs", "block reward", each.block_reward, prize, withheld)
    yield _flooding(each)


def _final_verdict(each: Parameters) -> Condition:
    wrong = appeal_majority(each)
    holds = wrong <= each.tolerated_odds
    relation = "is within" if holds else "is above"
    # An odd panel has no ties.
    larger = (
        size
        for size in range(each.appeal_panel + 1 | 1, each.seats + 1, 2)
        if bad_majority(each.seats, each.adversarial_seats, size) <= each.tolerated_odds
    )
    mend = "" if holds else _panel_that_mends(next(larger, None))
    statement = (
        f"a final panel of {each.appeal_panel} of {each.seats} seats, {each.adversarial_seats} of them the attacker's, "
        f"is bad with odds {wrong:.3g}, which {relation} {each.tolerated_odds:.3g}{mend}"
    )
    return Condition("final-verdict", holds, statement)


def _panel_that_mends(size: int | None) -> str:
    return ": no larger panel mends it" if size is None else f": set appeal_panel to {size}"


def _burn(each: Parameters) -> Condition:
    units = each.self_units + each.honest_units
    # In whole wei, as a contract counts.
    most = 9 * each.fee_per_unit * units // 10
    holds = each.issuance <= most
    relation = "is within" if holds else "is above"
    least = -(-10 * each.issuance // (9 * units))
    mend = "" if holds else f": set the issuance to {coins(most)}, or the fee per unit to {coins(least)}"
    statement = (
        f"issuance {coins(each.issuance)} {relation} {coins(most)} = 9/10 of the fees of {units} units{mend}"
    )
    return Condition("burn", holds, statement)


def _flooding(each: Parameters) -> Condition:
    cost = flooding_cost(each)
    holds = cost > each.reward
    formula = f"bond (2^{each.disputes} - 1)"
    relation = "is above" if holds else "is not above"
    least = each.reward / (2**each.disputes - 1) if each.disputes else None
    mend = "" if holds or least is None else f": set the bond above {coins(least)}"
    statement = (
        f"filling a job's disputes costs {coins(cost)} = {formula}, which {relation} the reward "
        f"{coins(each.reward)}{mend}"
    )
    return Condition("flooding", holds, statement)
