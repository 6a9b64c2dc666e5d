"""A worker submits the digest of a result, is paid behind the challenge window, and never hands the result over.

Defence: anybody can demand a kilobyte of a state that the terms let be demanded; who does not answer on the chain in time is
convicted: the stake is slashed and the reward goes back.

A demand is of one kilobyte, and each further one on a job costs twice as much. A worker who answers the few that somebody
pays for, and delivers nothing else, is paid.
"""

from dataclasses import dataclass
from pathlib import Path

from counterfoil import Record
from counterfoil.attacks.markets import Work, opened, party, refused, submitted, until
from counterfoil.market import State

LAYER = "Challenge.expire"
_RESULT = -2
"""The place of the result's receipt, from the end."""


@dataclass(frozen=True)
class Demanded:
    """A job whose result somebody demanded, the demand, and whether its worker has the result."""

    work: Work
    demand: bytes
    is_there: bool


def mount(folder: Path, *, honest: bool) -> Demanded:
    """Submits a run, of which a kilobyte is demanded; the worker answers, or is silent."""
    work = submitted(opened(folder), folder)
    market, record = work.market, Record(work.path)
    place = (len(record.receipts()) + _RESULT, "checkpoint.parameters", 0, 0)
    demand = market.demand(work.job, place, party(market))
    if honest:
        market.answer(work.job, demand, record, work.worker)
    return Demanded(work, demand, honest)


def undefended(case: Demanded) -> str | None:
    """An escrow that pays what was submitted: it cannot see what was delivered."""
    state = case.work.market.state(case.work.job)["state"]
    return None if state == State.SUBMITTED else f"nothing is submitted: {state.name}"


def defended(case: Demanded) -> str | None:
    """Has the demand expire, when its time is over."""
    market, job = case.work.market, case.work.job
    until(market.challenge.read("demandOf", case.demand)["answerEnds"])
    told = refused(lambda: market.expire(job, case.demand, case.work.requester))
    if market.state(job)["state"] == State.REFUSED:
        return "the demand expired: reward back, stake slashed"
    return None if case.is_there else told
