"""What `counterfoil doctor` looks at. It reads, and repairs nothing."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import counterfoil
from counterfoil import _native
from counterfoil.errors import CounterfoilError


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    ok: bool
    detail: str


def examine(run: Path | None, home: Path) -> list[Finding]:
    """Everything that can be said about this installation and, if given, a run folder."""
    findings = [*_installation(), *_keys(home)]
    return findings if run is None else findings + list(_run(run))


def _installation() -> Iterator[Finding]:
    yield Finding("python", True, f"{platform.python_version()} on {platform.platform()}")
    for name, needed in [("counterfoil", True), ("numpy", True), ("torch", False)]:
        try:
            yield Finding(name, True, version(name))
        except PackageNotFoundError:
            hint = "" if needed else " (needed to record and replay PyTorch)"
            yield Finding(name, not needed, f"not installed{hint}")
    expected = hashlib.sha256(b"\x00abc").digest()
    right = counterfoil.commit_bytes(b"abc").root == expected
    backend = _native.backends()[0]
    yield Finding("hashing", right, f"{backend}; {'agrees with' if right else 'differs from'} hashlib")
    gpus = counterfoil.cuda.info()
    yield Finding("gpu hashing", True, ", ".join(device.name for device in gpus.devices) or gpus.reason)


def _keys(home: Path) -> Iterator[Finding]:
    key, keystore = home / "device.key", home / "device.json"
    if "COUNTERFOIL_KEY" in os.environ:
        yield Finding("device key", True, "taken from COUNTERFOIL_KEY")
    elif keystore.exists():
        clear = f"; {key} still holds it in the clear, type: counterfoil key protect" if key.exists() else ""
        yield Finding("device key", not clear, f"{keystore}, protected by a password{clear}")
    elif not key.exists():
        yield Finding("device key", True, f"none yet; the first run makes {key}")
    for path in [key, *sorted((home / "lanes").glob("*"))]:
        # How many receipts left the device is no secret.
        if path.suffix != ".released" and path.exists() and path.stat().st_mode & 0o077:
            yield Finding("permissions", False, f"others can read {path}; type: chmod 600 {path}")
        elif path == key and path.exists():
            yield Finding("device key", True, f"{key}, readable by you alone")


def _run(run: Path) -> Iterator[Finding]:
    try:
        record = counterfoil.Record(run)
        receipts = [each for lane in record.lanes for each in record.receipts(*lane)]
    except CounterfoilError as error:
        yield Finding("run", False, str(error))
        return
    steps = sum(receipt.kind == "step" for receipt in receipts)
    detail = f"{len(receipts)} receipts of {steps} steps in {len(record.lanes)} lanes"
    yield Finding("run", bool(receipts), detail)
    torn = record.dropped_bytes
    hint = f"{torn} bytes of an unfinished frame; the next Run.open drops them" if torn else "whole"
    yield Finding("journal", torn == 0, hint)
    wanted = {
        entry.root: entry
        for receipt in receipts
        if receipt.kind == "checkpoint"
        for opened in record.opened(receipt).values()
        if opened.values is None
        for entry in opened.entries
        if entry.kind == "dense"
    }
    there = sum(_is_there(record, entry) for entry in wanted.values())
    yield Finding("objects", there == len(wanted), f"{there} of {len(wanted)} are there and intact")
    closed = [path for path in run.rglob("*") if not os.access(path, os.R_OK)]
    detail = f"{closed[0]} cannot be read" if closed else "all files can be read"
    yield Finding("files", not closed, detail)


def _is_there(record: counterfoil.Record, tensor: counterfoil.Entry) -> bool:
    try:
        return record.object(tensor) is not None
    except CounterfoilError:
        return False
