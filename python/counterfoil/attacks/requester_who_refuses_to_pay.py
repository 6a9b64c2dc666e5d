"""A requester takes the result, and does not pay.

Defence: the reward lay in the escrow before anybody worked, and behind the challenge window anybody can finalise the job;
the requester is not asked, and can neither cancel nor take the money back.
"""

from dataclasses import dataclass
from pathlib import Path

from counterfoil.attacks.markets import PRICE, Work, opened, refused, submitted, until

LAYER = "JobEscrow.finalise"


@dataclass(frozen=True)
class Result:
    """A job that was done, and whether its requester pays willingly."""

    work: Work
    is_willing: bool


def mount(folder: Path, *, honest: bool) -> Result:
    """Does a job; a requester who does not pay tries to take the money back."""
    work = submitted(opened(folder), folder, window=1)
    market, job, key = work.market, work.job, work.requester
    until(market.state(job)["challengeEnds"])
    if honest:
        market.finalise(job, key)
    else:
        tried = [refused(lambda: market.cancel(job, key)), refused(lambda: market.reclaim(job, key))]
        assert all(tried), "the escrow gives nothing back"
    return Result(work, honest)


def undefended(case: Result) -> str | None:
    """An agreement: the money moves when the requester moves it."""
    return "the requester paid" if case.is_willing else None


def defended(case: Result) -> str | None:
    """The worker finalises the job itself, where that was not done."""
    market, work = case.work.market, case.work
    if not case.is_willing:
        market.finalise(work.job, work.worker)
    paid = market.escrow.read("owed", work.worker.address) >= PRICE
    return "the worker had itself paid out of the escrow" if paid and not case.is_willing else None
