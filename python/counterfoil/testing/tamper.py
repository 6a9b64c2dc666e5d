"""Six ways to falsify a recorded run, as someone with an editor and this format's page would.

Frames are written back with right lengths and checksums: a disk that fails looks different, and
a forger does not stop at a checksum. None of these has the key; see `counterfoil.torch.demo` for
a liar who has.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

RECEIPT, HEAD, OPENING = b"R", b"H", b"O"
STEP, CHECKPOINT = 3, 5
METRICS, PARAMETERS = 12, 1
"""Positions of two fields after the header, in a step and in a checkpoint receipt."""


def read_frames(path: Path) -> list[bytes]:
    """The payloads of a whole journal, the header's first."""
    data, frames = path.read_bytes(), []
    while data:
        (length,) = struct.unpack(">I", data[:4])
        frames.append(data[16 : 16 + length])
        data = data[16 + length :]
    return frames


def write_frames(path: Path, frames: list[bytes]) -> None:
    """Writes a journal with these payloads, as if each had been synchronised alone."""
    path.write_bytes(b"".join(_head(frame) + frame for frame in frames))


def _head(frame: bytes) -> bytes:
    head = struct.pack(">III", len(frame), 0, _crc32c(frame))
    return head + struct.pack(">I", _crc32c(head))


def _crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _table()


def _edit(run: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    (journal,) = run.glob("workers/*/0/journal")
    write_frames(journal, change(read_frames(journal)))


def places_of(frames: list[bytes], kind: int) -> list[int]:
    """Which of a journal's payloads are receipts of this kind."""
    head = RECEIPT + struct.pack(">H", kind)
    return [at for at, frame in enumerate(frames) if frame.startswith(head)]


def _fields(opening: bytes) -> dict[int, tuple[int, int]]:
    """Where the payload of each opened field begins and ends."""
    found, at = {}, 33
    while at < len(opening):
        (length,) = struct.unpack(">I", opening[at + 98 : at + 102])
        found[opening[at]] = (at + 102, at + 102 + length)
        at += 102 + length
    return found


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def edit_a_loss(run: Path) -> None:
    """Lowers the loss that the middle step's opening shows."""

    def change(frames: list[bytes]) -> list[bytes]:
        steps = places_of(frames, STEP)
        digest = frames[steps[len(steps) // 2]][3:35]
        at = next(at for at, frame in enumerate(frames) if frame.startswith(OPENING + digest))
        start, end = _fields(frames[at])[METRICS]
        (loss,) = struct.unpack("<d", frames[at][start:end])
        frames[at] = frames[at][:start] + struct.pack("<d", loss / 2) + frames[at][end:]
        return frames

    _edit(run, change)


def flip_a_checkpoint_weight(run: Path) -> None:
    """Flips one bit of a tensor stored with the last checkpoint."""
    (journal,) = run.glob("workers/*/0/journal")
    frames = read_frames(journal)
    digest = frames[places_of(frames, CHECKPOINT)[-1]][3:35]
    opening = next(frame for frame in frames if frame.startswith(OPENING + digest))
    start, _ = _fields(opening)[PARAMETERS]
    stored = run / "objects" / opening[start : start + 32].hex()
    stored.write_bytes(_flip(stored.read_bytes(), 2))


def change_a_receipt(run: Path) -> None:
    """Changes the gradient's digest in the body of the middle step's receipt."""

    def change(frames: list[bytes]) -> list[bytes]:
        steps = places_of(frames, STEP)
        at = steps[len(steps) // 2]
        frames[at] = _flip(frames[at], 100 + 32 * (8 + 5))
        return frames

    _edit(run, change)


def drop_a_receipt(run: Path) -> None:
    """Leaves out the middle step's receipt."""

    def change(frames: list[bytes]) -> list[bytes]:
        steps = places_of(frames, STEP)
        del frames[steps[len(steps) // 2]]
        return frames

    _edit(run, change)


def cut_behind_the_anchor(run: Path) -> None:
    """Ends the ledger at its middle step, as if the rest had never happened."""

    def change(frames: list[bytes]) -> list[bytes]:
        steps = places_of(frames, STEP)
        return [frame for frame in frames[: steps[len(steps) // 2] + 1] if not frame.startswith(HEAD)]

    _edit(run, change)


def edit_the_specification(run: Path) -> None:
    """Claims another seed than the run was created with."""
    path = run / "spec.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 2}, sort_keys=True))


TAMPERINGS: dict[str, Callable[[Path], None]] = {
    "loss edited": edit_a_loss,
    "weight flipped": flip_a_checkpoint_weight,
    "receipt changed": change_a_receipt,
    "receipt dropped": drop_a_receipt,
    "ledger cut": cut_behind_the_anchor,
    "spec edited": edit_the_specification,
}
