"""Lists of records that a receipt binds and that can be forgotten one by one.

Each record is hashed with 16 random bytes of its own. What a receipt commits to are those hashes; the
random bytes and the records lie in one file of the run. Without its random bytes a hash names nobody,
not even to somebody who guesses the record.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from counterfoil import _native
from counterfoil._native import Commitment
from counterfoil.commit import commit_tensors
from counterfoil.durable import replace
from counterfoil.errors import CorruptJournal, InvalidInput, NotFound

_TAG = b"counterfoil.record.v1"
_LARGEST_LIST = 1 << 30
_ERASED = "erased"
_SALT = 16


@dataclass(frozen=True)
class Salted:
    """One record of a list, which shows that it is in the list.

    Attributes:
        content: The record's bytes.
        salt: 16 random bytes.
    """

    content: bytes
    salt: bytes

    def __post_init__(self) -> None:
        # Of a longer one bytes could be moved into the record, which then reads otherwise under the same hash.
        if len(self.salt) != _SALT:
            raise InvalidInput(
                "a record has another number of random bytes",
                expected=str(_SALT),
                actual=str(len(self.salt)),
                where="salt",
            )

    @classmethod
    def new(cls, content: bytes) -> Salted:
        """A record with random bytes of its own."""
        return cls(content, secrets.token_bytes(_SALT))

    @property
    def digest(self) -> bytes:
        """The 32 bytes that the receipt's state holds for this record.

        Source:
            docs/format.md, section 13.
        """
        return hashlib.sha256(_TAG + self.salt + self.content).digest()


def commit_records(run: Path, contents: Iterable[bytes | str]) -> Commitment:
    """Commits to a list of records and keeps it in the run's folder; see `Run.commit_records`."""
    return keep(run, [Salted.new(_encoded(each, number)) for number, each in enumerate(contents)])


def _encoded(content: bytes | str, number: int) -> bytes:
    try:
        # bytes(5) would be five zeros.
        return content.encode() if isinstance(content, str) else bytes(memoryview(content))
    except (TypeError, UnicodeEncodeError):
        raise InvalidInput(
            f"record {number} is neither a text nor bytes",
            actual=type(content).__name__,
            where=f"record {number}",
        ) from None


def keep(run: Path, records: list[Salted]) -> Commitment:
    """Commits to records that have their random bytes already."""
    if not records:
        raise InvalidInput("a list needs at least one record", where="records")
    # The file has two digits for each byte, and a line for each record.
    size = sum(2 * (_SALT + len(each.content)) + 2 for each in records)
    if size > _LARGEST_LIST:
        raise InvalidInput(
            f"the list would have {size} bytes, of which at most {_LARGEST_LIST} are read again",
            expected=str(_LARGEST_LIST),
            actual=str(size),
            where="records",
        )
    values = {str(index): np.frombuffer(each.digest, np.uint8) for index, each in enumerate(records)}
    commitment = commit_tensors(values, keep=True)
    _write(_path(run, commitment.root), records)
    return commitment


def read_records(run: str | os.PathLike[str], root: bytes) -> list[Salted | None]:
    """The records of a list; None for each that was erased.

    Args:
        run: The run's folder.
        root: The list's root, as `Commitment.root` or `Record.opened` of the run tells it.

    Raises:
        NotFound: There is no such list, or it was erased as a whole.
        CorruptJournal: The file is damaged.
    """
    path = _path(Path(run), root)
    try:
        if path.stat().st_size > _LARGEST_LIST:
            raise CorruptJournal(f"{path} has more than {_LARGEST_LIST} bytes", where=str(path))
        return [_parse(line) for line in path.read_text("ascii").splitlines()]
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist: the list is another run's, or was erased") from None
    except (ValueError, InvalidInput):
        raise CorruptJournal(f"{path} is damaged; restore it from a copy", where=str(path)) from None


@dataclass(frozen=True)
class Erased:
    """What was erased, and what it means.

    Attributes:
        what: What is gone.
        remains: What no erasure here reaches.
    """

    what: str
    remains: tuple[str, ...]

    def __str__(self) -> str:
        """One line for what is gone, one for each thing that remains."""
        return "\n".join([f"erased: {self.what}", *(f"remains: {each}" for each in self.remains)])


_DATASETS = "in runs that trained on it, `dataset` of the first receipt: its hash there has no random bytes"
_EVERYWHERE = (
    "copies of the folder, backups, snapshots, and blocks that the disk has not overwritten",
    "bundles and checkpoints that were given away",
    "what the model's weights learnt, wherever they are",
)


def erase(run: str | os.PathLike[str], record: tuple[bytes, int] | None = None) -> Erased:
    """Forgets one record of a list, or everything that lies behind a run's receipts.

    The run still verifies: receipts hold digests that are blinded or salted. A run that is erased as a
    whole cannot be continued or replayed, and its lists, openings and stored tensors are gone.

    Args:
        run: The run's folder.
        record: The root of a list and the record's position in it; by default everything.

    Raises:
        NotFound: There is no such run, list or record.
        RunLocked: The run is being written.
        StorageError: The folder cannot be written.
    """
    if record is None:
        frames, files, lanes = _native.erase(run)
        digests = "the receipts: digests that are blinded, signatures, step numbers and times; spec.json; the recipe"
        what = f"{frames} openings and layouts, {files} stored files, the secrets of {lanes} lanes"
        return Erased(what, (digests, *_EVERYWHERE))
    root, index = record
    with _locked(Path(run)):
        records = read_records(run, root)
        if not 0 <= index < len(records):
            raise NotFound(f"the list has {len(records)} records, there is none at {index}", where=str(index))
        erased, records[index] = records[index], None
        _write(_path(Path(run), root), records)
        if erased is not None:
            _erase_elsewhere(Path(run), erased)
    kept = "a hash of the record and of random bytes that are gone, which nobody can tell from noise"
    batches = "the record in batches that the run keeps by value, if it has a recipe: erase the run"
    return Erased(f"record {index} of the list {root.hex()}", (kept, batches, _DATASETS, *_EVERYWHERE))


def _erase_elsewhere(run: Path, erased: Salted) -> None:
    """Forgets a record in the lists that hold it as well, as a collection holds what its sources do."""
    line = _line(erased)
    for path in (run / "records").iterdir():
        lines = path.read_text("ascii").splitlines()
        if line in lines:
            _write(path, [None if each == line else _parse(each) for each in lines])


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Keeps two erasures from undoing each other."""
    try:
        lock = os.open(run / "records", os.O_RDONLY)
    except OSError:
        yield  # there is no list, as reading it will say
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _parse(line: str) -> Salted | None:
    if line == _ERASED:
        return None
    salt, content = map(bytes.fromhex, line.split(" "))
    return Salted(content, salt)


def _path(run: Path, root: bytes) -> Path:
    return run / "records" / root.hex()


def _write(path: Path, records: Sequence[Salted | None]) -> None:
    lines = [_ERASED if each is None else _line(each) for each in records]
    replace(path, "".join(f"{line}\n" for line in lines).encode(), mode=0o600)


def _line(record: Salted) -> str:
    return f"{record.salt.hex()} {record.content.hex()}"
