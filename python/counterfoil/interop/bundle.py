"""OpenSSF Model Signing: a signature over a folder of files, as `model_signing` writes and reads it.

A bundle is a Sigstore bundle around a DSSE envelope around an in-toto statement, whose predicate
lists the files with their digests. Fields of the predicate that a reader does not know are ignored
by it, and one of them holds our receipt.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from counterfoil.errors import InvalidInput, NotFound, ProofError, StorageError
from counterfoil.interop.keys import MAX_PEM, public_pem

MAX_BUNDLE = 16 << 20
"""Bytes of a signature file that are read at most."""

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_GIT = (".git", ".gitattributes", ".github", ".gitignore")
_MAX_DEPTH = 32
# A string that does not end runs to the end of the text, so that no place is looked at twice.
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[][{}]', re.DOTALL)
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}


def sign(folder: Path, name: str, extra: dict[str, Any], key: ec.EllipticCurvePrivateKey) -> None:
    """Writes `folder/name`, a bundle over all other files of the folder.

    Args:
        folder: The folder.
        name: The signature's file name.
        extra: Further fields of the predicate.
        key: A P-256 key.
    """
    digests = {path: _sha256(folder / path) for path in sorted(_files(folder, [name]))}
    whole = hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests.values()))
    serialization = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": [name, *_GIT],
    }
    resources = [{"name": path, "algorithm": "sha256", "digest": digest} for path, digest in digests.items()]
    statement = {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": folder.resolve().name, "digest": {"sha256": whole.hexdigest()}}],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {"serialization": serialization, "resources": resources, **extra},
    }
    payload = json.dumps(statement).encode()
    signature = key.sign(_pre_authentication(payload), ec.ECDSA(hashes.SHA256()))
    bundle = {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": _hint(key.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    (folder / name).write_text(json.dumps(bundle))


def load_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """A public key from its PEM file.

    Raises:
        InvalidInput: It is not one of P-256, P-384 or P-521.
        NotFound: There is no such file.
    """
    try:
        key = load_pem_public_key(read(path, MAX_PEM))
    except (ValueError, UnsupportedAlgorithm) as refused:
        raise InvalidInput(f"{path} holds no public key as PEM: {refused}", where=str(path)) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise InvalidInput(f"{path} holds no key of {', '.join(_HASHES)}", where=str(path))
    return key


def verify(folder: Path, signature: Path, key: ec.EllipticCurvePublicKey) -> dict[str, Any]:
    """Checks a bundle and every file of the folder.

    Files that the signature leaves out are refused, except itself and git's own.

    Returns:
        The predicate; its `resources` are the folder's files.

    Raises:
        ProofError: The signature or a file is not what it should be; `.where` names it.
        InvalidInput: The file is no bundle, or one of a kind that is not supported.
        NotFound: There is no such file or folder.
    """
    predicate = _predicate(_payload(signature, key))
    listed = _resources(predicate)
    ignored = [*_GIT]
    if signature.resolve().is_relative_to(folder.resolve()):
        ignored.append(signature.resolve().relative_to(folder.resolve()).as_posix())
    present = set(_files(folder, ignored))
    for path in sorted(listed.keys() | present):
        if path not in present:
            raise _differs(path, f"{path} is signed and missing", listed[path], "no file")
        actual = _sha256(folder / path)
        if path not in listed:
            raise _differs(path, f"{path} is not signed", "no file", actual)
        if actual != listed[path]:
            raise _differs(path, f"{path} is not the file that was signed", listed[path], actual)
    return predicate


def read(path: Path, limit: int) -> bytes:
    """The bytes of a regular file that is no longer than the limit.

    Raises:
        NotFound: There is no such file.
        InvalidInput: It is too long, or no regular file.
        StorageError: It cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidInput(f"{path} is no regular file", where=str(path))
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as missing:
        raise NotFound(str(missing), where=str(path)) from None
    except OSError as failed:
        raise StorageError(str(failed), where=str(path)) from None
    if len(data) > limit:
        raise InvalidInput(f"{path} is too long", expected=f"{limit} bytes at most", where=str(path))
    return data


def parse(text: bytes, where: str) -> Any:
    """JSON without duplicate keys and numbers that are none.

    Raises:
        InvalidInput: It is something else.
    """

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = next(key for at, (key, _) in enumerate(pairs) if key in dict(pairs[:at]))
            raise ValueError(f"the key {twice!r:.80} stands twice")
        return found

    def number(text: str) -> None:
        raise ValueError(f"{text} is no number")

    try:
        decoded = text.decode()
        _check_depth(decoded)
        return json.loads(decoded, object_pairs_hook=distinct, parse_constant=number)
    except ValueError as refused:
        raise InvalidInput(f"{where} is no JSON that is accepted: {refused}", where=where) from None


def _check_depth(text: str) -> None:
    """Refuses nesting before the parser recurses: a raised recursion limit would let it crash."""
    depth = 0
    for token in _BRACKETS.finditer(text):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if depth > _MAX_DEPTH:
            raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")


def _payload(path: Path, key: ec.EllipticCurvePublicKey) -> Any:
    """The statement of a bundle, after its signature was checked."""
    where = str(path)
    bundle = parse(read(path, MAX_BUNDLE), where)
    try:
        media, envelope = bundle["mediaType"], bundle["dsseEnvelope"]
        hint = bundle["verificationMaterial"]["publicKey"].get("hint")
        (signature,) = envelope["signatures"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signed = base64.b64decode(signature["sig"], validate=True)
        payload_type = envelope["payloadType"]
    except (KeyError, TypeError, ValueError, AttributeError) as refused:
        raise InvalidInput(f"{path} is no bundle signed with a key: {refused!r}", where=where) from None
    for expected, actual in ((_MEDIA_TYPE, media), (_PAYLOAD_TYPE, payload_type)):
        _same(expected, actual, where)
    if hint and hint != _hint(key):
        raise ProofError(
            f"{path} was signed with another key", expected=_hint(key), actual=f"{hint!s:.80}", where=where
        )
    try:
        key.verify(signed, _pre_authentication(payload), ec.ECDSA(_HASHES[key.curve.name]()))
    except InvalidSignature:
        raise ProofError(f"{path}: the signature does not hold under this key", where=where) from None
    return parse(payload, where)


def _predicate(statement: Any) -> dict[str, Any]:
    try:
        found, kind = statement["_type"], statement["predicateType"]
        (subject,) = statement["subject"]
        whole = subject["digest"]["sha256"]
        predicate = statement["predicate"]
        method, algorithm = (predicate["serialization"][name] for name in ("method", "hash_type"))
        resources = predicate["resources"]
        digests = b"".join(bytes.fromhex(resource["digest"]) for resource in resources)
    except (KeyError, TypeError, ValueError, AttributeError) as refused:
        raise InvalidInput(f"the statement is no model signature: {refused!r}", where="statement") from None
    for expected, actual in (
        (_STATEMENT_TYPE, found),
        (_PREDICATE_TYPE, kind),
        ("files", method),
        ("sha256", algorithm),
    ):
        _same(expected, actual, "statement")
    if hashlib.sha256(digests).hexdigest() != whole:
        raise _differs(
            "subject", "the subject is not the list of files", hashlib.sha256(digests).hexdigest(), whole
        )
    assert isinstance(predicate, dict)
    return predicate


def _resources(predicate: dict[str, Any]) -> dict[str, str]:
    """The signed files and their digests; a path that could leave the folder is refused."""
    listed: dict[str, str] = {}
    for resource in predicate["resources"]:
        name, digest = resource.get("name"), resource["digest"]
        _same("sha256", resource.get("algorithm"), "resources")
        plain = isinstance(name, str) and name and "\0" not in name and "\\" not in name
        if not plain or any(part in ("", ".", "..") for part in name.split("/")):
            raise ProofError(f"{name!r:.200} is no path inside the folder", where=f"{name!r:.200}")
        if name in listed:
            raise ProofError(f"{name} is signed twice", where=name)
        listed[name] = digest
    return listed


def _files(folder: Path, ignored: Iterable[str], under: str = "") -> Iterator[str]:
    """The regular files below a folder, as paths with `/`; anything but files and folders is refused."""
    try:
        entries = sorted(os.scandir(folder / under), key=lambda entry: entry.name)
    except FileNotFoundError as missing:
        raise NotFound(str(missing), where=str(folder)) from None
    except OSError as failed:
        raise StorageError(str(failed), where=str(folder)) from None
    for entry in entries:
        path = f"{under}/{entry.name}" if under else entry.name
        if path in ignored:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(folder, ignored, path)
        elif entry.is_file(follow_symlinks=False):
            yield path
        else:
            kind = "a symbolic link" if entry.is_symlink() else "no regular file"
            raise _differs(path, f"{path} is {kind}", "a regular file", kind)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as failed:
        raise StorageError(str(failed), where=str(path)) from None


def _pre_authentication(payload: bytes) -> bytes:
    kind = _PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _hint(key: ec.EllipticCurvePublicKey) -> str:
    return hashlib.sha256(public_pem(key)).hexdigest()


def _same(expected: str, actual: Any, where: str) -> None:
    if actual != expected:
        raise InvalidInput(
            f"{where}: {actual!r:.80} is not supported",
            expected=expected,
            actual=f"{actual!r:.80}",
            where=where,
        )


def _differs(where: str, message: str, expected: str, actual: Any) -> ProofError:
    return ProofError(
        f"{message}: expected {expected}, found {actual!s:.80}",
        expected=expected,
        actual=f"{actual!s:.80}",
        where=where,
    )
