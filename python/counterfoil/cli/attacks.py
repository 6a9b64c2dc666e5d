"""The board of attacks: each is mounted here, with its defence off and on."""

from __future__ import annotations

import json as json_format
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from counterfoil.attacks import Row

_COLUMNS = {"attack": 4, "outcome": None, "layer": 4, "seconds": None, "found": 9}
"""Names, and the share that each gets of what the two narrow ones leave of a line."""

_NARROW = len("out of scope")
_PIPE = 160
"""Characters of a line where no terminal says how many fit."""


def attacks(
    name: Annotated[list[str] | None, typer.Argument(help="Some attacks; by default all.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Mount attacks on the evidence, with their defence off and on. Exit code 1 where one is broken."""
    from counterfoil.attacks import scoreboard
    from counterfoil.attacks.ledgers import machine

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="counterfoil-") as folder, machine(Path(folder, "home")):
        for row in scoreboard(Path(folder, "attacks"), name or ()):
            if not json:
                if not rows:
                    _print(console, *_COLUMNS)
                took = "" if row.seconds is None else f"{row.seconds:.2f}"
                _print(console, row.name, row.outcome, row.layer, took, row.found)
            rows.append(row)
    if json:
        typer.echo(json_format.dumps([asdict(row) for row in rows], indent=2))
    else:
        counted = Counter(row.outcome for row in rows)
        typer.echo(", ".join(f"{number} {outcome}" for outcome, number in counted.items()))
    raise typer.Exit(1 if any(row.outcome == "broken" for row in rows) else 0)


def _print(console: Console, *cells: str) -> None:
    """One row at once: a table would be shown when its last row is known."""
    line = Table.grid(padding=(0, 2), expand=True)
    for share in _COLUMNS.values():
        line.add_column(ratio=share, width=None if share else _NARROW, overflow="fold")
    line.add_row(*map(Text, cells))
    console.print(line)
