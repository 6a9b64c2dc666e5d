"""The market's formulas: numbers from elsewhere, simulations that disagree with a wrong formula, and conditions."""

import json
from dataclasses import fields, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from counterfoil import economy
from counterfoil.economy import (
    CLAIMS,
    Bound,
    Claim,
    Parameters,
    audits,
    beacons,
    claim,
    compare,
    conditions,
    draws,
    flooding,
    stakes,
    verifiers,
    work,
)
from counterfoil.economy.agents import break_even, distinct
from counterfoil.errors import InvalidInput
from counterfoil.sortition import draw

DEFAULT = Parameters()
COIN = 10**18
NEAR = [each for each in CLAIMS if each.bound is Bound.NEAR]
BY_NAME = {each.name: each for each in CLAIMS}


def failing(parameters: Parameters) -> dict[str, str]:
    return {each.name: each.statement for each in conditions(parameters) if not each.holds}


@pytest.mark.parametrize("each", CLAIMS, ids=lambda each: each.name)
def test_a_simulation_agrees_and_refuses_a_formula_that_is_5_percent_off(each: Claim) -> None:
    """A comparison that accepts anything, in either direction, or is content with a coarse simulation."""
    batches: list[float] = []

    def recorded(*arguments: Any) -> float:
        batches.append(each.simulate(*arguments))
        return batches[-1]

    found = compare(replace(each, simulate=recorded), DEFAULT, seed=1)
    assert found.holds, found
    assert found.bound is each.bound, "the simulation is too coarse for its bound"
    # A bound from above is broken by what is below the statistic.
    low = 0.9 * found.simulated / found.expected
    for factor in [low] if each.bound is Bound.AT_MOST else [1 / 1.05, 1.05]:
        again = iter(batches)
        broken = replace(
            each,
            expected=lambda parameters, f=factor: f * each.expected(parameters),
            simulate=lambda *_, values=again: next(values),
        )
        assert not compare(broken, DEFAULT, seed=1).holds, factor


def test_formulas_give_the_numbers_that_are_known() -> None:
    """A formula with another shape that agrees by accident with its simulation at the default."""
    assert audits.missed(DEFAULT) == pytest.approx(0.597, abs=5e-4)
    assert audits.missed_in_tries(DEFAULT) == pytest.approx(0.99, abs=1e-3)
    # 1,379.4 samples: 1,379 miss with slightly more than 2^-20.
    assert audits.samples_needed(DEFAULT) == 1380
    assert 0.99**1380 <= 2**-20 < 0.99**1379
    assert stakes.job_stake(DEFAULT) == pytest.approx(1.0 * COIN)
    assert verifiers.bad_majority(3 * 10**5, 10**5, 11) == pytest.approx(0.122, abs=1e-3)
    assert verifiers.no_honest_member(3 * 10**5, 10**5, 11) == pytest.approx(3.0**-11, rel=1e-2)
    assert draws.live_share(DEFAULT) == pytest.approx(0.71, abs=5e-3)
    assert draws.settled_share(DEFAULT) == pytest.approx(0.024, abs=5e-4)
    assert beacons.biased_once(DEFAULT) == pytest.approx(0.1 + 0.2 * 0.1 * 0.9)
    assert flooding.flooding_cost(DEFAULT) == 63 * DEFAULT.bond


def test_panels_are_counted_like_every_panel() -> None:
    """A majority that counts a tie, or seats that are drawn twice."""
    for panel in (1, 2, 3, 4):
        every = [sum(seat < 3 for seat in seats) for seats in combinations(range(7), panel)]
        assert verifiers.bad_majority(7, 3, panel) == pytest.approx(
            np.mean([2 * bad > panel for bad in every])
        )
        assert verifiers.no_honest_member(7, 3, panel) == pytest.approx(
            np.mean([bad == panel for bad in every])
        )


def test_distinct_sets_are_equally_likely() -> None:
    """Redrawing that prefers some sets: chi-square of the 10 sets of 3 of 5, 9 degrees of freedom, p > 0.001."""
    found = distinct(np.random.default_rng(3), 5, 3, 100_000)
    assert (found[:, 1:] > found[:, :-1]).all()
    codes = (1 << found.astype(int)).sum(axis=1)
    counts = np.unique(codes, return_counts=True)[1]
    assert len(counts) == 10
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 27.877


def test_what_breaks_even_is_found_below_and_above_one() -> None:
    assert break_even(lambda at: 0.3 - at) == pytest.approx(0.3)
    assert break_even(lambda at: 3e17 - at) == pytest.approx(3e17)
    assert break_even(lambda at: 2.0 - at, limit=1.0) == pytest.approx(1.0)


def test_odds_that_no_simulation_sees_are_refused() -> None:
    """A search for a stake without end, where nobody is ever caught."""
    with pytest.raises(InvalidInput, match="too small"):
        compare(BY_NAME["stake-of-a-job"], replace(DEFAULT, inspection_probability=1e-12), seed=1)


def test_cheating_pays_below_the_stake_and_not_above() -> None:
    """A stake whose sign is wrong: the simulated profit itself, at 5 % on either side."""
    random, workers = np.random.default_rng(5), 4_000_000
    caught = int((random.random(workers) < DEFAULT.inspection_probability).sum())

    def profit(stake: float) -> float:
        lost = caught * (stake + DEFAULT.reward)
        return stakes.gain(DEFAULT) - lost / workers

    assert profit(0.95 * stakes.job_stake(DEFAULT)) > 0 > profit(1.05 * stakes.job_stake(DEFAULT))


@pytest.mark.parametrize("sampled", [1, 3, 50])
def test_faking_all_is_what_pays_best(sampled: int) -> None:
    """A reward that deters whoever fakes everything, and not whoever hides a little."""
    each = replace(DEFAULT, sampled_steps=sampled)
    assert compare(BY_NAME["reward-with-every-job-audited"], each, seed=2).holds


@pytest.mark.parametrize("own", [1, 9, 100, 900, 9_000])
def test_self_dealing_loses_at_the_burn_whatever_its_share(own: int) -> None:
    """An issuance that some share of the units makes profitable."""
    fees = DEFAULT.fee_per_unit * (own + DEFAULT.honest_units)
    each = replace(DEFAULT, self_units=own, issuance=9 * fees // 10)
    assert work.returned(each) == pytest.approx(0.9)
    assert compare(replace(BY_NAME["self-dealing"], draws=1_000_000), each, seed=1).simulated < 1
    assert work.unburned_gain(each) > 0


def test_weights_of_a_quiet_epoch_must_not_draw_a_busy_ones_issuance() -> None:
    """The rule that binds an issuance by the fees of the epoch in which it is paid: self-dealing earns fivefold."""
    found = compare(BY_NAME["self-dealing-in-a-quiet-epoch"], DEFAULT, seed=1)
    assert found.simulated > 5
    even = replace(DEFAULT, busy_units=DEFAULT.quiet_units + DEFAULT.self_units)
    assert work.quiet_returned(even) == pytest.approx(0.9)


def test_the_late_join_simulation_draws_as_the_library_does() -> None:
    """Simulated weights whose winner would be another one than the library's."""
    weights = [1] * draws.MEMBERS + [0] * 100
    won = [draw(bytes(32), slot, weights) for slot in range(3_000)]
    assert max(won) == draws.MEMBERS - 1
    assert len({*won}) == draws.MEMBERS


def test_withheld_blocks_are_bounded() -> None:
    """A series that grows without end: p / (1 - a (1 - p)) is above every m."""
    many = replace(DEFAULT, withheld_blocks=50)
    bound = DEFAULT.drawn_share / (1 - DEFAULT.proposer_share * (1 - DEFAULT.drawn_share))
    assert DEFAULT.drawn_share < beacons.biased_once(DEFAULT) < beacons.biased(many) <= bound * (1 + 1e-12)
    assert beacons.biased(replace(DEFAULT, withheld_blocks=0)) == DEFAULT.drawn_share


def test_naming_a_block_of_ones_own_is_worth_more_than_a_share_of_the_blocks() -> None:
    """A bound that is told to be for every attacker, and is for one who cannot choose when the block is named."""
    once = replace(DEFAULT, withheld_blocks=1)
    assert beacons.biased_by_choice(once) == pytest.approx(0.1 + 0.9 * 0.1)
    assert beacons.biased_by_choice(once) > beacons.biased(replace(DEFAULT, withheld_blocks=50))
    assert beacons.biased_by_choice(replace(DEFAULT, withheld_blocks=0)) == DEFAULT.drawn_share


def test_a_coarse_simulation_is_held_against_an_interval() -> None:
    """Two per cent of a rare event, which no simulation of this size can see, accepted or refused by luck."""
    rare = replace(DEFAULT, inspection_probability=1e-4)
    found = compare(BY_NAME["stake-of-a-job"], rare, seed=1)
    assert found.bound is Bound.INTERVAL
    assert found.holds
    twice = replace(BY_NAME["stake-of-a-job"], expected=lambda each: 2 * stakes.job_stake(each))
    assert not compare(twice, rare, seed=1).holds


def test_what_never_happens_has_an_interval_as_well() -> None:
    """A spread of 0 that refuses a rare event's true odds, or accepts any odds."""

    def never(parameters: Parameters, count: int, random: np.random.Generator) -> float:
        return 0.0

    def seen(odds: float) -> bool:
        return compare(Claim("none", "", lambda _: odds, never, 1000), DEFAULT, seed=0).holds

    assert seen(1e-6)
    assert not seen(1e-2)
    assert seen(0.0)


def test_a_seed_gives_the_same_numbers_whatever_else_is_simulated() -> None:
    one = compare(BY_NAME["canaries"], DEFAULT, seed=7)
    assert one == compare(BY_NAME["canaries"], DEFAULT, seed=7)
    assert one.simulated != compare(BY_NAME["canaries"], DEFAULT, seed=8).simulated
    assert len(BY_NAME) == len(CLAIMS)
    assert claim.BATCHES * min(each.draws for each in NEAR) > 2_000


def test_the_default_deployment_meets_every_condition() -> None:
    assert failing(DEFAULT) == {}
    assert len(list(conditions(DEFAULT))) == 10


@pytest.mark.parametrize(
    ("name", "changes", "mend", "mended"),
    [
        (
            "reward-against-false-steps",
            {"audit_probability": 0.05},
            "above 2.105",
            {"reward": 22 * COIN // 10},
        ),
        ("stake-against-structural-faults", {"stake": COIN // 2}, "above 1", {"stake": 101 * COIN // 100}),
        ("reward-pays-a-dispute", {"bounty": COIN}, "above 1.44", {"reward": 145 * COIN // 100}),
        ("challenge-pays", {"challenge_cost": COIN // 2}, "above 0.5289", {"bounty": 53 * COIN // 100}),
        ("verifying-pays", {"verifier_cost": COIN // 50}, "above 0.02", {"verifier_fee": COIN // 48}),
        ("canaries", {"canary_share": 0.05}, "above 0.1", {"canary_share": 0.11}),
        ("final-verdict", {"appeal_panel": 11}, "appeal_panel to 33", {"appeal_panel": 33}),
        ("burn", {"issuance": 10 * COIN}, "fee per unit to 0.01111", {"issuance": 9 * COIN}),
        ("withholding-costs", {"block_reward": 0}, "above 0.009", {"block_reward": COIN // 100}),
        ("flooding", {"bond": COIN // 100}, "above 0.01587", {"bond": COIN // 60}),
    ],
)
def test_a_condition_that_fails_names_what_mends_it(
    name: str, changes: dict, mend: str, mended: dict
) -> None:
    """A condition that always holds, one whose remedy does not help, or one that another setting breaks."""
    broken = replace(DEFAULT, **changes)
    assert mend in failing(broken)[name]
    assert name not in failing(replace(broken, **mended))


def test_what_mends_a_burn_is_enough_to_the_wei() -> None:
    """A fee that is rounded down, so that the issuance stays above by a wei."""
    broken = replace(DEFAULT, issuance=DEFAULT.issuance + 1)
    assert "burn" in failing(broken)
    assert "burn" not in failing(replace(broken, fee_per_unit=DEFAULT.fee_per_unit + 1))


def test_an_attacker_with_two_thirds_of_the_seats_is_mended_by_no_panel() -> None:
    assert "no larger panel" in failing(replace(DEFAULT, adversarial_seats=200))["final-verdict"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{", "parameters"),
        ("[]", "parameters"),
        ('{"reward": 1, "prize": 2}', "prize"),
        ('{"reward": 0.5}', "reward"),
        ('{"reward": -1}', "reward"),
        ('{"reward": true}', "reward"),
        ('{"reward": "1"}', "reward"),
        ('{"units": 0}', "units"),
        ('{"detection": 0}', "detection"),
        ('{"detection": 1.5}', "detection"),
        ('{"detection": NaN}', "detection"),
        ('{"sampled_steps": 1001}', "sampled_steps"),
        ('{"panel": 34}', "panel"),
        ('{"appeal_panel": 301}', "appeal_panel"),
        ('{"adversarial_seats": 301}', "adversarial_seats"),
        ('{"disputes": 1000000}', "disputes"),
    ],
)
def test_parameters_that_cannot_be_are_refused_by_name(text: str, where: str) -> None:
    """A deployment that is judged by a default because its name was misspelt, or a traceback."""
    with pytest.raises(InvalidInput) as refused:
        Parameters.from_json(text)
    assert refused.value.where == where


def test_parameters_come_from_json_by_name() -> None:
    document = {"reward": 3 * COIN, "detection": 1}
    assert Parameters.from_json(json.dumps(document)) == replace(DEFAULT, reward=3 * COIN, detection=1)
    every = {field.name: getattr(DEFAULT, field.name) for field in fields(DEFAULT)}
    assert Parameters.from_json(json.dumps(every)) == DEFAULT


@pytest.mark.parametrize(
    "changes",
    [
        {"detection": 1.0, "audit_probability": 1.0, "inspection_probability": 1.0},
        {"adversarial_seats": 0},
        {"adversarial_seats": 300},
        {"steps": 1, "sampled_steps": 1, "false_steps": 1},
        {"disputes": 0, "withheld_blocks": 0, "false_steps": 1000},
        {"missed_odds": 1.0, "tries": 1, "sampled_steps": 1},
        {"verifier_cost": COIN, "honest_units": 0, "quiet_units": 0},
    ],
    ids=str,
)
def test_edges_of_the_parameters_are_simulated(changes: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """A division by zero, a draw that never ends, or a formula that is another one at an edge."""
    edge = replace(DEFAULT, **changes)
    monkeypatch.setattr(
        economy,
        "CLAIMS",
        tuple(replace(each, draws=max(1, each.draws // 10)) for each in CLAIMS),
    )
    for found in economy.simulate(edge, seed=4):
        assert found.holds, found
    list(conditions(edge))
