"""A worker orders work from itself, to be drawn and rewarded for it.

Defence: a fee for each finalised unit is burned, and an epoch issues at most nine tenths of the fees that were burned for
the weights by which it is given away. So work for oneself costs a tenth of what it burns, whatever its share.

Who has another reason to be drawn than the issuance (to propose a block that is worth more) pays this price for it.
"""

from dataclasses import dataclass
from pathlib import Path

from counterfoil.attacks.markets import (
    COIN,
    PARAMETERS,
    STAKE,
    UNITS,
    Work,
    finalised,
    opened,
    party,
    submitted,
    wealth,
)
from counterfoil.market import Market

LAYER = "WorkSortition.issuance"


@dataclass(frozen=True)
class Finished:
    """A paid job, and what its worker had before it, wei."""

    work: Work
    before: int


def mount(folder: Path, *, honest: bool) -> Finished:
    """Does a job and has it paid, for somebody else or for oneself."""
    market = opened(folder)
    worker = party(market, STAKE)
    before = wealth(market, worker)
    requester = party(market) if honest else worker
    work = submitted(market, folder, window=1, requester=requester, worker=worker)
    finalised(work)
    return Finished(work, before)


def undefended(case: Finished) -> str | None:
    """A market that burns nothing, and issues what it likes."""
    burned = UNITS * PARAMETERS.fee_per_unit if case.work.requester is case.work.worker else 0
    return _pays(change(case) + burned + PARAMETERS.issuance)


def defended(case: Finished) -> str | None:
    """What the worker has in the end, together with all that the next epoch may issue for it."""
    return _pays(change(case) + _issued(case.work.market))


def change(case: Finished) -> int:
    """What the worker has more than before, wei; transactions are paid of it as well."""
    return wealth(case.work.market, case.work.worker) - case.before


def _issued(market: Market) -> int:
    (credited,) = market.sortition.events("Credited")
    issued: int = market.sortition.read("issuance", credited["fields"]["epoch"] + 1)
    return issued


def _pays(amount: int) -> str | None:
    return None if amount > 0 else f"it costs {-amount / COIN:.4f} coins, with all of the issuance"
