"""safetensors files, written from and read as raw bytes, so that no dtype is cast on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from counterfoil import _native
from counterfoil.commit import Bytes1D
from counterfoil.errors import InvalidInput, ProofError
from counterfoil.interop.bundle import parse

MAX_HEADER = 64 << 20
"""Bytes of a header that are read at most."""

_SIZES = {
    tag: 1 if tag in ("BOOL", "U8", "I8") or tag.startswith("F8") else int(tag.lstrip("BCFIU")) // 8
    for tag in _native.DTYPES
}


class Tensor(NamedTuple):
    """A tensor of a file: its tag in `counterfoil.DTYPES`, its extents and its bytes."""

    dtype: str
    shape: list[int]
    data: Bytes1D


class Plan(NamedTuple):
    """A tensor to be written, whose bytes are fetched when their turn comes."""

    name: str
    dtype: str
    shape: list[int]
    size: int
    fetch: Callable[[], bytes]


def write(path: Path, plans: Iterable[Plan], metadata: Mapping[str, str]) -> None:
    """Writes a file, holding one tensor at a time in memory.

    Raises:
        InvalidInput: Two tensors have one name, or a name is the format's own.
    """
    # The widest elements first: then each tensor is aligned to its own elements.
    ordered = sorted(plans, key=lambda plan: (-_SIZES[plan.dtype], plan.name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for plan in ordered:
        if plan.name in header:
            raise InvalidInput(f"two entries would be called {plan.name}", where=plan.name)
        places = [end, end + plan.size]
        header[plan.name] = {"dtype": plan.dtype, "shape": plan.shape, "data_offsets": places}
        end += plan.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for plan in ordered:
            file.write(plan.fetch())


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, mapped and not copied, and its metadata.

    Raises:
        ProofError: It is no safetensors file; `.where` is its name.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise _malformed(path, f"a header of {length} bytes in a file of {size}")
        header = parse(file.read(length), path.name)
    data = np.memmap(path, np.uint8, "r", 8 + length) if size > 8 + length else np.zeros(0, np.uint8)
    try:
        metadata = header.pop("__metadata__", {})
        if not all(isinstance(value, str) for value in metadata.values()):
            raise _malformed(path, "its metadata is no text")
        tensors = {
            name: Tensor(each["dtype"], list(each["shape"]), data[slice(*each["data_offsets"])])
            for name, each in header.items()
        }
        end = 0
        for first, after, name in sorted((*each["data_offsets"], name) for name, each in header.items()):
            found = tensors[name]
            whole = prod(found.shape) * _SIZES[found.dtype]
            plain = all(type(extent) is int and 0 <= extent < 1 << 64 for extent in found.shape)
            if not plain or first != end or after != first + whole:
                raise _malformed(path, f"{name} lies at {first}..{after} and has {whole} bytes")
            end = after
    except (KeyError, TypeError, ValueError, AttributeError) as refused:
        raise _malformed(path, repr(refused)) from None
    if end != data.size:
        raise _malformed(path, f"{data.size - end} bytes belong to no tensor")
    return tensors, metadata


def _malformed(path: Path, what: str) -> ProofError:
    return ProofError(f"{path.name} is no safetensors file: {what}", where=path.name)
