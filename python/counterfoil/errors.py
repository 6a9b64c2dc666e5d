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
        remedy: What to do about this kind of error, where its message says nothing more precise.
        expected: What was expected, in words, or None.
        actual: What was found instead, or None.
        where: A tensor's name, a path or a receipt, or None.
    """

    code = "error"
    remedy = "Read the message; where it names no command, `counterfoil doctor` looks at the installation."

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
    remedy = "Change the argument that the message names; nothing was recorded, so the call can be repeated."


class UnsupportedDtype(InvalidInput):
    """A tensor has no canonical encoding; `.where` names it."""

    code = "unsupported-dtype"
    remedy = "Convert the tensor that `.where` names to a dtype of `counterfoil.DTYPES`, or leave it out."


class ProofError(CounterfoilError):
    """A proof, an opening or a signature does not show what it claims."""

    code = "proof"
    remedy = (
        "Ask whoever made it for the proof, the opening or the signature of these bytes; do not accept these."
    )


class NotFound(CounterfoilError):
    """There is no such run, lane, file or contract."""

    code = "not-found"
    remedy = "Check the path or name in the message; `counterfoil inspect RUN` lists what a run folder holds."


class RunExists(CounterfoilError):
    """The folder or lane is taken already."""

    code = "exists"
    remedy = "Name another folder or lane, or continue this one with `Run.open`; nothing was overwritten."


class RunClosed(CounterfoilError):
    """The run was closed; open it again to continue it."""

    code = "closed"
    remedy = "Continue the run with `Run.open(path)`, which adds a resume receipt."


class RunLocked(CounterfoilError):
    """Another process, or another handle of this one, writes this lane."""

    code = "locked"
    remedy = (
        "End the other writer, or wait for it; several processes write one run by lanes of their "
        "own, `Run.join`."
    )


class StorageError(CounterfoilError):
    """The operating system could not read or write; what was flushed before is safe."""

    code = "storage"
    remedy = "Check the disk and the permissions of the path in the message, then continue with `Run.open`."


class StorageFull(StorageError):
    """The disk, the quota or the size limit is exhausted; what was flushed before is safe."""

    code = "storage-full"
    remedy = (
        "Free space, or raise the quota, then continue with `Run.open`; nothing that was flushed is lost."
    )


class CorruptJournal(CounterfoilError):
    """A file of the run was damaged in a way that an interrupted write cannot explain."""

    code = "journal-corrupt"
    remedy = (
        "Run `counterfoil doctor RUN`, which says what is damaged, and take a copy that is "
        "whole; it is never repaired by guessing."
    )


class KeyRefused(CounterfoilError):
    """A key is missing, exposed to others, or refused for this use."""

    code = "key"
    remedy = (
        "Do what the message says of the key: often `chmod 600 FILE`, `COUNTERFOIL_PASSWORD`, or "
        "`key=` to choose one."
    )


class ChainError(CounterfoilError):
    """A chain or its node refused or did not answer."""

    code = "chain"
    remedy = (
        "Run `counterfoil chain why`, which says what a submission waits for; name another node "
        "with `--chain`."
    )


class Unfinished(ChainError):
    """A submission waits in the outbox, which loses nothing; the message says why and what to do."""

    code = "unfinished"
    remedy = "Do what the message says, then `counterfoil chain resume`; nothing is paid twice."


class ReplayError(CounterfoilError):
    """A replay could not be carried out, which accuses nobody."""

    code = "replay"
    remedy = (
        "Prove the recipe with `counterfoil doctor recipe FILE`, and compare machines with "
        "`counterfoil environment RUN`."
    )


class DeviceError(CounterfoilError):
    """A GPU or its driver is missing, too old, or failed."""

    code = "device"
    remedy = (
        "See what is missing with `counterfoil.cuda.info()`; without a GPU, tensors are copied "
        "and hashed by the CPU."
    )


class InternalError(CounterfoilError):
    """A mistake of this package; please report it."""

    code = "internal"
    remedy = "Report it with the message, as CONTRIBUTING.md says, and the output of `counterfoil doctor`."


class Refuted(CounterfoilError):
    """Verification found something claimed to be false.

    Attributes:
        verdict: The verdict, with every edge that does not hold.
    """

    code = "refuted"
    remedy = (
        "Read `.verdict.broken`: each edge says what was expected and what lies there. Do not "
        "rely on the run."
    )

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
