"""Somebody disputes honest work, so that its worker waits for its pay.

Defence: a dispute is paid in advance, with four fees. Of an upheld step the panel is paid out of them, the worker has one
fee for its wait and the rest is burned. Who is right has the bond back, less the panel's fees, and a bounty.

The worker does wait: a griefer who pays for it gets that, up to the end that `flooding-disputes` tells of.
"""

from dataclasses import dataclass
from pathlib import Path

from counterfoil import Key
from counterfoil.attacks.markets import COIN, REFUTED, UPHELD, Work, judged, opened, party, submitted

LAYER = "Disputes.settle"


@dataclass(frozen=True)
class Quarrel:
    """A settled dispute, who began it, and its price, wei."""

    work: Work
    challenger: Key
    price: int


def mount(folder: Path, *, honest: bool) -> Quarrel:
    """Disputes a step, which its panel finds to be right, or false."""
    work = submitted(opened(folder), folder)
    market, job = work.market, work.job
    verifiers, challenger = [party(market, COIN) for _ in range(3)], party(market)
    price = market.disputes.read("bondOf", job.id, job.terms.encoded())
    judged(work, dict.fromkeys(verifiers, REFUTED if honest else UPHELD), challenger)
    return Quarrel(work, challenger, price)


def undefended(case: Quarrel) -> str | None:
    """A court that is free: what it cost the challenger is to have written a transaction."""
    begun = case.work.market.disputes.events("Disputed", case.work.job.block, by=case.challenger.address)
    return None if begun else "there is no dispute"


def defended(case: Quarrel) -> str | None:
    """What is left of the bond, with the bounty."""
    back = case.work.market.owed(case.challenger.address)
    compensated = case.work.market.disputes.read("owed", case.work.worker.address)
    if back >= case.price:
        return None
    return f"the dispute cost {case.price / COIN:.4f} coins, {compensated / COIN:.4f} of them for the worker"
