"""Puts the page together: data that no parser takes for markup, and a policy that lets nothing else run."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_SCRIPTS = ("element.js", "verdict.js", "marks.js", "charts.js", "tables.js", "check.js", "page.js")
_ESCAPES = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}


def render(document: dict[str, Any], bundle: bytes | None, verifier: bytes | None) -> bytes:
    """The page as bytes.

    Args:
        document: What is shown, as plain data. It may hold anything that a stranger wrote.
        bundle: The bundle that the page checks; None to check nothing.
        verifier: The WebAssembly module that checks it; None where it was not built.
    """
    script = "\n".join((_HERE / name).read_text("utf-8") for name in _SCRIPTS)
    style = (_HERE / "style.css").read_text("utf-8")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_digest(script)}' 'wasm-unsafe-eval'",
            f"style-src '{_digest(style)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    parts = {
        "POLICY": policy,
        "STYLE": style,
        "SCRIPT": script,
        "DATA": embedded_json(document),
        "BUNDLE": embedded_json(None if bundle is None else _base64(bundle)),
        # Compressed it has 40 % of its size, and browsers can decompress.
        "VERIFIER": embedded_json(None if verifier is None else _base64(gzip.compress(verifier, 9, mtime=0))),
    }
    # One pass over the template alone: what is put in is not looked at again.
    pieces = (_HERE / "template.html").read_text("utf-8").split("@@")
    return "".join(parts.get(piece, piece) if at % 2 else piece for at, piece in enumerate(pieces)).encode()


def embedded_json(value: object) -> str:
    """JSON that neither ends a script element nor begins anything else in HTML."""
    return json.dumps(value, allow_nan=False).translate(_ESCAPES)


def _digest(text: str) -> str:
    return "sha256-" + _base64(hashlib.sha256(text.encode()).digest())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
