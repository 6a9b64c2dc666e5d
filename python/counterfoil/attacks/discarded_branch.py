"""A trainer goes on twice from one step in private, and anchors and shows only the branch that turned out better.

Not caught: what was neither anchored nor handed out leaves no trace, and that this was the only run is no claim of a
verdict (docs/threat-model.md).

Defence: anchors while a model trains leave less to discard.
"""

from pathlib import Path

from counterfoil.attacks.judging import by_chain, without_a_chain
from counterfoil.attacks.ledgers import Dated, PublicChain, machine, two_histories

LAYER = "verify with a chain"
undefended, defended = without_a_chain, by_chain


def mount(folder: Path, *, honest: bool) -> Dated:
    """Two branches of a run, of which one is anchored; the honest trainer has no other."""
    one, other, _ = two_histories(folder)
    chain = PublicChain.dev(folder / "public")
    with machine(folder / ("home" if honest else "copy")):
        chain.anchor(one if honest else other)
    return Dated(one if honest else other, chain)
