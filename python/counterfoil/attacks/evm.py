"""What a contract sees: Ethereum's own recovery of a signature, and calls of the run ledger."""

from __future__ import annotations

from counterfoil import Chain
from counterfoil.testing.signing import keccak256

_ECRECOVER = "0x" + "1".rjust(40, "0")


def ecrecover(chain: Chain, digest: bytes, signature: bytes) -> bytes:
    """The 20 bytes of the address that signed, by the EVM's precompile; zeros where there is none.

    It takes `s` of either half, and Solidity reads its empty answer as the zero address.
    """
    words = digest + signature[64:].rjust(32, b"\0") + signature[:64]
    found = chain.rpc("eth_call", [{"to": _ECRECOVER, "data": "0x" + words.hex()}, "latest"])
    return bytes.fromhex(found[2:]).rjust(32, b"\0")[12:]


def call(chain: Chain, signature: str, words: bytes) -> bytes:
    """Calls a function of the run ledger without sending anything.

    Args:
        chain: Where it lies.
        signature: The function's name and types, as its selector is made of them.
        words: Its arguments as Solidity encodes them.

    Raises:
        ChainError: The contract refuses.
    """
    data = keccak256(signature.encode())[:4] + words
    return bytes.fromhex(
        chain.rpc("eth_call", [{"to": chain.contract, "data": "0x" + data.hex()}, "latest"])[2:]
    )
