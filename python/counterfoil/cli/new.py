"""`counterfoil new`: a folder with a small training that is recorded, verified and executed again."""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

import counterfoil
from counterfoil.errors import InvalidInput, RunExists, StorageError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_HIDDEN = {"evidence.yml": ".github/workflows/evidence.yml", "gitignore": ".gitignore"}
_TEMPLATES = (
    "README.md",
    *_HIDDEN,
    "recipe.py",
    "requirements.txt",
    "test_evidence.py",
    "train.py",
    "verify.py",
)
"""What is written, and where git would heed it in the package, what it is called there."""


def new(
    folder: Annotated[Path, typer.Argument(metavar="NAME", help="The folder to make: missing, or empty.")],
) -> None:
    """Make a folder with a small training to begin with: recorded, verified, executed again and tested."""
    written = write(folder)
    place = shlex.quote(str(folder))
    typer.echo(f"{folder}: {', '.join(written)}\nnow type:")
    typer.echo(f"  cd {place}\n  pip install -r requirements.txt\n  python train.py\n  python verify.py")
    typer.echo("  python -m pytest\nREADME.md there says what each file does, and what to do next")


def write(folder: Path) -> list[str]:
    """Writes the kit into a folder; returns its files, by their paths inside it.

    Raises:
        InvalidInput: The last part of the path is no name that every system and shell takes as it is.
        RunExists: There is a file, or something in the folder; the message says what to type.
        StorageError: It cannot be written.
    """
    if not _NAME.fullmatch(folder.name):
        raise InvalidInput(
            f"{folder.name or str(folder)!r} cannot be the folder's name; type: counterfoil new my-training",
            expected="letters, digits, dots, hyphens and underscores, and no dot or hyphen in front",
            actual=str(folder),
            where="NAME",
        )
    try:
        if folder.is_symlink() or (folder.exists() and not _is_empty(folder)):
            free = shlex.quote(str(_free(folder)))
            raise RunExists(
                f"{folder} exists and nothing in it was changed; type: counterfoil new {free}",
                expected="a name that is free, or an empty folder",
                where=str(folder),
            )
        for template in _TEMPLATES:
            text = (files("counterfoil") / "kit" / template).read_text(encoding="utf-8")
            path = folder / _HIDDEN.get(template, template)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                text.replace("@NAME@", folder.name).replace("@VERSION@", counterfoil.__version__),
                encoding="utf-8",
            )
    except OSError as failed:
        raise StorageError(f"{folder} cannot be written: {failed}", where=str(folder)) from None
    return sorted(_HIDDEN.get(template, template) for template in _TEMPLATES)


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _free(folder: Path) -> Path:
    number = 2
    while (free := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return free
