"""`counterfoil report`: a run's evidence as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from counterfoil.cli.chain import Contract
from counterfoil.cli.options import (
    Json,
    Recipe,
    Require,
    Requirement,
    RunFolder,
    Signer,
    TrustedBlock,
    TrustedChain,
    finish,
    pins,
    working,
)


def report(
    run: RunFolder,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page; it replaces a file there.")],
    signer: Signer = None,
    recipe: Recipe = None,
    require: Requirement = Require.INTEGRITY,
    chain: TrustedChain = None,
    contract: Contract = None,
    trusted_block: TrustedBlock = None,
    json: Json = False,
) -> None:
    """Write one HTML page that shows a run's evidence, and checks it again in the browser that opens it."""
    from counterfoil.report import verifier, write_report

    with working(f"Reporting on {run}"):
        verdict = write_report(run, output, **pins(signer, recipe, require, chain, contract, trusted_block))
    if verifier() is None:
        text = "warning: the page checks nothing, since the verifier for browsers was not built (make wasm)"
        typer.echo(text, err=True)
    typer.echo(f"{output}: {output.stat().st_size} bytes; open it in a browser", err=json)
    finish(verdict, json)
