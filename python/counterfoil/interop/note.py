"""Tree heads as C2SP checkpoints: signed notes that transparency-log witnesses and monitors read.

A tree head's root is RFC 9162's over the ledger's leaves, as C2SP demands.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from counterfoil import _native
from counterfoil._native import TreeHead
from counterfoil.errors import InvalidInput, ProofError
from counterfoil.interop.keys import witness_key

MAX_NOTE = 1 << 20
"""Characters of a note that are read at most."""

_EXTENSION = "counterfoil.tree-head.v1 "
_ED25519 = b"\1"
_SPACES_OR_PLUS = re.compile(r"[\s+]")


@dataclass(frozen=True)
class CheckpointNote:
    """A checkpoint whose signature holds.

    Attributes:
        origin: The log: `counterfoil/` and the log id in hex for one of ours.
        size: Number of leaves.
        root: Root over them, 32 bytes.
        head_digest: EIP-712 digest of the tree head; compare it with `TreeHead.digest`. None when
            the note carries none.
        head_signature: The tree head's signature, 65 bytes, or None.
    """

    origin: str
    size: int
    root: bytes
    head_digest: bytes | None
    head_signature: bytes | None


def checkpoint_note(head: TreeHead) -> str:
    """A tree head as a C2SP checkpoint, signed with the key folder's Ed25519 key.

    Args:
        head: A tree head of a run that was verified: a witness signs no history it has not checked.

    Returns:
        The note. Beside origin, size and root it has a line with the tree head's digest and signature.

    Raises:
        ProofError: The tree head was not signed by its worker.
        KeyRefused: The key is open to other users, or no such key.

    Source:
        https://c2sp.org/tlog-checkpoint, https://c2sp.org/signed-note
    """
    if head.signer != head.fields["worker"]:
        raise ProofError(
            "the tree head was not signed by its worker",
            expected=head.fields["worker"],
            actual=head.signer,
            where="head",
        )
    origin, key = _origin(head), witness_key()
    extension = _EXTENSION + _base64(head.digest + head.signature)
    text = f"{origin}\n{head.size}\n{_base64(head.root)}\n{extension}\n"
    signature = _key_id(origin, key.public_key()) + key.sign(text.encode())
    return f"{text}\n\N{EM DASH} {origin} {_base64(signature)}\n"


def verifier_key(head: TreeHead) -> str:
    """What a reader of this log's notes pins: its name, and this key folder's Ed25519 public key.

    Raises:
        KeyRefused: The key is open to other users, or no such key.
    """
    origin, key = _origin(head), witness_key().public_key()
    return f"{origin}+{_key_id(origin, key).hex()}+{_base64(_ED25519 + key.public_bytes_raw())}"


def read_checkpoint_note(text: str, verifier_key: str) -> CheckpointNote:
    """Checks a checkpoint's signature and reads it. Signatures of other keys are ignored.

    Args:
        text: The note.
        verifier_key: `name+key id+key` of an Ed25519 key, learnt from its owner.

    Raises:
        ProofError: The note is malformed, or not signed by this key.
        InvalidInput: The verifier key is none.

    Source:
        https://c2sp.org/tlog-checkpoint, https://c2sp.org/signed-note
    """
    lines = open_note(text, verifier_key).split("\n")[:-1]
    if len(lines) < 3 or "" in lines:
        raise _malformed("a checkpoint has three lines or more, none of them empty")
    origin, size, root, *extensions = lines
    if not re.fullmatch("0|[1-9][0-9]{0,19}", size) or int(size) >= 1 << 64:
        raise _malformed(f"{size!r:.80} is no tree size")
    hashed = _decoded(root)
    if len(hashed) != 32:
        raise _malformed(f"a root has 32 bytes, not {len(hashed)}")
    # One key signs the notes of many logs; the name that is pinned is that of one.
    pinned, _, _ = _parsed(verifier_key)
    if origin != pinned:
        raise ProofError(
            "this is the checkpoint of another log", expected=pinned, actual=f"{origin:.200}", where="origin"
        )
    ours = [_decoded(line.removeprefix(_EXTENSION)) for line in extensions if line.startswith(_EXTENSION)]
    if not ours:
        return CheckpointNote(origin, int(size), hashed, None, None)
    if len(ours) != 1 or len(ours[0]) != 97:
        raise _malformed("a tree head is one digest and one signature")
    return CheckpointNote(origin, int(size), hashed, ours[0][:32], ours[0][32:])


def open_note(text: str, verifier_key: str) -> str:
    """The text of a signed note, with its last newline, after its signature was checked.

    Raises:
        ProofError: The note is malformed, or not signed by this key.
        InvalidInput: The verifier key is none.
    """
    name, key_id, key = _parsed(verifier_key)
    # Surrogates have no UTF-8.
    if len(text) > MAX_NOTE or re.search(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]", text):
        raise _malformed("it is too long, or holds control characters")
    body, blank, signatures = text.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise _malformed("no blank line stands between text and signatures")
    signed = f"{body}\n"
    found = False
    for line in signatures.split("\n")[:-1]:
        mark, _, rest = line.partition(" ")
        signer, _, encoded = rest.partition(" ")
        data = _decoded(encoded)
        if mark != "\N{EM DASH}" or not _is_name(signer) or len(data) < 5:
            raise _malformed(f"{line!r:.80} is no signature line")
        if (signer, data[:4]) != (name, key_id):
            continue
        try:
            key.verify(data[4:], signed.encode())
        except InvalidSignature:
            raise ProofError(f"the signature of {name} does not hold", where=name) from None
        found = True
    if not found:
        expected = f"{name} {key_id.hex()}"
        raise ProofError(f"the note is not signed by {expected}", expected=expected, where=name)
    return signed


def _parsed(verifier_key: str) -> tuple[str, bytes, Ed25519PublicKey]:
    try:
        name, key_id, encoded = verifier_key.split("+", 2)
        data = base64.b64decode(encoded, validate=True)
        key = Ed25519PublicKey.from_public_bytes(data[1:])
    except ValueError as refused:
        raise InvalidInput(f"this is no Ed25519 verifier key: {refused}", where="verifier_key") from None
    expected = _key_id(name, key).hex()
    canonical = _base64(data) == encoded and data[:1] == _ED25519
    if not canonical or not _is_name(name) or key_id != expected:
        raise InvalidInput(
            "the verifier key's id is not that of its name and key",
            expected=expected,
            actual=f"{key_id:.80}",
            where="verifier_key",
        )
    return name, bytes.fromhex(key_id), key


def _origin(head: TreeHead) -> str:
    _, _, log = _native.check_typed_data(json.dumps(head.typed_data()), head.signature)
    return f"counterfoil/{log.hex()}"


def _key_id(name: str, key: Ed25519PublicKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + key.public_bytes_raw()).digest()[:4]


def _is_name(name: str) -> bool:
    return bool(name) and _SPACES_OR_PLUS.search(name) is None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as refused:
        raise _malformed(f"{text!r:.80} is not base64: {refused}") from None
    if _base64(data) != text:
        raise _malformed(f"{text!r:.80} is not the one way to write its bytes")
    return data


def _malformed(what: str) -> ProofError:
    return ProofError(f"this is no checkpoint note: {what}", where="note")
