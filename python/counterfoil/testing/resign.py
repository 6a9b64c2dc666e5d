"""History that its worker signs anew: what a run says is changed, and all that follows from it.

Whoever holds the worker's own key can do this, and no signature or link shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from counterfoil import Record, merkle
from counterfoil.testing.signing import sign, typed_body, typed_digest
from counterfoil.testing.tamper import HEAD, OPENING, RECEIPT, read_frames, write_frames

Change = Callable[[dict[str, Any]], object]
"""Changes a receipt's fields by name, as EIP-712 has them in JSON."""


def resign(run: Path, secret: bytes, change: Change, *, worker: str | None = None, lane: int = 0) -> None:
    """Changes the receipts of a closed lane, and makes every link, signature and its last head anew.

    Args:
        run: The run folder.
        secret: The 32 bytes of the key that signs.
        change: Called with each receipt's fields.
        worker: The lane's worker, the run's owner by default.
        lane: Its number.
    """
    record = Record(run)
    receipts = record.receipts(worker, lane)
    head = record.tree_head(worker, lane)
    assert head is not None, "a closed lane has a head"
    path = run / "workers" / (worker or receipts[0].fields["worker"]).lower() / str(lane) / "journal"
    signed, names, previous = [], {}, ""
    for receipt in receipts:
        document = receipt.typed_data()
        if receipt.kind != "genesis":
            document["message"]["previous"] = previous or document["message"]["previous"]
        change(document["message"])
        digest = typed_digest(document)
        names[receipt.digest] = digest
        previous = "0x" + digest.hex()
        signed.append((digest + sign(digest, secret), typed_body(document)))
    frames, behind = [], iter(signed)
    for frame in read_frames(path):
        if frame[:1] == RECEIPT:
            leaf, body = next(behind)
            frame = frame[:3] + leaf + body
        elif frame[:1] == OPENING:
            frame = OPENING + names[frame[1:33]] + frame[33:]
        if frame[:1] != HEAD:
            frames.append(frame)
    document = head.typed_data()
    document["message"]["root"] = "0x" + merkle.root([leaf for leaf, _ in signed]).hex()
    document["message"]["previousHead"] = "0x" + bytes(32).hex()
    frames.append(HEAD + sign(typed_digest(document), secret) + typed_body(document))
    write_frames(path, frames)
