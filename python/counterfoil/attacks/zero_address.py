"""Somebody without any key signs a run that nobody registered, with signatures of which nobody can be recovered.

Defence: a signature from which no key follows is refused, before anything is compared with it.
"""

from pathlib import Path

from counterfoil import Record
from counterfoil.attacks.evm import call, ecrecover
from counterfoil.attacks.judging import by_signatures
from counterfoil.attacks.ledgers import Dated, PublicChain, headless, resigned

LAYER = "verify"


def mount(folder: Path, *, honest: bool) -> Dated:
    """Records a run, and writes noise with an impossible `v` in the place of its signatures."""
    path = headless(folder)
    if not honest:
        resigned(path, lambda signature: bytes(64) + b"\0", every=True)
    return Dated(path, PublicChain.dev(folder / "chain"))


def undefended(case: Dated) -> str | None:
    """A contract that compares what `ecrecover` gives with the registered owner, zero where there is none."""
    record = Record(case.path)
    assert record.run is not None, "the run has a genesis receipt"
    owner = call(case.chain, "ownerOf(bytes32)", bytes.fromhex(record.run[2:]))[12:]
    for receipt in record.receipts():
        signer = ecrecover(case.chain, receipt.digest, receipt.signature)
        if signer != owner:
            return f"receipt {receipt.sequence} is signed by 0x{signer.hex()}, the owner is 0x{owner.hex()}"
    return None


def defended(case: Dated) -> str | None:
    """The library's own check."""
    return by_signatures(case.path)
