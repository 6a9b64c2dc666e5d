"""A verifier executes nothing, repeats another one's sealed vote, and opens it with what the other one showed.

Defence: a vote is promised before any is shown, and the promise holds the voter's address: the same envelope is another
promise in other hands. The answer of a replay (docs/format.md, section 16) holds the address as well.

Who is told a vote in private copies it: a promise hides it only as long as the other one keeps the secret.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from counterfoil import Key
from counterfoil.attacks.markets import (
    COIN,
    UPHELD,
    disputed,
    drawn,
    opened,
    party,
    refused,
    submitted,
    until,
)
from counterfoil.market import Market

LAYER = "Disputes.reveal"
_SALT, _ANSWER = b"\x05" * 32, b"\x06" * 32


@dataclass(frozen=True)
class Opened:
    """A verifier's promise in a dispute, and what it opens it with."""

    market: Market
    dispute: bytes
    verifier: Key
    shown: tuple[int, bytes, bytes]
    sealed: bytes


def mount(folder: Path, *, honest: bool) -> Opened:
    """Two verifiers promise; the second has a vote of its own, or the envelope of the first, which then shows its vote."""
    work = submitted(opened(folder), folder)
    market, keys = work.market, [party(work.market, COIN) for _ in range(2)]
    dispute = disputed(work, keys)
    drawn(market, dispute)
    first, second = keys
    shown = (UPHELD, _ANSWER, _SALT)
    envelope = _promise(market, dispute, first, shown)
    own = _promise(market, dispute, second, shown) if honest else envelope
    for key, promise in ((first, envelope), (second, own)):
        market.disputes.send("commit", dispute, promise, key=key)
    until(market.disputes.read("roundOf", dispute, 0)["commitEnds"])
    market.disputes.send("reveal", dispute, *shown, key=first)
    return Opened(market, dispute, second, shown, _open_envelope(shown))


def undefended(case: Opened) -> str | None:
    """A ballot whose envelopes hold outcome, answer and salt alone."""
    return None if _open_envelope(case.shown) == case.sealed else "this opens another envelope"


def defended(case: Opened) -> str | None:
    """Opens the second promise on the chain."""
    return refused(lambda: case.market.disputes.send("reveal", case.dispute, *case.shown, key=case.verifier))


def _promise(market: Market, dispute: bytes, key: Key, shown: tuple[int, bytes, bytes]) -> bytes:
    promised: Any = market.disputes.read("voteOf", dispute, 0, key.address, *shown)
    return bytes(promised)


def _open_envelope(shown: tuple[int, bytes, bytes]) -> bytes:
    outcome, answer, salt = shown
    return sha256(bytes([outcome]) + answer + salt).digest()
