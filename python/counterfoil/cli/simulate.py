"""The market's formulas against simulations, and a deployment's parameters against the formulas."""

from __future__ import annotations

import json as json_format
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from counterfoil.cli.options import ERROR, Json, printable, working
from counterfoil.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from counterfoil.economy import Comparison, Condition, Parameters

_PIPE = 160
"""Characters of a line where no terminal says how many fit."""

_PICTURES = (".svg", ".png")

simulate_app = typer.Typer(help="Let people act by the rules, and hold formulas against what comes of it.")


@simulate_app.callback()
def _simulate() -> None:
    """Let people act by the rules, and hold formulas against what comes of it."""


@simulate_app.command()
def economy(
    parameters: Annotated[
        Path | None,
        typer.Option(help="A deployment as a JSON object; what it does not name has its default."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random numbers.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(help="Draw what is found into this .svg or .png; needs matplotlib.")
    ] = None,
    json: Json = False,
) -> None:
    """Hold the market's formulas against simulations, and a deployment's parameters against the formulas.

    Exit code 1 where a simulation disagrees or the parameters do not meet a condition.
    """
    from counterfoil.economy import Parameters, conditions, simulate

    deployment = Parameters() if parameters is None else Parameters.from_json(_text(parameters))
    if plot is not None:
        _can_plot(plot)
    with working("Simulating"):
        compared = list(simulate(deployment, seed))
    judged = list(conditions(deployment))
    if plot is not None:
        from counterfoil.economy.plots import plot as draw

        with working("Drawing"):
            draw(plot, deployment, compared, seed)
    if json:
        typer.echo(_document(deployment, seed, compared, judged))
    else:
        _show(deployment, seed, compared, judged)
    met = all(each.holds for each in compared) and all(each.holds for each in judged)
    raise typer.Exit(0 if met else ERROR)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", where=str(path)) from None
    except (OSError, UnicodeDecodeError) as refused:
        raise InvalidInput(f"{path} cannot be read: {refused}", where=str(path)) from None


def _can_plot(path: Path) -> None:
    """Before anything is simulated."""
    if path.suffix not in _PICTURES:
        expected = " or ".join(_PICTURES)
        raise InvalidInput(
            f"{path} is no picture: its name must end in {expected}",
            expected=expected,
            actual=path.suffix,
            where="--plot",
        )
    try:
        import matplotlib  # noqa: F401, whether it is there is asked
    except ModuleNotFoundError as missing:
        hint = "pip install 'counterfoil[plots]'"
        raise NotFound(f"{missing}; --plot needs matplotlib: {hint}", where="--plot") from None


def _document(deployment: Parameters, seed: int, compared: list[Comparison], judged: list[Condition]) -> str:
    def claim(each: Comparison) -> dict[str, Any]:
        difference = None if math.isnan(each.difference) else each.difference
        return asdict(each) | {"difference": difference}

    return json_format.dumps(
        {
            "seed": seed,
            "parameters": asdict(deployment),
            "claims": [claim(each) for each in compared],
            "conditions": [asdict(each) for each in judged],
        },
        indent=2,
    )


def _show(deployment: Parameters, seed: int, compared: list[Comparison], judged: list[Condition]) -> None:
    from counterfoil.economy.beacons import bias

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _PIPE
    console.print(_claims(compared))
    table = Table("parameter", "value", title="Parameters, amounts in wei", title_justify="left")
    for name, value in asdict(deployment).items():
        table.add_row(name, f"{value:g}" if isinstance(value, float) else str(value))
    console.print(table)
    rules = Table(
        "condition", "", "numbers, amounts in coins of 10^18 wei", title="Conditions", title_justify="left"
    )
    for each in judged:
        rules.add_row(each.name, "holds" if each.holds else "FAILS", printable(each.statement))
    console.print(rules)
    console.print(f"Not mended by any parameter: {bias(deployment)}.")
    apart, failing = (sum(not each.holds for each in some) for some in (compared, judged))
    console.print(
        f"{len(compared)} claims, {apart} disagree; {len(judged)} conditions, {failing} fail; seed {seed}"
    )


def _claims(compared: list[Comparison]) -> Table:
    from counterfoil.economy.conditions import coins

    table = Table(title="Formulas and simulations, amounts in coins of 10^18 wei", title_justify="left")
    for name in ("claim", "formula", "value", "simulated", "difference", "error", "draws", "bound", ""):
        kind: Any = {} if name in ("claim", "formula", "bound", "") else {"justify": "right", "no_wrap": True}
        table.add_column(name, **kind)
    for each in compared:
        shown = coins if each.money else "{:.4g}".format
        error = (
            f"{each.standard_error / abs(each.expected):.2%}"
            if each.standard_error and each.expected
            else "-"
        )
        near = each.bound not in ("at most",) and not math.isnan(each.difference)
        table.add_row(
            each.name,
            each.formula,
            shown(each.expected),
            shown(each.simulated),
            f"{each.difference:+.2%}" if near else "-",
            error,
            f"{each.draws:,}",
            each.bound.value,
            "holds" if each.holds else "DISAGREES",
        )
    return table
