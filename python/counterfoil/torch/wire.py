"""Messages between the verifier and the child that re-executes a recipe.

A message is `length (u32) || JSON header || tensor bytes`, tensors in the header's order. The
child runs the prover's code, so its messages are hostile: every length is compared with a limit
before it is believed, and reading and writing end at a deadline.
"""

import contextlib
import itertools
import json
import math
import os
import re
import select
import struct
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from counterfoil import Alias
from counterfoil.commit import describe
from counterfoil.errors import InvalidInput
from counterfoil.torch.collect import DTYPES, State

HEADER_LIMIT = 16 << 20
PIECE = 1 << 20
"""Bytes that go through a pipe at once."""
DEPTH_LIMIT = 64


def from_bytes(tag: str, shape: list[int] | tuple[int, ...], data: bytes | bytearray) -> torch.Tensor:
    """The tensor of these canonical bytes; it keeps a bytearray as its memory."""
    own = data if isinstance(data, bytearray) else bytearray(data)
    flat = torch.frombuffer(own, dtype=DTYPES[tag]) if own else torch.empty(0, dtype=DTYPES[tag])
    return flat.reshape(tuple(shape))


def encode(header: Mapping[str, Any], states: Mapping[str, State]) -> list[memoryview]:
    """One message of JSON values and named states, in pieces: the tensors' are their own memory."""
    listing: dict[str, list[list[Any]]] = {}
    parts = []
    for field, state in states.items():
        listing[field] = []
        for name, value in state.items():
            tag, shape, flat, target = describe(name, value)[:4]
            listing[field].append([name, None, target] if flat is None else [name, tag, list(shape)])
            # An empty array cannot be cast.
            parts += [] if flat is None or not flat.size else [flat.reshape(-1).view("u1").data]
    head = json.dumps({"header": dict(header), "states": listing}).encode()
    return [memoryview(struct.pack(">I", len(head)) + head), *parts]


class Pipe:
    """The two ends of a conversation over file descriptors."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        for end in (read, write):
            os.set_blocking(end, False)
            # Linux's alone, and limited for each user.
            with contextlib.suppress(ImportError, AttributeError, OSError):
                import fcntl

                fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, PIECE)

    def send(self, message: Iterable[memoryview], seconds: float | None = None) -> None:
        """Writes a message.

        Raises:
            TimeoutError: The other side did not read it in time.
            OSError: The other side is gone.
        """
        end = None if seconds is None else time.monotonic() + seconds
        for view in message:
            while view:
                _wait([], [self._write], end)
                view = view[os.write(self._write, view[:PIECE]) :]

    def receive(self, limit: int, seconds: float | None = None) -> tuple[dict[str, Any], dict[str, State]]:
        """Reads one message of at most `limit` tensor bytes.

        Returns:
            The header and the states, tensors and absent or alias entries alike.

        Raises:
            TimeoutError: It did not come in time.
            EOFError: The other side is gone.
            InvalidInput: It is not a message, or a larger one.
        """
        end = None if seconds is None else time.monotonic() + seconds
        (length,) = struct.unpack(">I", self._exactly(4, end))
        if length > HEADER_LIMIT:
            raise InvalidInput(f"a header of {length} bytes is larger than {HEADER_LIMIT}", where="header")
        try:
            head = json.loads(flat_enough(self._exactly(length, end)))
            header, listing = dict(head["header"]), _checked(head["states"], limit)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidInput(
                f"the message is not one of this protocol: {error!a}", where="header"
            ) from None
        states: dict[str, State] = {}
        for field, entries in listing.items():
            states[field] = {}
            for name, tag, shape, size in entries:
                if tag is None:
                    states[field][name] = None if shape is None else Alias(shape)
                else:
                    states[field][name] = from_bytes(tag, shape, self._exactly(size, end))
        return header, states

    def _exactly(self, count: int, end: float | None) -> bytearray:
        # Memory that nobody has written to costs nothing, and no length is believed beyond the limit.
        found, begin = bytearray(count), 0
        with memoryview(found) as whole:
            while begin < count:
                _wait([self._read], [], end)
                with whole[begin:] as room:
                    read = os.readv(self._read, [room])
                if read == 0:
                    raise EOFError("the other side is gone")
                begin += read
        return found


def flat_enough(head: bytes | bytearray) -> bytes | bytearray:
    """Refuses nesting that would exhaust the stack of a JSON parser before it is noticed."""
    brackets = re.sub(rb"[^][{}]", b"", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", head))
    depth = itertools.accumulate(1 if bracket in b"[{" else -1 for bracket in brackets)
    if max(depth, default=0) > DEPTH_LIMIT:
        raise ValueError("nested too deeply")
    return head


def _checked(listing: Any, limit: int) -> dict[str, list[tuple[str, str | None, Any, int]]]:
    left = limit
    fields: dict[str, list[tuple[str, str | None, Any, int]]] = {}
    for field, entries in listing.items():
        if len({name for name, _, _ in entries}) != len(entries):
            raise ValueError(f"names are repeated in {field}")
        fields[field] = []
        for name, tag, shape in entries:
            if not isinstance(name, str) or (tag is None and not isinstance(shape, str | None)):
                raise ValueError("an entry has no name or no target")
            size = 0
            if tag is not None:
                if len(shape) > 64 or any(type(side) is not int or not 0 <= side < 1 << 62 for side in shape):
                    raise ValueError(f"{name} has no shape")
                size = math.prod(shape) * DTYPES[tag].itemsize
                left -= size
            if left < 0:
                raise ValueError(f"more than {limit} bytes of tensors")
            fields[field].append((name, tag, shape, size))
    return fields


def _wait(read: list[int], write: list[int], end: float | None) -> None:
    left = None if end is None else max(0.0, end - time.monotonic())
    if not any(select.select(read, write, [], left)[:2]):
        raise TimeoutError("no answer in time")
