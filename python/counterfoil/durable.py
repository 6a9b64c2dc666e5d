"""Small files that are there as a whole or as they were before, whenever the power fails."""

from __future__ import annotations

import os
from pathlib import Path

from counterfoil.errors import StorageError


def replace(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Writes a file and its name durably, in folders that are made where they are missing.

    Raises:
        StorageError: It cannot be written; `.where` is its path.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        new = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        # A folder that is there already may have been made by a process that ended before it could say so.
        for folder in dict.fromkeys((path.parent, path.parent.parent, *(each.parent for each in new))):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as failed:
        raise StorageError(f"{path} cannot be written: {failed}", where=str(path)) from None
