"""What `counterfoil doctor` looks at, and the one thing that it repairs: unfinished writes."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import counterfoil
from counterfoil import _native
from counterfoil.errors import CounterfoilError
from counterfoil.lookup import Finding


def examine(run: Path | None, home: Path, *, repair: bool = False) -> list[Finding]:
    """Everything that can be said about this installation and, if given, a run folder.

    With `repair`, unfinished writes at the ends of the run's journals are cut off first.
    """
    findings = [*_installation(), *_keys(home)]
    if run is not None:
        findings += [*_file_system(run), *_run(run, home, repair)]
    return findings


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
    for partial in sorted([*home.glob("*.partial"), *home.glob("lanes/*.partial")]):
        if ".released." not in partial.name:
            hint = f"if no counterfoil program is running, type: rm {shlex.quote(str(partial))}"
            yield Finding("unfinished write", False, f"{partial} may hold a secret in the clear; {hint}")
    for path in [key, *sorted((home / "lanes").glob("*"))]:
        # How many receipts left the device is no secret.
        if path.suffix != ".released" and path.exists() and path.stat().st_mode & 0o077:
            yield Finding(
                "permissions", False, f"others can read {path}; type: chmod 600 {shlex.quote(str(path))}"
            )
        elif path == key and path.exists():
            yield Finding("device key", True, f"{key}, readable by you alone")


def _file_system(run: Path) -> Iterator[Finding]:
    mounts = Path("/proc/mounts")
    if not (mounts.exists() and run.exists()):
        return
    place, kinds = run.resolve(), {}
    for line in mounts.read_text().splitlines():
        _, point, kind, *_ = line.split(" ")
        kinds[Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), point))] = kind
    kind = next((kinds[folder] for folder in (place, *place.parents) if folder in kinds), "unknown")
    yield Finding("file system", True, kind + _warning(kind))


def _warning(kind: str) -> str:
    if kind.startswith(("nfs", "cifs", "smb", "fuse.", "9p", "afs", "ceph", "lustre")):
        return (
            "; warning: whether locks exclude a second writer, and whether what was synchronised "
            "outlives a power failure, depends on the server; record on a local disk"
        )
    return ""


def _lanes(run: Path, run_id: str | None, home: Path, repair: bool) -> Iterator[Finding]:
    for path in sorted(run.glob("workers/*/*/journal")):
        worker, lane = path.parent.parent.name, path.parent.name
        name = f"{worker}/{lane}"
        try:
            receipts, heads, torn = _native.read_journal(path)
            released = None
            if run_id is not None:
                # Asking makes the key folder, and a report must not.
                there = (home / "released").exists()
                key = (bytes.fromhex(run_id[2:]), worker, int(lane))
                released = _native.released_receipts(*key) if there else None
            is_older = released is not None and released > receipts
            if is_older:
                detail = f"{released} receipts of {name} have left this device, {receipts} are here"
                hint = "an older copy or a damaged end; take the newest copy, or a new lane (Run.join)"
                yield Finding("released", False, f"{detail}: {hint}")
            held = f"{name}: {receipts} receipts, {heads} tree heads"
            unfinished = f"{held}; {torn} bytes of an unfinished write"
            if not torn:
                yield Finding("journal", True, f"{held}, whole")
            elif not repair:
                yield Finding("journal", False, f"{unfinished}; --repair or the next Run.open drops them")
            elif is_older or released is None:
                reason = "receipts are missing" if is_older else "this key folder does not know the lane"
                yield Finding("journal", False, f"{unfinished}, left there because {reason}")
            else:
                dropped = _native.repair_journal(path)
                yield Finding("journal", True, f"{held}; dropped {dropped} bytes of an unfinished write")
        except (CounterfoilError, ValueError) as error:
            yield Finding("journal", False, f"{name}: {error}")


def _run(run: Path, home: Path, repair: bool) -> Iterator[Finding]:
    try:
        record = counterfoil.Record(run)
        receipts = [each for lane in record.lanes for each in record.receipts(*lane)]
    except CounterfoilError as error:
        yield Finding("run", False, str(error))
        return
    steps = sum(receipt.kind == "step" for receipt in receipts)
    detail = f"{len(receipts)} receipts of {steps} steps in {len(record.lanes)} lanes"
    yield Finding("run", bool(receipts), detail)
    yield from _lanes(run, record.run, home, repair)
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
