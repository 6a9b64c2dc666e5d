"""Commitments to bytes, files and named tensors, wherever the tensors come from."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from counterfoil import _native
from counterfoil._native import Commitment
from counterfoil.errors import InvalidInput, UnsupportedDtype

Bytes1D = npt.NDArray[np.uint8]

_TAGS = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "int64": "I64",
    "uint64": "U64",
    "float64": "F64",
    "complex64": "C64",
}


_UNKNOWN_TO_NUMPY = {"BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0"}


@dataclass(frozen=True)
class Alias:
    """Stands for a tensor that shares its storage with another one of the state (tied weights).

    Attributes:
        target: Name of the dense tensor, smaller than the alias' own name.
    """

    target: str


def commit_bytes(data: bytes | bytearray | memoryview | npt.NDArray[Any]) -> Commitment:
    """Commits to bytes, in chunks of 1,024.

    Args:
        data: Anything that exposes contiguous bytes.

    Returns:
        The commitment; `.prove(index, data)` opens one chunk.

    Example:
        >>> commit_bytes(b"abc").root.hex()[:16]
        '609f6e36d2405585'

    Source:
        docs/format.md, section 3.
    """
    return _native.commit_bytes(_flat(data))


def commit_file(path: str | os.PathLike[str]) -> Commitment:
    """Commits to a file's bytes, in constant memory.

    Returns:
        The same commitment as `commit_bytes` of the contents; `.prove(index, path)` opens a chunk.

    Raises:
        NotFound: There is no such file.
        StorageError: It cannot be read.
    """
    return _native.commit_file(os.fspath(path))


def commit_tensors(tensors: Mapping[str, Any], *, keep: bool = False) -> Commitment:
    """Commits to named tensors without copying contiguous ones. Order does not matter.

    The tensors must not change until this returns.

    Args:
        tensors: Names to numpy arrays or CPU torch tensors of any shape and of a dtype in
            `counterfoil.DTYPES`; also bool, int, float (tensors of shape `[]`), str (its UTF-8
            bytes), None (absent) and `Alias`.
        keep: Whether the commitment keeps a copy of the bytes, so that a ledger stores them by
            value. For small states: hyperparameters, metrics, batches.

    Returns:
        The commitment; `.prove(name)` opens a tensor, `.prove(name, chunk=, tensor=)` a chunk.

    Raises:
        UnsupportedDtype: A tensor's dtype has no canonical encoding; `.where` names the tensor.
        InvalidInput: A name, an alias or a value is refused; `.where` names it.

    Example:
        >>> commit_tensors({"w": np.zeros((2, 3), np.float32), "b": None}).count
        2

    Source:
        docs/format.md, sections 2 and 3.
    """
    described = [describe(name, value) for name, value in tensors.items()]
    return _native.commit_tensors(described, keep)


def canonical_bytes(value: Any) -> Bytes1D:
    """The canonical bytes of a tensor, of raw bytes, or of the file at a path."""
    if isinstance(value, str | os.PathLike):
        return np.fromfile(value, np.uint8)
    if isinstance(value, bytes | bytearray | memoryview):
        return _flat(value)
    flat = describe("tensor", value)[3]
    if flat is None:
        raise InvalidInput("only tensors and bytes have chunks", actual=type(value).__name__)
    return flat


def _flat(data: Any) -> Bytes1D:
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, BufferError) as refused:
        raise InvalidInput(
            f"contiguous bytes are needed, found {type(data).__name__}: {refused}",
            expected="contiguous bytes",
            actual=type(data).__name__,
        ) from None


def describe(name: str, value: Any) -> tuple[str, str, list[int], Bytes1D | None, str | None]:
    """Name, dtype tag, shape, canonical bytes; or the target of an alias, or nothing."""
    if not isinstance(name, str):
        raise InvalidInput(f"names are str, found {name!r}", expected="str", where=repr(name))
    try:
        name.encode()
        encoded = np.frombuffer(value.encode() if isinstance(value, str) else b"", np.uint8)
    except UnicodeEncodeError as refused:
        raise InvalidInput(f"{name!r} is not valid Unicode: {refused}", where=repr(name)) from None
    if value is None:
        return name, "", [], None, None
    if isinstance(value, Alias):
        return name, "", [], None, value.target
    if isinstance(value, str):
        return name, "U8", [encoded.size], encoded, None
    # bool before int, of which it is a subclass
    if isinstance(value, bool):
        value = np.bool_(value)
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InvalidInput(f"{name}: {value} does not fit 64 bits", where=name)
        value = np.int64(value)
    elif isinstance(value, float):
        value = np.float64(value)
    if type(value).__module__.partition(".")[0] == "torch" or hasattr(value, "untyped_storage"):
        return _describe_torch(name, value)
    if not isinstance(value, np.ndarray | np.generic):
        raise InvalidInput(
            f"{name} is a {type(value).__name__}, which is no tensor; convert it to one",
            expected="numpy array, torch tensor, bool, int, float, str, None or Alias",
            actual=type(value).__name__,
            where=name,
        )
    return _describe_numpy(name, np.asarray(value))


def _describe_numpy(name: str, array: npt.NDArray[Any]) -> tuple[str, str, list[int], Bytes1D, None]:
    tag = _TAGS.get(array.dtype.name)
    if tag is None:
        raise _unsupported(name, str(array.dtype))
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return name, tag, list(array.shape), flat, None


def _describe_torch(name: str, tensor: Any) -> tuple[str, str, list[int], Bytes1D, None]:
    torch = sys.modules["torch"]
    tag = _TAGS.get(str(tensor.dtype).removeprefix("torch."))
    if tag is None:
        raise _unsupported(name, str(tensor.dtype))
    if tensor.layout != torch.strided:
        raise InvalidInput(
            f"{name} is a {tensor.layout} tensor; this version commits to dense tensors only",
            expected="torch.strided",
            actual=str(tensor.layout),
            where=name,
        )
    if not tensor.is_cpu:
        raise InvalidInput(
            f"{name} lies on {tensor.device}; this version hashes CPU tensors only",
            expected="cpu",
            actual=str(tensor.device),
            where=name,
        )
    # Each call on a tensor costs a microsecond, and a step has hundreds of tensors.
    dense = tensor.detach() if tensor.requires_grad else tensor
    if dense.is_conj() or dense.is_neg():
        dense = dense.resolve_conj().resolve_neg()
    dense = dense.contiguous()
    if tag in _UNKNOWN_TO_NUMPY:
        dense = dense.reshape(-1).view(torch.uint8)
    return name, tag, list(tensor.shape), dense.numpy().reshape(-1).view(np.uint8), None


def _unsupported(name: str, dtype: str) -> UnsupportedDtype:
    return UnsupportedDtype(
        f"{name} has dtype {dtype}, which has no canonical encoding; convert it first",
        expected=" ".join(_native.DTYPES),
        actual=dtype,
        where=name,
    )
