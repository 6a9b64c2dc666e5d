"""What can go wrong, one class per thing that a caller would do differently.

Every error carries a stable `code` and, where two things were compared or a place is known, the
evidence: `expected`, `actual`, `where`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from counterfoil.verify import Verdict


class CounterfoilError(Exception):
    """Base of all errors of this package.

    Attributes:
        code: Stable identifier of the kind of error.
        expected: What was expected, in words, or None.
        actual: What was found instead, or None.
        where: A tensor's name, a path or a receipt, or None.
    """

    code = "error"

    def __init__(
        self,
        message: str,
        *,
        expected: str | None = None,
        actual: str | None = None,
        where: str | None = None,
    ) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual
        self.where = where


class InvalidInput(CounterfoilError):
    """An argument cannot be what it is; nothing was recorded."""

    code = "invalid-input"


class UnsupportedDtype(InvalidInput):
    """A tensor has no canonical encoding; `.where` names it."""

    code = "unsupported-dtype"


class ProofError(CounterfoilError):
    """A proof, an opening or a signature does not show what it claims."""

    code = "proof"


class NotFound(CounterfoilError):
    """There is no such run, lane, file or contract."""

    code = "not-found"


class RunExists(CounterfoilError):
    """The folder or lane is taken already."""

    code = "exists"


class RunClosed(CounterfoilError):
    """The run was closed; open it again to continue it."""

    code = "closed"


class RunLocked(CounterfoilError):
    """Another process, or another handle of this one, writes this lane."""

    code = "locked"


class StorageError(CounterfoilError):
    """The operating system could not read or write; what was flushed before is safe."""

    code = "storage"


class StorageFull(StorageError):
    """The disk, the quota or the size limit is exhausted; what was flushed before is safe."""

    code = "storage-full"


class CorruptJournal(CounterfoilError):
    """A file of the run was damaged in a way that an interrupted write cannot explain."""

    code = "journal-corrupt"


class KeyRefused(CounterfoilError):
    """A key is missing, exposed to others, or refused for this use."""

    code = "key"


class ChainError(CounterfoilError):
    """A chain or its node refused or did not answer."""

    code = "chain"


class Unfinished(ChainError):
    """A submission waits in the outbox, which loses nothing; the message says why and what to do."""

    code = "unfinished"


class ReplayError(CounterfoilError):
    """A replay could not be carried out, which accuses nobody."""

    code = "replay"


class DeviceError(CounterfoilError):
    """A GPU or its driver is missing, too old, or failed."""

    code = "device"


class InternalError(CounterfoilError):
    """A mistake of this package; please report it."""

    code = "internal"


class Refuted(CounterfoilError):
    """Verification found something claimed to be false.

    Attributes:
        verdict: The verdict, with every edge that does not hold.
    """

    code = "refuted"

    def __init__(self, verdict: Verdict) -> None:
        broken = verdict.broken[0] if verdict.broken else None
        super().__init__(
            str(verdict),
            expected=broken.expected if broken else None,
            actual=broken.actual if broken else None,
            where=broken.edge if broken else None,
        )
        self.verdict = verdict


_BY_CODE: dict[str, type[CounterfoilError]] = {
    cls.code: cls
    for cls in (
        InvalidInput,
        UnsupportedDtype,
        ProofError,
        NotFound,
        RunExists,
        RunClosed,
        RunLocked,
        StorageError,
        StorageFull,
        CorruptJournal,
        KeyRefused,
        ChainError,
        Unfinished,
        ReplayError,
        DeviceError,
        InternalError,
    )
}


def from_code(
    code: str, message: str, expected: str | None, actual: str | None, where: str | None
) -> CounterfoilError:
    """The exception for an error of the compiled core."""
    return _BY_CODE[code](message, expected=expected, actual=actual, where=where)
