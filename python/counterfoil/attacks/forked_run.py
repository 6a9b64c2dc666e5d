"""A trainer goes on twice from one step, anchors both branches one after the other, and shows the better one.

Defence: the verdict excludes a second history only where every anchor that the chain holds was compared.
"""

from pathlib import Path

from counterfoil import Run
from counterfoil.attacks.judging import by_chain, without_a_chain
from counterfoil.attacks.ledgers import Dated, go_on, machine, two_histories

LAYER = "verify with a chain"
undefended, defended = without_a_chain, by_chain


def mount(folder: Path, *, honest: bool) -> Dated:
    """The branch that was anchored alone, or a longer one that was anchored behind it."""
    one, other, chain = two_histories(folder)
    if honest:
        return Dated(one, chain)
    with machine(folder / "copy"):
        with Run.open(other) as run:
            go_on(run, 2)
        chain.anchor(other)
    return Dated(other, chain)
