"""A worker multiplies random matrices, and claims the units of work that its receipts tell.

Defence: units count when a job is finalised for which somebody paid reward and burn, and as many as that job asked for. What
receipts tell of themselves is credited to nobody.

Not shown is that paid work is of use: a requester who asks for nonsense pays the burn for it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from counterfoil import Key, Record, Run, commit_tensors
from counterfoil.attacks.markets import UNITS, finalised, opened, party, submitted
from counterfoil.market import Market

LAYER = "WorkSortition.credit"
CLAIMED = 10**6


@dataclass(frozen=True)
class Claim:
    """An anchored run, and who claims units for it."""

    market: Market
    worker: Key
    path: Path


def mount(folder: Path, *, honest: bool) -> Claim:
    """Records and anchors products of random matrices, or does a job."""
    market = opened(folder)
    if honest:
        work = submitted(market, folder, window=1)
        finalised(work)
        return Claim(market, work.worker, work.path)
    path, worker = folder / "run", party(market)
    random = np.random.default_rng(0)
    with Run.create(path, key=worker) as run:
        for step in range(1, UNITS + 1):
            product = random.random((8, 8)) @ random.random((8, 8))
            run.record_step(
                step, {"gradients": commit_tensors({"product": product}, keep=True)}, work_units=CLAIMED
            )
    market.chain.anchor(path, worker)
    return Claim(market, worker, path)


def undefended(case: Claim) -> str | None:
    """A roll that believes what anchored receipts tell."""
    if case.market.chain.head(case.path) is None:
        return "the run is not anchored"
    told = sum(each.fields["workUnits"] for each in Record(case.path).receipts() if each.kind == "step")
    return None if told else "it tells of no work"


def defended(case: Claim) -> str | None:
    """What the contract has credited to the worker."""
    credited = case.market.sortition.events("Credited", account=case.worker.address)
    return None if credited else "no unit is credited: nobody paid for this work"
