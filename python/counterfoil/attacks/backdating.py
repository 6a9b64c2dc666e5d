"""A worker who trained behind a deadline signs times before it into the receipts.

Defence: a receipt's own time proves nothing; the block of an anchor that covers it does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from counterfoil import Record
from counterfoil.attacks.judging import by_chain, by_each_receipt
from counterfoil.attacks.ledgers import Dated, PublicChain, backdate, device_secret, record

LAYER = "verify with a chain"
_HOUR = 3600


@dataclass(frozen=True)
class Delivery:
    """A run that was to be done by a deadline, in Unix seconds."""

    run: Dated
    deadline: int


def mount(folder: Path, *, honest: bool) -> Delivery:
    """Records a run an hour before the deadline, or an hour behind it with times of the day before."""
    path, chain = record(folder / "run"), PublicChain.dev(folder / "chain")
    if not honest:
        backdate(path, device_secret())
    chain.anchor(path)
    deadline = int(time.time()) + (_HOUR if honest else -_HOUR)
    return Delivery(Dated(path, chain), deadline)


def undefended(case: Delivery) -> str | None:
    """Judges by the times that signed receipts tell."""
    latest = max(
        receipt.fields["time"] // 1000 for receipt in Record(case.run.path).receipts() if receipt.sequence
    )
    return by_each_receipt(case.run.path) or _late(latest - case.deadline)


def defended(case: Delivery) -> str | None:
    """Judges by the time of the blocks that anchor every receipt."""
    refused = by_chain(case.run)
    if refused is not None:
        return refused
    confirmed = filter(None, map(case.run.chain.confirm, Record(case.run.path).anchors))
    return _late(max(block_time for *_, block_time in confirmed) - case.deadline)


def _late(seconds: int) -> str | None:
    return f"{seconds} seconds behind the deadline" if seconds > 0 else None
