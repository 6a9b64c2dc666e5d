"""A thief copies a worker's results into a run of its own, and signs an earlier time into its receipts.

Defence: a chain dates both runs, and the worker's was there first. Who anchors nothing is not protected.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from counterfoil import Key, Record
from counterfoil.attacks.judging import by_chain, by_each_receipt
from counterfoil.attacks.ledgers import Dated, PublicChain, backdate, record

LAYER = "verify with a chain"


@dataclass(frozen=True)
class Claim:
    """Two runs with the same gradients, of which one is claimed to have had them first."""

    claimed: Path
    other: Path
    chain: PublicChain


def mount(folder: Path, *, honest: bool) -> Claim:
    """Records and anchors a worker's run, then a thief's with the same gradients and an earlier time."""
    chain = PublicChain.dev(folder / "chain")
    worker, stolen = record(folder / "worker"), folder / "stolen"
    chain.anchor(worker)
    time.sleep(1.1)  # blocks of one second have one time
    thief = Key.generate(folder / "thief.key")
    record(stolen, key=thief)
    backdate(stolen, bytes.fromhex((folder / "thief.key").read_text()))
    chain.anchor(stolen, thief)
    return Claim(worker, stolen, chain) if honest else Claim(stolen, worker, chain)


def undefended(case: Claim) -> str | None:
    """Whose receipts are signed, and tell the earlier time."""
    ours, theirs = _told(case.claimed), _told(case.other)
    return by_each_receipt(case.claimed) or (None if ours < theirs else "the other run tells an earlier time")


def defended(case: Claim) -> str | None:
    """Whose receipts a chain confirms, in the earlier block."""
    ours, theirs = _confirmed(case.claimed, case.chain), _confirmed(case.other, case.chain)
    late = f"anchored {ours - theirs} seconds behind the other run"
    return by_chain(Dated(case.claimed, case.chain)) or (None if ours < theirs else late)


def _told(path: Path) -> int:
    return min(int(receipt.fields["time"]) for receipt in Record(path).receipts())


def _confirmed(path: Path, chain: PublicChain) -> int:
    """Unix seconds of the run's first anchor that the chain holds."""
    answers = filter(None, map(chain.confirm, Record(path).anchors))
    return min(block_time for _, is_held, _, block_time in answers if is_held)
