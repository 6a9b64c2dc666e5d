"""Files that a checkpoint was saved as, in whatever format: bound by their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from counterfoil._native import Commitment
from counterfoil.commit import Description, commit_file, commit_tensors
from counterfoil.errors import NotFound

PREFIX = "files/"


def commit_files(path: Path) -> Commitment:
    """Commits to a file, or to every file in a folder by its path there."""
    files: Mapping[str, Path] = {path.name: path}
    if path.is_dir():
        found = sorted(each for each in path.rglob("*") if each.is_file())
        files = {each.relative_to(path).as_posix(): each for each in found}
    if not files:
        raise NotFound(f"{path} is an empty folder", where=str(path))
    state = {}
    for name, file in files.items():
        whole = commit_file(file)
        state[PREFIX + name] = Description("U8", [whole.size], root=whole.root)
    return commit_tensors(state)
