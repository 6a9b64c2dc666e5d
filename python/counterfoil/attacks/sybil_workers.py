"""One party appears as ten, to have ten seats on the roll that panels are drawn from.

Defence: a seat costs its stake, whoever sits on it, and stake that leaves comes back later than any roll that it backed. Ten
keys with the stake of one have no seat; ten keys with the stake of ten have the seats that one key would have.
Work is counted in the same way, by the unit (`counterfoil simulate economy`, claim `sortition-splitting`).
"""

from dataclasses import dataclass
from pathlib import Path

from counterfoil import Key
from counterfoil.attacks.markets import COIN, opened, party, refused
from counterfoil.market import Market

LAYER = "Disputes.enlist"
IDENTITIES = 10


@dataclass(frozen=True)
class Crowd:
    """Keys of one party, which has staked one seat in total."""

    market: Market
    keys: list[Key]


def mount(folder: Path, *, honest: bool) -> Crowd:
    """Stakes one seat, behind one key or in tenths behind ten."""
    market, count = opened(folder), 1 if honest else IDENTITIES
    return Crowd(market, [party(market, COIN // count) for _ in range(count)])


def undefended(case: Crowd) -> str | None:
    """A list of keys, on which everybody has a seat who is not on it yet."""
    seats = {key.address for key in case.keys}
    return None if len(seats) == len(case.keys) else "a key is on the list already"


def defended(case: Crowd) -> str | None:
    """Enlists each key for the next epoch."""
    found = [refused(lambda key=key: case.market.enlist(key)) for key in case.keys]  # type: ignore[misc]
    return next((each for each in found if each is not None), None)
