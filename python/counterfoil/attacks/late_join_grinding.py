"""A verifier joins when the block is known that draws a panel, with as many seats as win it.

Defence: a dispute's panel is drawn from the roll of its epoch, which nobody can join any more when the epoch has begun, and
by a block that comes later.
"""

from dataclasses import dataclass
from pathlib import Path

from counterfoil import Key
from counterfoil.attacks.markets import COIN, Work, disputed, drawn, opened, party, submitted
from counterfoil.sortition import draw

LAYER = "Disputes.draw"
PANEL, SETTLED, MOST = 3, (1, 1, 1, 1), 40


@dataclass(frozen=True)
class Late:
    """A dispute, and somebody who wants to judge it."""

    work: Work
    dispute: bytes
    verifier: Key


def mount(folder: Path, *, honest: bool) -> Late:
    """Enlists four verifiers and disputes a run; another one enlists before that, or behind it."""
    work = submitted(opened(folder), folder)
    verifier, market = party(work.market, MOST * COIN), work.market
    others = [] if honest else [party(market, COIN) for _ in SETTLED]
    dispute = disputed(work, [*others, verifier] if honest else others)
    if not honest:
        market.enlist(verifier)
    return Late(work, dispute, verifier)


def undefended(case: Late) -> str | None:
    """A roll that is open until it draws: with the block's hash known, the number of seats is chosen."""
    block = case.work.market.chain.rpc("eth_getBlockByNumber", ["latest", False])
    beacon = bytes.fromhex(block["hash"][2:])
    for seats in range(MOST + 1):
        weights = (*SETTLED, seats)
        won = sum(draw(beacon, slot, weights) == len(SETTLED) for slot in range(PANEL))
        if won > PANEL // 2:
            return None
    return f"no number of seats up to {MOST} wins the panel"


def defended(case: Late) -> str | None:
    """Draws the panel on the chain."""
    panel = drawn(case.work.market, case.dispute)
    if case.verifier.address.lower() in panel:
        return None
    return f"the roll was settled before: a panel of {len(panel)} without the newcomer"
