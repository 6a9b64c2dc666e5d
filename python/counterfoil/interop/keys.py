"""The keys that speak to other systems. They lie beside the device key and sign no receipts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from counterfoil import _native
from counterfoil.errors import KeyRefused, StorageError

MAX_PEM = 1 << 16
"""Bytes of a key file that are read at most."""


def signing_key() -> ec.EllipticCurvePrivateKey:
    """The P-256 key that signs exports, in `model-signing.pem`; made on first use.

    Raises:
        KeyRefused: It is open to other users, or no such key.
    """
    key = _load("model-signing.pem", lambda: ec.generate_private_key(ec.SECP256R1()))
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _refused("model-signing.pem", "an unencrypted P-256 key", type(key).__name__)
    return key


def witness_key() -> ed25519.Ed25519PrivateKey:
    """The Ed25519 key that signs checkpoint notes, in `witness.pem`; made on first use.

    Raises:
        KeyRefused: It is open to other users, or no such key.
    """
    key = _load("witness.pem", ed25519.Ed25519PrivateKey.generate)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise _refused("witness.pem", "an unencrypted Ed25519 key", type(key).__name__)
    return key


def signing_public_key() -> str:
    """The public half of the key that signs exports, as PEM: what `model_signing verify key` takes.

    Raises:
        KeyRefused: The key is open to other users, or no such key.
    """
    return public_pem(signing_key().public_key()).decode()


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as PEM; a bundle's hint is this text's SHA-256."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _load(name: str, make: Callable[[], ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey]) -> object:
    path = Path(_native.key_folder()) / name
    try:
        if not path.exists():
            _write(path, make().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & 0o077:
                raise KeyRefused(
                    f"{path} is open to other users (mode {mode:o}); type: chmod 600 {path}",
                    expected="600",
                    actual=f"{mode:o}",
                    where=str(path),
                )
            text = file.read(MAX_PEM)
    except OSError as failed:
        raise StorageError(str(failed), where=str(path)) from None
    try:
        return load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as refused:
        raise _refused(name, "an unencrypted private key as PEM", str(refused)) from None


def _write(path: Path, text: bytes) -> None:
    """A new file that is whole as soon as it has its name; one that another process made stays."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        partial.unlink()


def _refused(name: str, expected: str, actual: str) -> KeyRefused:
    path = Path(_native.key_folder()) / name
    return KeyRefused(f"{path} holds no {expected}: {actual}", expected=expected, actual=actual, where=name)
