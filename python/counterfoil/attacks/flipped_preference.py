"""A trainer names the raters' collection and turns one pair round in the dataset it trains on.

Its own run is consistent: what it signed it trained on.

Defence: the dataset of the first receipt is compared with the pairs that the raters signed.
"""

from dataclasses import replace
from pathlib import Path

from counterfoil import Key, alignment
from counterfoil.attacks.judging import by_signatures, judged
from counterfoil.attacks.preferring import PAIRS, prefer, train

LAYER = "alignment.check"


def mount(folder: Path, *, honest: bool) -> Path:
    """Trains on the collected pairs, of which the seventh is turned round."""
    owner = Key.generate()
    preferences, collection = prefer(folder / "preferences", owner)
    pairs = [each.pair or PAIRS[0] for each in alignment.collected(preferences, collection.digest)]
    if not honest:
        pairs[6] = replace(pairs[6], chosen=pairs[6].rejected, rejected=pairs[6].chosen)
    train(folder / "training", owner, pairs, preferences=alignment.pin(preferences, collection.digest))
    return folder


def undefended(folder: Path) -> str | None:
    """Verifies both runs, each alone."""
    return by_signatures(folder / "preferences") or by_signatures(folder / "training")


def defended(folder: Path) -> str | None:
    """Follows the training run to the preferences it names."""
    return judged(lambda: alignment.check(folder / "training", folder / "preferences"))
