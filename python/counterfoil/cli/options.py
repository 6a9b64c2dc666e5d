"""What several commands share: what a verifier pins, and how a verdict leaves the program."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

import counterfoil

ERROR, REFUTED, UNDECIDED = 1, 3, 4
CODES = {"verified": 0, "refuted": REFUTED, "undecided": UNDECIDED}


class Require(StrEnum):
    """What a verdict is measured against."""

    INTEGRITY = "integrity"
    STRANGER = "stranger"


RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder or a bundle.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Signer = Annotated[str | None, typer.Option(help="The owner you expect: 0x and 40 digits.")]
Recipe = Annotated[str | None, typer.Option(help="The recipe's digest you have read and trust.")]
Requirement = Annotated[Require, typer.Option(help="What the verdict is measured against.")]
TrustedChain = Annotated[
    str | None,
    typer.Option("--chain", "--rpc", metavar="NETWORK", help="A network's name or a node that you trust."),
]
TrustedBlock = Annotated[
    list[str] | None, typer.Option(help="Hash of a block that you know to be of a public chain.")
]


def pins(
    signer: str | None,
    recipe: str | None,
    require: Require,
    url: str | None,
    contract: str | None,
    trusted_block: list[str] | None,
) -> dict[str, Any]:
    """The arguments of `verify`, from those of the command line."""
    if contract is not None and url is None:
        raise typer.BadParameter("--contract names the contract on a --chain")
    chain = None if url is None else counterfoil.Chain.connect(url, contract)
    named = {"signer": signer, "recipe": recipe, "require": require.value, "chain": chain}
    return {**named, "trusted_blocks": trusted_block or ()}


def finish(verdict: counterfoil.Verdict, json: bool) -> NoReturn:
    """Prints a verdict and ends the program with its exit code."""
    typer.echo(verdict.to_json() if json else str(verdict))
    sys.exit(CODES[verdict.status])


@contextmanager
def working(what: str) -> Iterator[None]:
    """A sign of life on the terminal, and nothing in a file or a pipe."""
    with Console(stderr=True).status(what):
        yield


def printable(text: str) -> str:
    """Names and files come from whoever made the folder, and must not steer a terminal."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "replace").decode() for c in text
    )
