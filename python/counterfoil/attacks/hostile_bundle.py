"""A stranger hands over a bundle of which a part escapes the folder that it is unpacked in, or claims 64 GiB.

Defence: names and sizes are compared with what is allowed and what is there, before anything is written or reserved.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterfoil import Record, export
from counterfoil.attacks.judging import by_signatures
from counterfoil.attacks.ledgers import device_secret, record
from counterfoil.testing.signing import sign, typed_digest

LAYER = "verify"
_MANIFEST = len(b"counterfoil.bundle.v1") + 4
_BOMB = 1 << 36  # bytes


@dataclass(frozen=True)
class Received:
    """Bundles, and the folder that a careless reader unpacks them in."""

    bundles: tuple[Path, ...]
    target: Path


def mount(folder: Path, *, honest: bool) -> Received:
    """Exports a run; changes the name of one part or the size of another, and signs the manifest anew."""
    recipe, bundle = folder / "recipe.py", folder / "honest"
    recipe.write_text("x = 1\n")
    path = record(folder / "run", recipe=recipe)
    export(path, bundle)
    if honest:
        return Received((bundle,), folder / "unpacked")
    whole, domain = bundle.read_bytes(), Record(path).receipts()[0].typed_data()
    manifest = _manifest(whole)
    changed = {
        "escape": manifest.replace(b"\0\x09recipe.py", b"\0\x0d../escaped.py"),
        "bomb": manifest[:-40] + struct.pack(">Q", _BOMB) + manifest[-32:],
    }
    for name, other in changed.items():
        head = whole[: _MANIFEST - 4] + struct.pack(">I", len(other))
        parts = whole[_MANIFEST + len(manifest) + 65 :]
        (folder / name).write_bytes(head + other + _signature(other, domain) + parts)
    return Received(tuple(folder / name for name in changed), folder / "unpacked")


def undefended(case: Received) -> str | None:
    """A reader that checks every part's hash, and takes names and sizes as they come."""
    for bundle in case.bundles:
        for name, size, digest, contents in _parts(bundle.read_bytes()):
            target = case.target / bundle.name / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                file.truncate(size)
                file.write(contents)
            if hashlib.sha256(contents).digest() != digest:
                return f"part {name!r} of {bundle.name} has another hash"
    return None


def defended(case: Received) -> str | None:
    """The library's reader, which has to refuse each."""
    found = [by_signatures(bundle) for bundle in case.bundles]
    return None if None in found else "; ".join(map(str, found))


def _manifest(data: bytes) -> bytes:
    (length,) = struct.unpack_from(">I", data, _MANIFEST - 4)
    return data[_MANIFEST : _MANIFEST + length]


def _parts(data: bytes) -> Iterator[tuple[str, int, bytes, bytes]]:
    """Name, size, SHA-256 and bytes of each part, as docs/format.md, section 12, has them."""
    manifest, at = _manifest(data), 56
    offset = _MANIFEST + len(manifest) + 65
    while at < len(manifest):
        kind, length = struct.unpack_from(">BH", manifest, at)
        name, at = manifest[at + 3 : at + 3 + length].decode(), at + 3 + length
        (size,), digest = struct.unpack_from(">Q", manifest, at), manifest[at + 8 : at + 40]
        yield f"{kind}/{name}" if name else f"{kind}", size, digest, data[offset : offset + size]
        at, offset = at + 40, offset + size


def _signature(manifest: bytes, receipt: dict[str, Any]) -> bytes:
    fields = {"schema": "uint16", "run": "bytes32", "manifest": "bytes32"}
    document = {
        "types": receipt["types"]
        | {"BundleV1": [{"name": name, "type": kind} for name, kind in fields.items()]},
        "domain": receipt["domain"],
        "primaryType": "BundleV1",
        "message": {
            "schema": 1,
            "run": manifest[:32].hex(),
            "manifest": hashlib.sha256(manifest).hexdigest(),
        },
    }
    return sign(typed_digest(document), device_secret())
