"""Receipts, heads and openings as the market's contracts read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from counterfoil import merkle
from counterfoil._native import Entry, Receipt, Record, TreeHead
from counterfoil.errors import NotFound
from counterfoil.market.terms import FIELDS

_CHUNK = 1024
_NOTHING: dict[str, Any] = {
    "body": b"",
    "field": 0,
    "blind": bytes(32),
    "count": 0,
    "size": 0,
    "entry": b"",
    "entryIndex": 0,
    "entryBlind": bytes(32),
    "entryProof": [],
    "chunk": b"",
    "chunkIndex": 0,
    "chunkProof": [],
}
"""What opens a state without entries, and every place at which there is nothing to open."""


def signed(receipt: Receipt | TreeHead) -> dict[str, Any]:
    """What was signed: `Receipts.Signed`."""
    type_hash, body = receipt.encoded
    return {"typeHash": type_hash, "body": body, "signature": receipt.signature}


def head(anchored: TreeHead) -> dict[str, Any]:
    """`IRunLedger.Head`."""
    return {"size": anchored.size, "root": anchored.root, "headDigest": anchored.digest}


def included(receipts: Sequence[Receipt], place: int) -> dict[str, Any]:
    """A receipt and its way to the head over `receipts`: `Receipts.Included`.

    Args:
        receipts: All receipts below the head, in order.
        place: Which of them; of an honest log that is its sequence.
    """
    leaves = [each.digest + each.signature for each in receipts]
    proof = merkle.inclusion_proof(leaves, place)
    return {"receipt": signed(receipts[place]), "index": place, "proof": proof}


def opening(record: Record, receipt: Receipt, field: str, entry: int, chunk: int) -> dict[str, Any]:
    """One kilobyte of one tensor of a step's field: `IOpenings.Opening`.

    Args:
        record: The run, whose ledger opens the field.
        receipt: Any of its worker's.
        field: One of `FIELDS`; a checkpoint's where the receipt is one.
        entry, chunk: Numbers of any size, taken modulo what there is, as `IChallenge.Place` has it.

    Raises:
        NotFound: The run's folder does not hold what is to be opened.
    """
    kind, _, name = field.rpartition(".")
    if receipt.kind != (kind or "step") or not any(receipt.fields[name]):
        return _NOTHING
    opened = record.opened(receipt).get(name)
    if opened is None:
        raise NotFound(f"the run does not open {field} of receipt {receipt.sequence}", where=field)
    found = _NOTHING | {"field": FIELDS[field], "blind": opened.blind}
    if not opened.entries:
        return found
    wanted = opened.entries[entry % len(opened.entries)]
    shown = json.loads(opened.prove(wanted.name).to_json())
    told = shown["entry"]
    found |= {
        "count": len(opened.entries),
        "size": int(shown["commitment"]["size"]),
        "entry": bytes.fromhex(told["entry"][2:]),
        "entryIndex": int(told["index"]),
        "entryBlind": bytes(32) if told["blind"] is None else bytes.fromhex(told["blind"][2:]),
        "entryProof": [bytes.fromhex(each[2:]) for each in told["proof"]],
    }
    if wanted.kind != "dense" or not wanted.size:
        return found
    content = (opened.values or {}).get(wanted.name) or _stored(record, wanted, receipt)
    chunks = [content[begin : begin + _CHUNK] for begin in range(0, len(content), _CHUNK)]
    place = chunk % len(chunks)
    proof = merkle.inclusion_proof(chunks, place)
    return found | {"chunk": chunks[place], "chunkIndex": place, "chunkProof": proof}


def _stored(record: Record, wanted: Entry, receipt: Receipt) -> bytes:
    content = record.object(wanted)
    if content is None:
        raise NotFound(
            f"the bytes of {wanted.name} at receipt {receipt.sequence} are not stored: a field that must be opened on "
            "demand needs a checkpoint of its step",
            where=wanted.name,
        )
    return content
