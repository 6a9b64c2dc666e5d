"""Somebody without the key makes a second signature of a receipt, and with it another leaf of the ledger.

Defence: one encoding of a signature is accepted, with `s` in the lower half of the curve's order.
"""

from pathlib import Path

from counterfoil import Record
from counterfoil.attacks.evm import ecrecover
from counterfoil.attacks.judging import by_signatures
from counterfoil.attacks.ledgers import Dated, PublicChain, headless, resigned
from counterfoil.testing.signing import other_half

LAYER = "verify"


def mount(folder: Path, *, honest: bool) -> Dated:
    """Records a run without a tree head, and replaces its last signature by the other one."""
    path = headless(folder)
    if not honest:
        resigned(path, other_half)
    return Dated(path, PublicChain.dev(folder / "chain"))


def undefended(case: Dated) -> str | None:
    """Recovers each signature as the EVM does."""
    for receipt in Record(case.path).receipts():
        signer = ecrecover(case.chain, receipt.digest, receipt.signature)
        if signer != bytes.fromhex(receipt.fields["worker"][2:]):
            return f"receipt {receipt.sequence} is signed by 0x{signer.hex()}"
    return None


def defended(case: Dated) -> str | None:
    """The library's own check."""
    return by_signatures(case.path)
