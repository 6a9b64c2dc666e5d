"""`counterfoil checkpoint`: recorded checkpoints and tree heads as other systems read them."""

from __future__ import annotations

import dataclasses
import json as json_format
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

import counterfoil
from counterfoil.cli.options import printable
from counterfoil.errors import InvalidInput, NotFound, ProofError

REFUTED = 3

app = typer.Typer(help="Checkpoints and tree heads as other systems read them.", no_args_is_help=True)

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command()
def export(
    run: RunFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new or empty folder.")],
    step: Annotated[int | None, typer.Option(help="The checkpoint after this step; else the last.")] = None,
    public_key: Annotated[Path | None, typer.Option(help="Where to write the public key.")] = None,
    json: Json = False,
) -> None:
    """Write a checkpoint as safetensors with a Model Signing bundle that carries its receipt."""
    interop = _interop()
    if public_key is not None and public_key.resolve().is_relative_to(output.resolve()):
        raise InvalidInput(
            f"{public_key} lies in the signed folder: choose another place", where=str(public_key)
        )
    receipt = interop.export_checkpoint(run, output, step=step)
    pem = interop.signing_public_key()
    if public_key is not None:
        public_key.write_text(pem)
    digest = "0x" + receipt.digest.hex()
    if json:
        found = {"folder": str(output), "receipt": digest, "step": receipt.fields["step"], "public_key": pem}
        typer.echo(json_format.dumps(found, indent=2))
        return
    typer.echo(f"{output}: the checkpoint after step {receipt.fields['step']}, receipt {digest}")
    typer.echo(pem.strip() if public_key is None else f"{public_key}: the public key")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A signed folder.")],
    signature: Annotated[Path, typer.Option(help="The bundle, such as FOLDER/model.sig.")],
    public_key: Annotated[Path, typer.Option(help="The signer's public key as PEM.")],
    run: Annotated[Path | None, typer.Option(help="The run to compare the tensors with.")] = None,
    json: Json = False,
) -> None:
    """Check a Model Signing bundle, ours or another's, and the receipt in it."""
    try:
        report = _interop().verify_checkpoint(folder, signature, public_key, run=run)
    except ProofError as refused:
        found = {name: getattr(refused, name) for name in ("where", "expected", "actual")}
        found |= {"status": "refuted", "message": str(refused)}
        typer.echo(json_format.dumps(found, indent=2) if json else printable(f"refuted: {refused}"))
        raise typer.Exit(REFUTED) from None
    if json:
        shown = dataclasses.asdict(report)
        shown["receipt"] = None if report.receipt is None else "0x" + report.receipt.hex()
        typer.echo(json_format.dumps({"status": "verified", **shown}, indent=2))
    else:
        typer.echo(printable(str(report)))


@app.command()
def note(run: RunFolder) -> None:
    """Print the run's tree head as a C2SP checkpoint; the verifier key goes to the error output."""
    interop, record = _interop(), counterfoil.Record(run)
    counterfoil.verify(record)
    head = record.tree_head()
    if head is None:
        raise NotFound(f"{run} has no tree head: close the run first", where=str(run))
    typer.echo(interop.verifier_key(head), err=True)
    typer.echo(interop.checkpoint_note(head), nl=False)


def _interop() -> ModuleType:
    try:
        from counterfoil import interop
    except ModuleNotFoundError as missing:
        hint = "pip install 'counterfoil[interop]'"
        raise NotFound(f"{missing}; this command needs cryptography: {hint}", where="interop") from None
    return interop
