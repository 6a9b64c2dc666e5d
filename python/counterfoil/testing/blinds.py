"""Blinded digests as docs/format.md has them, for who guesses at a lane's secret and does not have it."""

from __future__ import annotations

import hashlib
import hmac

from counterfoil import Commitment, Receipt
from counterfoil.testing.signing import type_hash


def derived(receipt: Receipt, field: str, secret: bytes) -> tuple[bytes, bytes]:
    """The blind and the entry key of a receipt's field, 32 bytes each, if this were the secret of its lane.

    Source:
        docs/format.md, section 3, "Blinds".
    """
    told = receipt.fields
    place = bytes(told["run"]) + bytes.fromhex(told["worker"][2:])
    place += told["lane"].to_bytes(4) + told["sequence"].to_bytes(8)
    context = place + type_hash(receipt.typed_data()) + field.encode()
    blind, key = (
        hmac.digest(secret, f"counterfoil.{purpose}.v1".encode() + context, "sha256")
        for purpose in ("blind", "entries")
    )
    return blind, key


def digest(state: Commitment, blind: bytes, key: bytes | None) -> bytes:
    """The digest, 32 bytes, of a state of one dense entry under a blind; with an entry key, of the blinded state.

    Source:
        docs/format.md, sections 2 and 3.
    """
    if key is None:
        return state.digest(blind)
    (entry,) = state.entries
    name, dtype = entry.name.encode(), entry.dtype.encode()
    root = _sha256(b"counterfoil.blinded-root.v1" + hmac.digest(key, name, "sha256") + entry.root)
    head = b"counterfoil.entry.v1\0\1" + len(name).to_bytes(2) + name + len(dtype).to_bytes(1) + dtype
    shape = len(entry.shape).to_bytes(1) + b"".join(each.to_bytes(8) for each in entry.shape)
    tree = _sha256(b"\0" + head + shape + entry.size.to_bytes(8) + root + bytes(2))
    counts = (1).to_bytes(8) + entry.size.to_bytes(8)
    identifier = _sha256(b"state/sha256-rfc9162")
    return _sha256(b"counterfoil.commitment.v1" + identifier + b"\2" + counts + tree + blind)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
