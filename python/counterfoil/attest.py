"""Signed answers of whoever executes another one's steps again (docs/format.md, section 16).

They lie in a lane of the replayer's own, which is no part of the training. Whoever trusts the replayer counts them;
to everybody else they are words. Under a beacon an answer is promised first and revealed later, so that nobody can
copy it: it depends on every chunk of what was computed, and on who answers.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterfoil._native import Key, Receipt, Record
from counterfoil.commit import describe
from counterfoil.durable import replace
from counterfoil.errors import InvalidInput, NotFound
from counterfoil.run import Run

SAME, OTHER = 1, 2
RESULT = ("contribution", "gradients", "parameters", "optimizer", "buffers")
"""The fields that a step computes, in the order of the receipt's type."""
_CHUNK, _LARGEST = 1024, 64 << 20


def answer(
    beacon: bytes, replayer: str, replayed: Receipt, computed: Mapping[str, Mapping[str, Any]]
) -> bytes:
    """What only somebody can say who holds every chunk of a step's result.

    Args:
        beacon: 32 bytes that nobody knew before; zero for none.
        replayer: Address of whoever answers.
        replayed: The step's receipt.
        computed: The result by field: named tensors.

    Source:
        docs/format.md, section 16.
    """
    whole = hashlib.sha256(b"counterfoil.replay.v1" + beacon + bytes.fromhex(replayer[2:]) + replayed.digest)
    for field in (field for field in RESULT if any(replayed.fields[field])):
        for _, value in sorted(computed.get(field, {}).items(), key=lambda item: item[0].encode()):
            flat = describe(field, value).data
            content = b"" if flat is None else flat.tobytes()
            for begin in range(0, len(content), _CHUNK):
                whole.update(hashlib.sha256(b"\x00" + content[begin : begin + _CHUNK]).digest())
    return whole.digest()


class Attestation:
    """A replayer's lane of a run, which holds what came of the steps that were executed again.

    Args:
        record: The run, in a folder.
        key: The replayer's; no worker's of this run.
        beacon: 32 bytes under which answers are promised, for `reveal`; None to give them at once.

    Raises:
        InvalidInput: It is a bundle, or the key trains here.
    """

    def __init__(self, record: Record, key: Key, beacon: bytes | None) -> None:
        path = Path(record.path)
        if not path.is_dir():
            raise InvalidInput("a bundle is not written to: attest in a folder of the run", where=str(path))
        own = [lane for worker, lane in record.lanes if worker == key.address]
        receipts = record.receipts(key.address, 0) if 0 in own else []
        if own not in ([], [0]) or any(each.kind == "step" for each in receipts):
            raise InvalidInput(f"{key.address} trains in this run, and cannot attest to it", where="key")
        if beacon is not None and (len(beacon) != 32 or not any(beacon)):
            raise InvalidInput("a beacon has 32 bytes, and not all of them are zero", where="beacon")
        self._beacon, self._file = beacon or bytes(32), _promises(path, key)
        said = [each.fields for each in receipts if each.kind == "replay" and each.signer == key.address]
        self._promised = [each for each, _ in _kept(self._file, record, said)]
        self._said = {(each["receipt"], each["beacon"]) for each in said}
        told = [(each["receipt"], each["beacon"], each["outcome"]) for each in said]
        told += [
            (bytes.fromhex(each["receipt"]), bytes.fromhex(each["beacon"]), each["outcome"])
            for each in self._promised
        ]
        self._same = {(receipt, under) for receipt, under, outcome in told if outcome == SAME}
        self._lock = threading.Lock()
        self._run = Run.open(path, key=key) if own else Run.join(path, lane=0, key=key, observes=True)

    def __enter__(self) -> Attestation:
        return self

    def __exit__(self, *_: object) -> None:
        self._run.close()

    def knows(self, replayed: Receipt) -> bool:
        """Whether it was said before that the step came out the same."""
        return (replayed.digest, self._beacon) in self._same

    def add(self, replayed: Receipt, outcome: int, computed: Mapping[str, Mapping[str, Any]]) -> None:
        """Signs what came of a step, durably and once."""
        with self._lock:
            if (replayed.digest, self._beacon) not in self._said:
                self._said.add((replayed.digest, self._beacon))
                self._add(replayed, outcome, computed)

    def _add(self, replayed: Receipt, outcome: int, computed: Mapping[str, Mapping[str, Any]]) -> None:
        given = answer(self._beacon, self._run.worker, replayed, computed)
        if any(self._beacon):
            salt = secrets.token_bytes(32)
            commitment = promise(salt, given, outcome)
            told = {"receipt": replayed.digest, "beacon": self._beacon, "answer": given, "salt": salt}
            where = {name: replayed.fields[name] for name in ("worker", "lane")}
            hexed = {name: value.hex() for name, value in told.items()}
            self._promised.append(hexed | where | {"outcome": outcome})
            # First: a promise whose answer is lost can never be kept.
            replace(self._file, json.dumps(self._promised).encode())
            self._run.record_replay(replayed, outcome=0, beacon=self._beacon, commitment=commitment)
        else:
            self._run.record_replay(replayed, outcome=outcome, answer=given)
        self._run.flush()


def promise(salt: bytes, answer: bytes, outcome: int) -> bytes:
    """What binds an answer without showing it (docs/format.md, section 16)."""
    return hashlib.sha256(
        b"counterfoil.replay-commitment.v1" + salt + answer + outcome.to_bytes(2, "big")
    ).digest()


def reveal(path: str | os.PathLike[str], key: Key | None = None) -> int:
    """Signs the answers that were promised in a run's folder.

    Args:
        path: The run's folder.
        key: The replayer's; by default the device key.

    Returns:
        How many.

    Raises:
        NotFound: Nothing was promised with this key.
    """
    key = key or Key.device()
    file = _promises(Path(path), key)
    if not file.exists():
        raise NotFound(f"{key.address} has promised nothing in {path}", where=str(file))
    record = Record(path)
    said = [each.fields for each in record.receipts(key.address) if each.signer == key.address]
    promised = _kept(file, record, [each for each in said if "outcome" in each])
    with Run.open(path, key=key) as run:
        for each, replayed in promised:
            beacon, given, salt = (bytes.fromhex(each[name]) for name in ("beacon", "answer", "salt"))
            run.record_replay(
                replayed,
                outcome=each["outcome"],
                answer=given,
                beacon=beacon,
                commitment=promise(salt, given, each["outcome"]),
                salt=salt,
            )
    file.unlink()
    return len(promised)


def _promises(path: Path, key: Key) -> Path:
    return path / "promised" / f"{key.address.lower()}.json"


def _kept(
    file: Path, record: Record, said: Sequence[Mapping[str, Any]]
) -> list[tuple[dict[str, Any], Receipt]]:
    """The promises in a file which a lane's receipts bind and no answer has met, each with the step's receipt.

    The file is nobody's word: it may be older than the lane, or somebody else's.

    Raises:
        InvalidInput: It holds something else.
    """
    if not file.exists():
        return []
    promised = {each["commitment"] for each in said if each["outcome"] == 0}
    answered = {each["commitment"] for each in said if each["outcome"] != 0}
    found = []
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        for each in json.loads(file.read_bytes()):
            given, salt, digest = (bytes.fromhex(each[name]) for name in ("answer", "salt", "receipt"))
            commitment = promise(salt, given, int(each["outcome"]))
            if commitment in promised - answered:
                receipts = record.receipts(each["worker"], int(each["lane"]))
                found.append((each, next(one for one in receipts if one.digest == digest)))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, StopIteration) as damaged:
        raise InvalidInput(
            f"{file} holds no promised answers ({damaged!a:.80}); without it they cannot be given",
            where=str(file),
        ) from None
    return found
