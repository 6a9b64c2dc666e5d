"""A verifier says of each disputed step that it is as recorded, and looks at none.

Defence: a planted game, in which the requester and the worker are one party, which disputes its own false step: a vote
against the panel's verdict is paid nothing. Nobody can tell such a game from another one beforehand.

Shown is that this verifier loses the fee of this game, because the others of the panel looked. Not shown is that anybody
plants games, which costs the fees of the panel each time: no contract does it or pays for it. Agreeing earns less than
looking where the share of planted games is above what looking costs over a fee (`counterfoil simulate economy`, claim
`canaries`). A panel of which most never look pays itself for the false verdict.
"""

from dataclasses import dataclass
from pathlib import Path

from counterfoil import Key
from counterfoil.attacks.markets import (
    COIN,
    FEE,
    REFUTED,
    STAKE,
    UPHELD,
    Work,
    judged,
    opened,
    party,
    submitted,
)

LAYER = "Disputes.settle"


@dataclass(frozen=True)
class Game:
    """A settled game, and one of its verifiers."""

    work: Work
    dispute: bytes
    verifier: Key


def mount(folder: Path, *, honest: bool) -> Game:
    """Plants a false step, which two of three verifiers find; the third one looks as well, or agrees."""
    market = opened(folder)
    author = party(market, STAKE)
    work = submitted(market, folder, requester=author, worker=author)
    *others, verifier = [party(market, COIN) for _ in range(3)]
    said = REFUTED if honest else UPHELD
    dispute = judged(work, dict.fromkeys(others, REFUTED) | {verifier: said}, author)
    return Game(work, dispute, verifier)


def undefended(case: Game) -> str | None:
    """A panel whose members have a fee each for a vote, whatever it says."""
    votes = case.work.market.disputes.events(
        "Voted", case.work.job.block, id=case.dispute, verifier=case.verifier.address
    )
    return None if votes else "no vote, no fee"


def defended(case: Game) -> str | None:
    """What the verifier is owed for its vote."""
    owed = case.work.market.disputes.read("owed", case.verifier.address)
    return None if owed >= FEE else "the step was planted: its vote is against the verdict, and unpaid"
