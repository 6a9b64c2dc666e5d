"""Somebody lists another owner's dataset as its own, to be paid where it is used.

Defence: none. A listing names a root, a licence and a price, and says who is paid. A use is proved by the root that a run's
first receipt commits to.

Not caught: the root of a copy is the same root, and whoever knows it can list it; a copy with one changed byte has another
root, and is another dataset. Who pays chooses the listing that it pays into. The dates of `Listed` say who was first on
that chain, which is no title.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from counterfoil import Chain, Key, commit_tensors
from counterfoil.attacks.markets import COIN, refused
from counterfoil.contracts import Contract

LAYER = "none"
_LICENCE = bytes(32)


@dataclass(frozen=True)
class Offer:
    """The contract of listings, a dataset's root, and who lists it."""

    listings: Contract
    root: bytes
    seller: Key


def mount(folder: Path, *, honest: bool) -> Offer:
    """An owner lists its dataset; somebody else is about to list a copy of it, or a dataset of its own."""
    chain = Chain.dev(folder / "chain")
    listings = Contract.deploy(chain, "DataListing", chain.contract)
    (owned,) = commit_tensors({"samples": np.arange(3)}).entries
    (other,) = commit_tensors({"samples": np.arange(4)}).entries
    listings.send("list", owned.root, _LICENCE, COIN)
    seller = Key.generate()
    chain.rpc("anvil_setBalance", [seller.address, hex(100 * COIN)])
    return Offer(listings, other.root if honest else owned.root, seller)


def undefended(case: Offer) -> str | None:
    """A list of offers that takes what has a price."""
    return None if case.root else "nothing is offered"


def defended(case: Offer) -> str | None:
    """Lists it on the chain."""
    return refused(lambda: case.listings.send("list", case.root, _LICENCE, COIN // 2, key=case.seller))
