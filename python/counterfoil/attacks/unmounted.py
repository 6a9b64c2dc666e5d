"""Attacks that are not mounted here, each with why: they are claimed to be caught by nobody."""

from counterfoil.economy import Parameters
from counterfoil.economy.beacons import bias
from counterfoil.economy.verifiers import bad_majority

_SEATS, _THEIRS = 300, 100
_FIRST, _FINAL = (bad_majority(_SEATS, _THEIRS, panel) for panel in (3, 7))

UNMOUNTED: tuple[tuple[str, str, str], ...] = (
    (
        "colluding-validators",
        "open",
        "a verdict is the word of a panel: who holds a third of the seats has most of a first panel of three with "
        f"{_FIRST:.0%} and most of an appeal's seven with {_FINAL:.0%}, and nothing catches a panel that agrees",
    ),
    (
        "undecryptable-delivery",
        "open",
        "results are handed over in the clear, outside of the chain: nothing encrypts them, and no contract could see "
        "whether a key opens what was handed over; a demand, as of undelivered-result, shows single kilobytes to everybody",
    ),
    (
        "beacon-bias",
        "open",
        f"the hash of one block draws, and whoever makes that block can withhold it. With the economy's defaults "
        f"{bias(Parameters())}",
    ),
    (
        "preference-poisoning",
        "open",
        "receipts say who preferred what; that a rater does not mean it leaves no trace before somebody is hurt by it",
    ),
    (
        "sybil-raters",
        "open",
        "keys cost nothing: verdicts count keys, and a collection may name whom it trusts",
    ),
    (
        "gradient-inversion",
        "out of scope",
        "receipts hide gradients by blinding; whoever is given stored gradients or contributions can invert them",
    ),
)
"""Name, `open` or `out of scope`, and the reason."""
