"""A worker is paid twice for one training: it submits the run of another job.

Defence: the nonce of an accepted job, which nobody knew before, goes into the id of its run, and the escrow takes no run of
another id. Another worker's run has another id as well.

Who signs the same content anew under the new nonce sells it a second time, and nothing here notices: each receipt is true,
and a replay gives the same. A requester who wants another training has to ask for another one, by its seed for instance.
"""

from dataclasses import dataclass
from pathlib import Path

from counterfoil import Record
from counterfoil.attacks.markets import UNITS, Work, accepted, opened, record, refused

LAYER = "JobEscrow.submit"
_EARLIER = bytes(32)
"""The nonce of an earlier job's run."""


@dataclass(frozen=True)
class Submission:
    """A job, and the run that its worker shows for it."""

    work: Work
    path: Path


def mount(folder: Path, *, honest: bool) -> Submission:
    """Accepts a job, and shows a run that was recorded for it or for an earlier one of the same specification."""
    work = accepted(opened(folder), folder)
    path = folder / "run"
    record(work, path, nonce=None if honest else _EARLIER)
    return Submission(work, path)


def undefended(case: Submission) -> str | None:
    """An escrow that looks at what was trained, by whom and how far, and not for whom."""
    record_ = Record(case.path)
    genesis, *_, close = record_.receipts()
    if genesis.fields["specification"] != case.work.job.terms.specification:
        return "it is a training of something else"
    if genesis.signer != case.work.worker.address or close.kind != "close":
        return "it is no finished run of the worker"
    return None if close.fields["step"] >= UNITS else "it has too few steps"


def defended(case: Submission) -> str | None:
    """Submits the run to the escrow."""
    return refused(lambda: case.work.market.submit(case.work.job, case.path, case.work.worker))
