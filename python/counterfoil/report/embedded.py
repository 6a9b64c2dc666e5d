"""What the page carries so that it can check: the bundle, and the verifier as WebAssembly."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterfoil._native import Key, Record
from counterfoil.errors import CorruptJournal

EMBEDDED_LIMIT = 16 << 20
"""Bytes of a bundle up to which a page carries it: a browser checks about one megabyte in a second."""

_VERIFIER = Path(__file__).with_name("verifier.wasm")


@dataclass(frozen=True)
class Embedded:
    """The bundle in the page.

    Attributes:
        bundle: Its bytes; None when the page carries none.
        reason: Why not; empty when it does.
        verdict: What this program found in the bundle alone, `{"headline", "verdict"}`, with the question that
            the page asks; None without a bundle.
    """

    bundle: bytes | None
    reason: str
    verdict: dict[str, Any] | None


def verifier() -> bytes | None:
    """The verifier for browsers, which `make wasm` builds; None where it was not built."""
    return _VERIFIER.read_bytes() if _VERIFIER.exists() else None


def embed(record: Record, question: dict[str, Any]) -> Embedded:
    """The record as a bundle, a run folder exported and signed with the device key."""
    path = Path(record.path)
    if not path.is_dir():
        size = path.stat().st_size
        if size > EMBEDDED_LIMIT:
            return Embedded(None, _too_large("the bundle", size), None)
        return Embedded(path.read_bytes(), "", _verdict(record, question))
    # A folder is measured first, since a large one would be copied in vain.
    size = sum(map(_size, path.rglob("*")))
    if size > EMBEDDED_LIMIT:
        return Embedded(None, _too_large("the run folder", size), None)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        try:
            record.export(bundle, Key.device(), None, None)
        except CorruptJournal as refused:
            # The folder's own path says nothing to a reader elsewhere.
            reason = str(refused).replace(f"{path}/", "")
            return Embedded(None, f"the run folder cannot be put into a bundle: {reason}", None)
        if bundle.stat().st_size > EMBEDDED_LIMIT:
            return Embedded(None, _too_large("the bundle", bundle.stat().st_size), None)
        return Embedded(bundle.read_bytes(), "", _verdict(Record(bundle), question))


def _verdict(bundle: Record, question: dict[str, Any]) -> dict[str, Any]:
    headline, document = bundle.verify(json.dumps(question))
    return {"headline": headline, "verdict": json.loads(document)}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:  # a run that is being recorded renames its files
        return 0


def _too_large(what: str, size: int) -> str:
    return (
        f"{what} has {size:,} bytes, and a page carries at most {EMBEDDED_LIMIT:,}: ask for the bundle itself"
    )
