"""Pictures of what the simulations say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from counterfoil.economy import audits, beacons, stakes, verifiers, work
from counterfoil.economy.claim import Claim, Comparison, compare
from counterfoil.economy.parameters import COIN, Parameters

_LIGHT = 5
"""Points of a curve at which is simulated."""


def _claim(claims: Sequence[Claim], name: str) -> Claim:
    """A claim by name, with fewer draws: a point of a curve need not be as exact as a row of the table."""
    found = next(claim for claim in claims if claim.name == name)
    return replace(found, draws=max(1, found.draws // 10))


_Settings = Sequence[tuple[float, Parameters]]


def _sampled(each: Parameters) -> _Settings:
    most = each.steps // 4 or 1
    counts = sorted({max(1, most * part // 20) for part in range(1, 21)})
    return [(count, replace(each, sampled_steps=count)) for count in counts]


def _inspected(each: Parameters) -> _Settings:
    return [(part / 40, replace(each, inspection_probability=part / 40)) for part in range(1, 21)]


def _fees(each: Parameters) -> _Settings:
    fees = [each.verifier_cost * factor for factor in range(1, 21)]
    return [(fee / COIN, replace(each, verifier_fee=fee)) for fee in fees]


def _held(each: Parameters) -> _Settings:
    counts = sorted({each.seats * part // 40 for part in range(1, 21)})
    return [(count / each.seats, replace(each, adversarial_seats=count)) for count in counts]


def _own(each: Parameters) -> _Settings:
    counts = sorted({max(1, each.honest_units * part // 10) for part in range(1, 21)})
    made = []
    for count in counts:
        fees = each.fee_per_unit * (count + each.honest_units)
        made.append(
            (count / (count + each.honest_units), replace(each, self_units=count, issuance=9 * fees // 10))
        )
    return made


def _made(each: Parameters) -> _Settings:
    return [(part / 20, replace(each, proposer_share=part / 20)) for part in range(1, 20)]


_CURVES: tuple[tuple[Sequence[Claim], str, str, Callable[[Parameters], _Settings]], ...] = (
    (audits.CLAIMS, "audit-missed", "sampled steps", _sampled),
    (stakes.CLAIMS, "stake-of-a-job", "odds that somebody looks", _inspected),
    (verifiers.CLAIMS, "canaries", "fee of a game in coins", _fees),
    (verifiers.CLAIMS, "panel-with-a-bad-majority", "share of the seats", _held),
    (work.CLAIMS, "self-dealing", "share of the units", _own),
    (beacons.CLAIMS, "beacon-of-blocks-in-a-row", "share of the blocks", _made),
)


def plot(path: Path, parameters: Parameters, compared: Sequence[Comparison], seed: int) -> None:
    """Draws six formulas as lines with simulations as points, and what every claim's simulation differs by.

    Args:
        path: A file whose name ends in .svg or .png.
        parameters: The deployment around which one setting at a time is varied.
        compared: What the table shows.
        seed: Of the random numbers.

    Raises:
        ModuleNotFoundError: There is no matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 13), layout="constrained")
    FigureCanvasAgg(figure)
    panes = figure.subplot_mosaic([[0, 1], [2, 3], [4, 5], ["all", "all"]], height_ratios=[1, 1, 1, 1.5])
    for position, (claims, name, label, settings) in enumerate(_CURVES):
        _curve(panes[position], _claim(claims, name), label, settings(parameters), seed)
    _differences(panes["all"], compared)
    figure.savefig(path)


def _curve(pane: Any, claim: Claim, label: str, settings: _Settings, seed: int) -> None:
    unit = COIN if claim.money else 1
    pane.plot(
        [at for at, _ in settings], [claim.expected(each) / unit for _, each in settings], label="formula"
    )
    some = settings[:: max(1, len(settings) // _LIGHT)]
    points = [compare(claim, each, seed) for _, each in some]
    pane.errorbar(
        [at for at, _ in some],
        [point.simulated / unit for point in points],
        yerr=[4 * point.standard_error / unit for point in points],
        fmt="o",
        label="simulation, 4 standard errors",
    )
    pane.set(title=claim.name, xlabel=label, ylabel="coins" if claim.money else None)
    pane.legend()


def _differences(pane: Any, compared: Sequence[Comparison]) -> None:
    shown = [each for each in compared if each.standard_error and each.expected]
    pane.errorbar(
        [100 * each.difference for each in shown],
        [each.name for each in shown],
        xerr=[400 * each.standard_error / abs(each.expected) for each in shown],
        fmt="o",
    )
    pane.axvspan(-2, 2, alpha=0.1)
    pane.invert_yaxis()
    pane.set(title="simulation against formula", xlabel="difference in %, with 4 standard errors")
