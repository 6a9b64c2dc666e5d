"""A worker signs two histories of its run, and takes its stake back before anybody shows the second one.

Defence: stake that leaves does so after a delay longer than any dispute that can have begun, and is slashed meanwhile.
"""

from dataclasses import dataclass
from pathlib import Path

from counterfoil import Record
from counterfoil.attacks.ledgers import machine
from counterfoil.attacks.markets import (
    COIN,
    STAKE,
    Work,
    finalised,
    opened,
    party,
    record,
    refused,
    submitted,
)
from counterfoil.market import find

LAYER = "StakeVault.exit"


@dataclass(frozen=True)
class Leaving:
    """A paid job whose worker takes its stake back, and a copy of the run from elsewhere."""

    work: Work
    copy: Path


def mount(folder: Path, *, honest: bool) -> Leaving:
    """Has a job paid and begins to leave; the copy is of the same history, or of another one."""
    work = submitted(opened(folder), folder, window=1)
    copy = work.path
    if not honest:
        with machine(folder / "home"):
            copy = record(work, folder / "copy", scale=2.0)
    finalised(work)
    work.market.begin_exit(STAKE, work.worker)
    return Leaving(work, copy)


def undefended(case: Leaving) -> str | None:
    """A vault that hands stake out as soon as no job holds it: what has left cannot be slashed."""
    stake = case.work.market.stake(case.work.worker.address)
    return "a job holds the stake" if stake["locked"] else None


def defended(case: Leaving) -> str | None:
    """The worker takes what it can, and then its histories are compared."""
    market, job, worker = case.work.market, case.work.job, case.work.worker
    early = refused(lambda: market.exit(worker))
    before = market.stake(worker.address)["leaving"]
    fault = find(job, Record(case.work.path), Record(case.copy))
    if fault is not None:
        market.prove(job, fault, party(market))
    lost = before - market.stake(worker.address)["leaving"]
    return f"{early}; then {lost / COIN:g} coins are slashed of what leaves" if lost else None
