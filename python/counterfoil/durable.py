"""Small files that are there as a whole or as they were before, whenever the power fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from counterfoil.errors import StorageError


def replace(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Writes a file and its name durably, in folders that are made where they are missing.

    Raises:
        StorageError: It cannot be written; `.where` is its path.
    """
    _write(path, content, mode, lambda partial: partial.replace(path))


def create(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """As `replace`, but a file that is there stays as it is, whoever wrote it meanwhile.

    Raises:
        StorageError: It cannot be written; `.where` is its path.
    """

    def link(partial: Path) -> None:
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(partial)
        partial.unlink()

    _write(path, content, mode, link)


def _write(path: Path, content: bytes, mode: int, put: Callable[[Path], object]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        new = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        put(partial)
        # A folder that is there already may have been made by a process that ended before it could say so.
        for folder in dict.fromkeys((path.parent, path.parent.parent, *(each.parent for each in new))):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as failed:
        raise StorageError(f"{path} cannot be written: {failed}", where=str(path)) from None
