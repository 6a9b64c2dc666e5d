"""`counterfoil key`: the device key's address, its protection, its backup.

A password is taken from COUNTERFOIL_PASSWORD, else typed where there is a terminal; it is never an
argument, which other users could see and shells remember.
"""

from __future__ import annotations

import json as json_format
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from counterfoil import Key, _native

key_app = typer.Typer(invoke_without_command=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
KeystoreFile = Annotated[Path, typer.Argument(metavar="FILE", help="A keystore file (version 3).")]


@key_app.callback()
def key(context: typer.Context, json: Json = False) -> None:
    """Show this device's address; makes its key on first use, and never prints it."""
    if context.invoked_subcommand is not None:
        return
    folder = Path(_native.key_folder())
    protected = _is_protected(folder)
    password = _password() if protected else None
    device = Key.device() if password is None else Key.load(folder / "device.json", password)
    lies = f"The key lies in {folder} and signs receipts only."
    state = "It is protected by a password." if protected else _how_to_protect(folder)
    _say(
        {"address": device.address, "folder": str(folder), "protected": protected},
        f"{device.address}\n{lies} {state}",
        json,
    )


@key_app.command()
def protect(json: Json = False) -> None:
    """Encrypt the device key with a password, and remove the file in the clear."""
    folder = Path(_native.key_folder())
    address = _native.protect_device_key(_password(new=not (folder / "device.json").exists()))
    _say(
        {"address": address, "protected": True},
        f"{address}\nThe key lies in {folder / 'device.json'}. Programs that record need COUNTERFOIL_PASSWORD."
        "\nWithout the password it is lost: make a backup. What device.key held may still be on the disk.",
        json,
    )


@key_app.command()
def backup(file: KeystoreFile, json: Json = False) -> None:
    """Write the device key, encrypted with a password, to a new file."""
    address = _native.back_up_device_key(file, _password(new=not _is_protected(Path(_native.key_folder()))))
    _say(
        {"address": address, "file": str(file)},
        f"{address}\n{file} holds the device key, under the password. It holds no lane's secret: "
        "who restores it begins a new lane (Run.join).",
        json,
    )


@key_app.command()
def restore(file: KeystoreFile, json: Json = False) -> None:
    """Make the key in a backup this device's key, unless there is another one."""
    address, installed = _native.restore_device_key(file, _password())
    if installed:
        text = f"{address}\nIt is this device's key. To record in an older run, begin a new lane (Run.join)."
    else:
        text = f"{address}\nIt was this device's key before; nothing was changed."
    _say({"address": address, "installed": installed}, text, json)


def _is_protected(folder: Path) -> bool:
    return (
        (folder / "device.json").exists()
        and not (folder / "device.key").exists()
        and "COUNTERFOIL_KEY" not in os.environ
    )


def _how_to_protect(folder: Path) -> str:
    if "COUNTERFOIL_KEY" in os.environ:
        return "It is taken from COUNTERFOIL_KEY."
    if (folder / "device.json").exists():
        return "device.key still holds it in the clear; end it with: counterfoil key protect"
    return "Protect it with: counterfoil key protect"


def _password(*, new: bool = False) -> str | None:
    """What was typed on the terminal, or None if the core shall look into the environment."""
    if os.environ.get("COUNTERFOIL_PASSWORD") or not sys.stdin.isatty():
        return None
    typed: str = typer.prompt("Password", hide_input=True, confirmation_prompt=new, err=True)
    return typed


def _say(values: dict[str, Any], text: str, json: bool) -> None:
    typer.echo(json_format.dumps(values, indent=2) if json else text)
