"""Whoever kept a session key that was replaced signs with it in another lane, under its old permission.

Defence: a permission names run, lane, positions and kinds, and a receipt the permission under which it was signed.
"""

from pathlib import Path

from counterfoil import Key, Record, Run, Session
from counterfoil.attacks.judging import by_each_receipt, by_signatures
from counterfoil.attacks.ledgers import go_on
from counterfoil.testing.resign import resign

LAYER = "verify"
undefended, defended = by_each_receipt, by_signatures


def mount(folder: Path, *, honest: bool) -> Path:
    """A session key records lane 0, another one lane 1; the first then signs lane 1 anew."""
    path, owner, one = folder / "run", Key.generate(), Key.generate(folder / "session.key")
    with Run.create(path, key=owner, session=Session(one)) as run:
        go_on(run)
    with Run.join(path, lane=1, key=owner, session=Session(Key.generate())) as run:
        go_on(run)
    if not honest:
        secret = bytes.fromhex((folder / "session.key").read_text())
        permission = Record(path).receipts()[1].typed_data()["message"]["delegation"]
        resign(path, secret, lambda told: told.update(delegation=permission), lane=1)
    return path
