"""A worker submits the digest of a result, answers the demand of a kilobyte, and never hands the rest over.

Defence: a run that nobody was given is disputed as a whole: a dispute names a place in the submitted log and shows
nothing of it. Verifiers vote against what they cannot be given, and the reward goes back. Whoever does not even answer the
demand loses the stake.

That a run was handed over is the panel's word. A worker who hands it to the panel alone is paid.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from counterfoil import Key, Record, export
from counterfoil.attacks.markets import COIN, REFUTED, UPHELD, Work, disputed, opened, party, submitted
from counterfoil.market import State, Verifier
from counterfoil.market.agents import DELIVERY, place

LAYER = "market.Verifier"
_RESULT = -2
"""The place of the result's receipt, from the end."""
_VOTE = 4
_PATIENCE = 120.0


@dataclass(frozen=True)
class Answered:
    """A job with an answered demand, the folder for what is handed over, a verifier and the dispute of it."""

    work: Work
    demand: bytes
    board: Path
    verifier: Key


def mount(folder: Path, *, honest: bool) -> Answered:
    """Submits a run and answers for a kilobyte of it; hands it over, or nothing."""
    work, board = submitted(opened(folder, vote=_VOTE), folder), folder / "board"
    market, record = work.market, Record(work.path)
    place(board, work.job).mkdir(parents=True)
    if honest:
        export(work.path, place(board, work.job) / DELIVERY, key=work.worker)
    where = (len(record.receipts()) + _RESULT, "checkpoint.parameters", 0, 0)
    demand = market.demand(work.job, where, party(market))
    market.answer(work.job, demand, record, work.worker)
    return Answered(work, demand, board, party(market, COIN))


def undefended(case: Answered) -> str | None:
    """A market in which the chain alone decides: it sees that the demand was answered."""
    demand = case.work.market.challenge.read("demandOf", case.demand)
    return None if demand["isSettled"] else "the demand is open"


def defended(case: Answered) -> str | None:
    """Has the run disputed, and a verifier who finds no fault in any run that it is given."""
    work, market = case.work, case.work.market
    verifier = Verifier(
        market, case.verifier, case.board, execute=lambda *_: (UPHELD, bytes(32)), say=lambda _: None
    )
    dispute, end = disputed(work, [case.verifier]), time.monotonic() + _PATIENCE
    while not market.disputes.read("disputeOf", dispute)["verdict"]:
        if time.monotonic() > end:
            raise AssertionError("a dispute without an end")
        verifier.tick()
        time.sleep(0.05)
    is_refuted = market.disputes.read("disputeOf", dispute)["verdict"] == REFUTED
    if is_refuted and market.state(work.job)["state"] == State.REFUSED:
        return "the panel was given no run: refuted, and the reward went back"
    return None
