"""A run that several machines record, each in a folder of its own.

What another machine needs to join is the run's specification, its recipe, and its owner's log up to the first
receipt, which names the run. It is given as files by their paths in the run's folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from counterfoil._native import Key
from counterfoil.durable import replace
from counterfoil.errors import InvalidInput, NotFound
from counterfoil.run import Run, Session

_NAME = re.compile(
    r"spec\.json|workers/0x[0-9a-f]{40}/\d{1,10}/journal|recipe(/(?!\.\.?(/|$))[^/\\\x00-\x1f]+)+"
)
"""What may be written where an invitation comes from another machine: nothing that leads out of the folder."""


def invite(run: Run) -> dict[str, bytes]:
    """The files by which others join a run that this process created.

    Raises:
        NotFound: The run has no first receipt.
    """
    run.flush()
    journal = run.path / journal_name(run.worker, run.lane)
    files = {journal: _up_to_first_receipt(journal.read_bytes())}
    recipe = (file for file in (run.path / "recipe").rglob("*") if file.is_file())
    files |= {file: file.read_bytes() for file in (run.path / "spec.json", *recipe)}
    return {file.relative_to(run.path).as_posix(): content for file, content in files.items()}


def journal_name(worker: str, lane: int) -> str:
    """Where a run's folder has a lane's journal (docs/format.md, section 7)."""
    return f"workers/{worker.lower()}/{lane}/journal"


def place(folder: Path, files: Mapping[str, bytes]) -> None:
    """Makes a folder that is missing or empty that of an invitation's run.

    Raises:
        InvalidInput: A name leads elsewhere, or the folder holds something else.
        StorageError: It cannot be written.
    """
    # What a process left that ended amid this is made anew.
    if any(
        file.relative_to(folder).as_posix() not in files for file in folder.rglob("*") if not file.is_dir()
    ):
        raise InvalidInput(f"{folder} is not empty and holds no run", where=str(folder))
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    # The specification last: with it, the folder is a run's.
    for name, content in sorted(files.items(), key=lambda file: file[0] == "spec.json"):
        if _NAME.fullmatch(name) is None:
            raise InvalidInput(
                f"an invitation holds {name!r}, which is no file of a run", actual=name, where="invitation"
            )
        replace(folder / name, content)


def join(
    path: str | os.PathLike[str],
    run: str,
    files: Mapping[str, bytes],
    *,
    lane: int,
    rank: int = 0,
    key: Key | None = None,
    session: Session | None = None,
) -> Run:
    """Opens a lane of the run of an invitation, or begins it on first contact.

    Args:
        path: This machine's folder of the run: missing, empty, or one that was joined before.
        run: The run's id.
        files: Those of `invite`.
        lane, rank, key, session: As of `Run.join`.

    Raises:
        InvalidInput: The folder holds another run, or something else.
        CounterfoilError: What `Run.join` and `Run.open` say.
    """
    folder = Path(path)
    if not (folder / "spec.json").exists():
        place(folder, files)
    try:
        opened = Run.open(folder, lane=lane, key=key, session=session)
    except NotFound:
        opened = Run.join(folder, lane=lane, rank=rank, key=key, session=session)
    if opened.id != run:
        opened.close()
        raise InvalidInput(
            f"{folder} holds another run than the invitation's",
            expected=run,
            actual=opened.id,
            where=str(folder),
        )
    return opened


def _up_to_first_receipt(journal: bytes) -> bytes:
    """A journal's frames up to its first receipt (docs/format.md, sections 6 and 7)."""
    end = 0
    while end < len(journal):
        begin, end = end + 16, end + 16 + int.from_bytes(journal[end : end + 4], "big")
        if journal[begin : begin + 1] == b"R":
            return journal[:end]
    raise NotFound("the run has no first receipt yet")
