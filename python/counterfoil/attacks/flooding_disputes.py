"""Somebody disputes step after step of a run, so that it is never paid and nobody can judge them all.

Defence: each further dispute of a job costs twice as much as the one before, and none can begin when the challenge window
is over.

The price is the same for the honest, who have to lock it to dispute late: docs/economy.md, section "Flooding".
"""

from dataclasses import dataclass
from pathlib import Path

from counterfoil.attacks.markets import COIN, REWARD, Work, disputed, opened, party, refused, submitted
from counterfoil.market import Market

LAYER = "Submissions.bondOf"
FLOOD, BUDGET = 10, REWARD
"""Disputes that are too many, and what somebody spends on them: as much as the job is worth."""


@dataclass(frozen=True)
class Flood:
    """A job with a first dispute, how many more are to come, and what is left to pay for them, wei."""

    work: Work
    wanted: int
    budget: int


def mount(folder: Path, *, honest: bool) -> Flood:
    """Disputes a run once, and is about to dispute it ten times, or twice."""
    work = submitted(opened(folder), folder)
    first = _price(work.market, work)
    disputed(work, [party(work.market, COIN)])
    return Flood(work, 1 if honest else FLOOD - 1, BUDGET - first)


def undefended(case: Flood) -> str | None:
    """A court whose price is that of the first dispute each time."""
    flat = 4 * case.work.job.terms.fee
    return None if case.wanted * flat <= case.budget else "it is too expensive"


def defended(case: Flood) -> str | None:
    """Disputes on the chain until the money is spent."""
    market, rest = case.work.market, case.budget
    griefer = party(market)
    for number in range(case.wanted):
        price = _price(market, case.work)
        if price > rest:
            return f"dispute {number + 2} costs {price / COIN:g} coins: all is spent"
        rest -= price
        told = refused(lambda: market.dispute(case.work.job, 1, griefer))
        if told:
            return told
    return None


def _price(market: Market, work: Work) -> int:
    price: int = market.disputes.read("bondOf", work.job.id, work.job.terms.encoded())
    return price
