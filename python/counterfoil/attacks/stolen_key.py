"""A thief goes on signing with a session key behind its revocation.

Defence: the revocation stands on a chain, and what no earlier anchor covers does not count any more.
What the thief signed before counts, in that lane alone.
"""

import time
from pathlib import Path

import counterfoil
from counterfoil import Key, Run, Session
from counterfoil.attacks.judging import judged, without_a_chain
from counterfoil.attacks.ledgers import Dated, PublicChain, go_on

LAYER = "verify with a chain"
undefended = without_a_chain


def mount(folder: Path, *, honest: bool) -> Dated:
    """Anchors a run that a session key signed and revokes the key; the thief then records a step more."""
    path, chain = folder / "run", PublicChain.dev(folder / "chain")
    owner, session = Key.generate(), Key.generate()
    with Run.create(path, key=owner, session=Session(session)) as run:
        go_on(run, 2)
    chain.anchor(path, owner)
    time.sleep(1.1)  # blocks of one second have one time
    chain.revoke(session.address, owner)
    if not honest:
        with Run.open(path, key=session) as run:
            go_on(run)
    return Dated(path, chain)


def defended(case: Dated) -> str | None:
    """Asks the chain which keys are revoked."""
    return judged(lambda: counterfoil.verify(case.path, chain=case.chain))
