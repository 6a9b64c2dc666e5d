"""Fingerprints: 2 KiB a tensor that tell how far it lies from one that somebody else computed.

A verifier on other hardware computes a gradient that differs in its last bits. What the distance may be is
for the verifier to say; what it is can be estimated from two fingerprints, without the recorded bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from counterfoil import _native
from counterfoil._native import Key, Receipt, Record
from counterfoil.commit import Description, commit_tensors, items
from counterfoil.errors import InvalidInput, NotFound
from counterfoil.run import Run
from counterfoil.sampling import choose

Sketches = dict[str, npt.NDArray[np.int64]]

SHAPE = (4, 64)
_UNIT = 2.0**-48
_OBSERVER = 3


def fingerprint(tensors: Mapping[str, Any], key: bytes) -> Sketches:
    """Sketches named tensors, on all cores. Order and devices do not matter.

    Args:
        tensors: As for `counterfoil.commit_tensors`; of float16, bfloat16, float32 or float64, whole, or
            None or an `Alias`, which add nothing.
        key: 32 bytes, which whoever chose the tensors did not know.

    Returns:
        An array of shape (4, 64), in units of 2^-48, for each `tensor/NAME` of 4,096 elements or more, and
        one for `pool`, all smaller ones together.

    Raises:
        UnsupportedDtype: A tensor is of another dtype; `.where` names it.
        InvalidInput: The key is not of 32 bytes, or a tensor is in parts.

    Example:
        >>> sketch = fingerprint({"w": np.ones(5000, np.float32), "b": np.zeros(3)}, bytes(32))
        >>> sorted(sketch), sketch["pool"].shape
        (['pool', 'tensor/w'], (4, 64))

    Source:
        docs/format.md, section 17.
    """
    return _native.fingerprint_tensors(dict(items(tensors)), key)


def distance(
    ours: Mapping[str, npt.NDArray[np.int64]], theirs: Mapping[str, npt.NDArray[np.int64]]
) -> dict[str, float]:
    """Estimates for each unit how far the two tensors lie apart.

    Args:
        ours: What `fingerprint` returned.
        theirs: Another one, of tensors with the same names and sizes and under the same key.

    Returns:
        For each unit an estimate of the Euclidean norm of the difference, in the tensors' own unit. Of the
        four rows the one that says most counts, since a difference must hide in each of them.

    Raises:
        InvalidInput: They do not have the same units, or an array is no sketch; `.where` names it.

    Example:
        >>> one, other = (fingerprint({"w": np.array(value)}, bytes(32)) for value in (1.5, 1.25))
        >>> distance(one, other)
        {'pool': 0.25}

    Source:
        docs/format.md, section 17; Charikar, Chen and Farach-Colton, "Finding frequent items in data
        streams" (ICALP 2002).
    """
    alone = sorted(ours.keys() ^ theirs.keys())
    if alone:
        raise InvalidInput(
            f"the fingerprints are of other tensors: only one of them has {alone[0]}",
            expected=" ".join(sorted(ours)),
            actual=" ".join(sorted(theirs)),
            where=alone[0],
        )
    return {unit: _apart(unit, ours[unit], theirs[unit]) for unit in ours}


def _apart(unit: str, ours: npt.NDArray[np.int64], theirs: npt.NDArray[np.int64]) -> float:
    for sketch in (ours, theirs):
        if sketch.shape != SHAPE or sketch.dtype != np.int64:
            raise InvalidInput(
                f"{unit} is no sketch",
                expected=f"int64 {SHAPE}",
                actual=f"{sketch.dtype} {sketch.shape}",
                where=unit,
            )
    # Modulo 2^64, as the sums themselves are.
    apart = (ours - theirs).astype(np.float64)
    return float(np.sqrt((apart * apart).sum(axis=1).max()) * _UNIT)


def own_key(step: bytes) -> bytes:
    """The key of a step that nobody gave one: it follows from the digest of its receipt, 32 bytes.

    Source:
        docs/format.md, section 17.
    """
    return hashlib.sha256(b"counterfoil.fingerprint-key.v1" + step).digest()


def publish(
    path: str | os.PathLike[str],
    steps: str | None = None,
    key: bytes | None = None,
    signer: Key | None = None,
) -> int:
    """Signs the fingerprints of recorded steps, from their stored gradients, in a lane that observes.

    Args:
        path: The run's folder; gradients are stored by `Run.attach(store_gradients=True)`.
        steps: `all`, or steps and spans such as `3,7:9`; by default those whose gradients are stored.
        key: The 32 bytes that a verifier or a beacon gave; by default each step's own key.
        signer: Signs; by default the device key, which may be that of the run's worker.

    Returns:
        How many were signed. Those that this key signed before are not signed again.

    Raises:
        NotFound: The gradients of a chosen step, or of every step, are not stored; `.where` names the step.
        InvalidInput: It is a bundle, the steps are not recorded, the key is not of 32 bytes, or is zero.
        UnsupportedDtype: A gradient has no fingerprint.
    """
    signer = signer or Key.device()
    if key is not None and (len(key) != 32 or not any(key)):
        raise InvalidInput("a key has 32 bytes, and not all of them are zero", where="key")
    if not Path(path).is_dir():
        raise InvalidInput("a bundle is not written to: publish in a folder of the run", where=str(path))
    record = Record(path)
    receipts = _steps(record)
    numbers = {receipt.fields["step"] for receipt in receipts}
    chosen = None if steps is None else set(choose(steps, max(numbers, default=0))) - {0}
    own, lane = _observing(record, signer)
    said = {
        (receipt.fields["receipt"], receipt.fields["key"])
        for receipt in (record.receipts(signer.address, lane) if own else ())
        if receipt.kind == "fingerprint"
    }
    made = []
    for receipt in receipts:
        if chosen is not None and receipt.fields["step"] not in chosen:
            continue
        gradients = _stored(record, receipt)
        if gradients is not None:
            if (receipt.digest, key or bytes(32)) not in said:
                sketches = fingerprint(gradients, key or own_key(receipt.digest))
                made.append((receipt, commit_tensors(sketches, keep=True)))
        elif chosen is not None:
            where = f"step {receipt.fields['step']}"
            raise NotFound(f"the gradients of {where} are not stored", where=where)
    if not made:
        if not said:
            raise NotFound("no gradients are stored: record with store_gradients=True", where=str(path))
        return 0
    opened = (
        Run.open(path, lane=lane, key=signer) if own else Run.join(path, lane=lane, key=signer, observes=True)
    )
    with opened as run:
        for receipt, sketch in made:
            run.record_fingerprint(receipt, key or bytes(32), sketch)
    return len(made)


def published(record: Record) -> dict[tuple[bytes, bytes], Sketches]:
    """The fingerprints that each step's own worker signed, as a run folder or a bundle has them.

    Args:
        record: The run. Whether its signatures hold, and whether what is signed is right where the gradients
            are stored, is for `counterfoil.verify` to say.

    Returns:
        By the digest of the step's receipt and the key, zero for the step's own, each 32 bytes: the sketch of
        each unit, int64 of shape (4, 64). Of two for one step and key the first counts.
    """
    steps = {
        (receipt.fields["worker"], receipt.fields["lane"], receipt.sequence, receipt.digest)
        for receipt in _steps(record)
    }
    found: dict[tuple[bytes, bytes], Sketches] = {}
    for worker, lane in record.lanes:
        for receipt in record.receipts(worker, lane):
            told = receipt.fields
            if receipt.kind != "fingerprint" or told["fingerprintedWorker"] != worker:
                continue
            of = (worker, told["fingerprintedLane"], told["fingerprintedSequence"], told["receipt"])
            opened = record.opened(receipt).get("sketch")
            if of not in steps or opened is None or opened.values is None:
                continue
            if all((entry.dtype, tuple(entry.shape)) == ("I64", SHAPE) for entry in opened.entries):
                sketches = {
                    unit: np.frombuffer(value, "<i8").astype(np.int64).reshape(SHAPE)
                    for unit, value in opened.values.items()
                }
                found.setdefault((told["receipt"], told["key"]), sketches)
    return found


def _steps(record: Record) -> list[Receipt]:
    return [
        receipt
        for worker, lane in record.lanes
        for receipt in record.receipts(worker, lane)
        if receipt.kind == "step"
    ]


def _observing(record: Record, signer: Key) -> tuple[bool, int]:
    """Whether this key observes in a lane already; and that lane, or a free number."""
    own = [lane for worker, lane in record.lanes if worker == signer.address]
    for lane in own:
        roles = (each.fields["role"] for each in record.receipts(signer.address, lane) if each.kind == "join")
        if _OBSERVER in roles:
            return True, lane
    return False, max(own, default=-1) + 1


def _stored(record: Record, receipt: Receipt) -> dict[str, Description] | None:
    """A step's gradients by name, or None unless there are some and all of them are stored."""
    opened = record.opened(receipt).get("gradients")
    tensors = [] if opened is None else [each for each in opened.entries if each.kind in ("dense", "sharded")]
    found = {}
    for entry in tensors:
        data = record.object(entry) if entry.kind == "dense" else None
        if data is None:
            return None
        found[entry.name] = Description(entry.dtype, entry.shape, np.frombuffer(data, np.uint8))
    return found or None
