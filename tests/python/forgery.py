"""What a liar can do to a run folder: rewrite frames, and sign them anew with the real key."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from eth_keys import keys

import oracle
import samples
from oracle import HEAD, ZERO, Ledger, OpenedField, OpeningFrame, ReceiptFrame

HEADER_FIELDS = 8
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def rewrite(run: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Replaces the payloads of the journal's frames; the frames themselves stay whole."""
    path = samples.journal(run)
    path.write_bytes(oracle.journal(change(oracle.frames(path.read_bytes()))))


def change_receipt(run: Path, sequence: int, change: Callable[[ReceiptFrame], ReceiptFrame]) -> None:
    """Replaces one receipt frame and nothing else."""

    def change_one(payloads: list[bytes]) -> list[bytes]:
        places = [at for at, payload in enumerate(payloads) if payload[:1] == b"R"]
        at = places[sequence]
        return [
            *payloads[:at],
            change(ReceiptFrame.decode(payloads[at])).encode(),
            *payloads[at + 1 :],
        ]

    rewrite(run, change_one)


def sign(digest: bytes, secret: bytes) -> bytes:
    signature = keys.PrivateKey(secret).sign_msg_hash(digest).to_bytes()
    return signature[:64] + bytes([signature[64] + 27])


def other_half(signature: bytes) -> bytes:
    """The same signature with `s` in the upper half: valid for a verifier that does not look."""
    s = CURVE_ORDER - int.from_bytes(signature[32:64])
    return signature[:32] + s.to_bytes(32) + bytes([55 - signature[64]])


def resign(
    run: Path,
    secret: bytes,
    bodies: dict[int, Callable[[bytes], bytes]],
    openings: dict[int, OpeningFrame] | None = None,
    drop: frozenset[int] = frozenset(),
) -> None:
    """Rewrites history: changed bodies, every link and signature made anew with the real key.

    `drop` leaves out receipts; the sequence numbers behind them close up.
    """
    renamed: dict[bytes, bytes] = {}
    leaves: list[bytes] = []
    receipts: dict[bytes, ReceiptFrame] = {}
    path = samples.journal(run)
    ledger = Ledger.read(path)
    previous = ZERO
    for sequence, receipt in enumerate(ledger.receipts):
        if sequence in drop:
            continue
        body = bodies.get(sequence, lambda body: body)(receipt.body)
        body = receipt.kind.with_word(body, "previous", previous)
        body = receipt.kind.with_word(body, "sequence", oracle.word(len(leaves)))
        previous = receipt.kind.digest(body)
        new = ReceiptFrame(receipt.kind, previous, sign(previous, secret), body)
        renamed[receipt.digest] = previous
        receipts[receipt.digest] = new
        leaves.append(new.leaf)
    replaced = {ledger.receipts[at].digest: frame for at, frame in (openings or {}).items()}
    payloads, head = [ledger.payloads[0]], ZERO
    for payload in ledger.payloads[1:]:
        kind = payload[:1]
        if kind == b"R":
            digest = ReceiptFrame.decode(payload).digest
            payload = receipts[digest].encode() if digest in receipts else b""
        elif kind == b"O":
            frame = OpeningFrame.decode(payload)
            frame = replaced.get(frame.receipt, frame)
            if frame.receipt in renamed:
                payload = replace(frame, receipt=renamed[frame.receipt]).encode()
            else:
                payload = b""
        elif kind == b"H":
            body = payload[66:]
            size = min(int.from_bytes(HEAD.word(body, "size")), len(leaves))
            body = HEAD.with_word(body, "size", oracle.word(size))
            body = HEAD.with_word(body, "root", oracle.root(leaves[:size]))
            body = HEAD.with_word(body, "previousHead", head)
            head = HEAD.digest(body)
            payload = b"H" + sign(head, secret) + body
        if payload:
            payloads.append(payload)
    path.write_bytes(oracle.journal(payloads))


def change_scalar(run: Path, secret: bytes, sequence: int, field: str, value: float) -> None:
    """The careful liar: one recorded number, its opening, and all that follows from them."""
    ledger = Ledger.read(samples.journal(run))
    receipt = ledger.receipts[sequence]
    names = [name for _, name in receipt.kind.fields[HEADER_FIELDS:]]
    (frame,) = [each for each in ledger.openings if each.receipt == receipt.digest]
    digest = ZERO

    def changed(opened: OpenedField) -> OpenedField:
        nonlocal digest
        if names[opened.index] != field:
            return opened
        new = replace(opened, payload=struct.pack("<d", value))
        digest = oracle.state_digest(new.entries(ledger.layouts), new.blind, new.entry_key)
        return new

    frame = replace(frame, fields=tuple(changed(each) for each in frame.fields))
    assert digest != ZERO
    resign(
        run,
        secret,
        {sequence: lambda body: receipt.kind.with_word(body, field, digest)},
        {sequence: frame},
    )
