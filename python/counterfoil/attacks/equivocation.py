"""A worker signs two histories of one run and shows each to another verifier.

Defence: whoever compares both copies has a proof against the worker: two signatures under one position.
"""

from pathlib import Path

from counterfoil import Record
from counterfoil.attacks.judging import by_signatures
from counterfoil.attacks.ledgers import two_histories

LAYER = "counterfoil histories"


def mount(folder: Path, *, honest: bool) -> tuple[Path, Path]:
    """Two copies of a run, which went on differently on two copies of its machine."""
    one, other, _ = two_histories(folder)
    return (one, one) if honest else (one, other)


def undefended(case: tuple[Path, Path]) -> str | None:
    """Each verifier sees one of them."""
    one, other = case
    return by_signatures(one) or by_signatures(other)


def defended(case: tuple[Path, Path]) -> str | None:
    """They compare what they were shown."""
    one, other = map(Record, case)
    found = one.contradiction(other)
    return None if found is None else f"{found.worker} signed a {found.kind}"
