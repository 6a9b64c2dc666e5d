"""Commitments to bytes, files and named tensors, wherever the tensors come from."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from counterfoil import _native, cuda
from counterfoil._native import Commitment, Shard
from counterfoil.errors import InvalidInput, NotFound, StorageError, UnsupportedDtype

Bytes1D = npt.NDArray[np.uint8]
Progress = Callable[[int, int], object]

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


_TORCH_TAGS: dict[Any, str] = {}
"""Those of the dtypes that were met, which cost no string then."""

_UNKNOWN_TO_NUMPY = {"BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0"}


@dataclass(frozen=True)
class Alias:
    """Stands for a tensor that shares its storage with another one of the state (tied weights).

    Attributes:
        target: Name of the dense tensor, smaller than the alias' own name.
    """

    target: str


@dataclass(frozen=True)
class Block:
    """A box of a larger tensor, hashed alone; of `commit_block`.

    Attributes:
        offset: Index of its first element in each dimension of the whole.
        shape: Its extents.
        dtype: Its tag in `counterfoil.DTYPES`.
        root: Root over its own canonical bytes, 32 bytes.
    """

    offset: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    root: bytes


@dataclass(frozen=True)
class Sharded:
    """Stands for a tensor in `commit_tensors` whose parts were hashed where they lie.

    With `Shard`s, runs of the tensor's bytes, the entry is that of the whole tensor. With `Block`s,
    whose bytes are scattered over the whole, it is one of kind "sharded": it binds every block's place
    and root, and is not comparable with the whole tensor's.

    Attributes:
        dtype: The whole tensor's tag in `counterfoil.DTYPES`.
        shape: Its extents.
        parts: All of its shards, or all of its blocks, in any order.
    """

    dtype: str
    shape: tuple[int, ...]
    parts: Sequence[Shard] | Sequence[Block]


def commit_bytes(
    data: bytes | bytearray | memoryview | npt.NDArray[Any], *, progress: Progress | None = None
) -> Commitment:
    """Commits to bytes, in chunks of 1,024, on all cores.

    Args:
        data: Anything that exposes contiguous bytes.
        progress: Called about 20 times a second with the bytes done and the bytes in all; what it
            raises stops the work, as Ctrl-C does.

    Returns:
        The commitment; `.prove(index, data)` opens one chunk.

    Example:
        >>> commit_bytes(b"abc").root.hex()[:16]
        '609f6e36d2405585'

    Source:
        docs/format.md, section 3.
    """
    return _native.commit_bytes(_flat(data), progress)


def commit_file(path: str | os.PathLike[str], *, progress: Progress | None = None) -> Commitment:
    """Commits to a file's bytes, a megabyte of memory for each core.

    Args:
        path: A regular file, which nobody writes to.
        progress: As for `commit_bytes`.

    Returns:
        The same commitment as `commit_bytes` of the contents; `.prove(index, path)` opens a chunk.

    Raises:
        NotFound: There is no such file.
        InvalidInput: It is a folder, a pipe or a device.
        StorageError: It cannot be read, or changed its size meanwhile.
    """
    return _native.commit_file(os.fspath(path), progress)


def commit_tensors(
    tensors: Mapping[str, Any], *, keep: bool = False, progress: Progress | None = None
) -> Commitment:
    """Commits to named tensors without copying contiguous ones. Order does not matter.

    Tensors on NVIDIA GPUs are hashed there (`counterfoil.cuda`); CPU and GPUs may be mixed. The tensors
    must not change until this returns.

    Args:
        tensors: Names to numpy arrays or torch tensors of any shape and of a dtype in
            `counterfoil.DTYPES`; also bool, int, float (tensors of shape `[]`), str (its UTF-8
            bytes), None (absent), `Alias` and `Sharded`.
        keep: Whether the commitment keeps a copy of the bytes, so that a ledger stores them by
            value. For small states: hyperparameters, metrics, batches.
        progress: As for `commit_bytes`, for what the CPU hashes.

    Returns:
        The commitment; `.prove(name)` opens a tensor, `.prove(name, chunk=, tensor=)` a chunk.

    Raises:
        UnsupportedDtype: A tensor's dtype has no canonical encoding; `.where` names the tensor.
        InvalidInput: A name, an alias, a value or its parts are refused; `.where` names it.
        DeviceError: A GPU that hashed before failed.

    Example:
        >>> commit_tensors({"w": np.zeros((2, 3), np.float32), "b": None}).count
        2

    Source:
        docs/format.md, sections 2 and 3.
    """
    return start(tensors, keep=keep, progress=progress).finish()


class Pending:
    """A commitment whose tensors were read already, or will be before their device goes on.

    Attributes:
        fallback: Whether tensors of a device were copied because it does not hash.
        done: Whether nothing is computed elsewhere, so that `finish` does not wait.
    """

    def __init__(self, finish: Callable[[], Commitment], *, done: bool, fallback: bool = False) -> None:
        self._finish, self.done, self.fallback = finish, done, fallback

    def finish(self) -> Commitment:
        """The commitment; waits for the devices."""
        if not self.done:
            commitment = self._finish()
            self._finish, self.done = lambda: commitment, True
        return self._finish()


def start(tensors: Mapping[str, Any], *, keep: bool = False, progress: Progress | None = None) -> Pending:
    """Begins what `commit_tensors` does; the tensors may change on their streams afterwards."""
    if type(tensors) is not dict:
        tensors = dict(items(tensors))
    if not any(map(cuda.engine.away, list(tensors.values()))):
        commitment = _native.commit_tensors(tensors, keep, progress)
        return Pending(lambda: commitment, done=True)
    cuda.refuse_capture()
    described: dict[str, Description] = {}
    copies: dict[str, Callable[[], Any]] = {}
    groups: dict[Any, list[tuple[str, Any]]] = {}
    devices = set()
    for name, value in list(tensors.items()):
        if not cuda.engine.away(value):
            described[name] = describe(name, value)
            continue
        tag, tensor = _dense(_checked(name), value)
        devices.add(tensor.device)
        if keep:
            copies[name] = cuda.bring(tensor)
        else:
            described[name] = Description(tag, list(tensor.shape))
            groups.setdefault(tensor.device, []).append((name, tensor))
    unusable = [device for device in devices if not cuda.usable(device)]
    for device in unusable:
        described |= {name: describe(name, tensor) for name, tensor in groups.pop(device, ())}
    # These hold names and no tensors, whose memory training wants back.
    roots = [
        ([name for name, _ in group], cuda.Roots([tensor for _, tensor in group]))
        for group in groups.values()
    ]
    # What lies here may change before the devices are done.
    here = {name: found for name, found in described.items() if found.data is not None}
    if keep:
        described |= {name: found._replace(data=np.array(found.data)) for name, found in here.items()}
    else:
        for entry in _native.commit_tensors(here, False, progress).entries:
            described[entry.name] = here[entry.name]._replace(data=None, root=entry.root)

    def finish() -> Commitment:
        for name, copy in copies.items():
            described[name] = describe(name, copy())
        for names, computed in roots:
            for name, root in zip(names, computed.get(), strict=True):
                described[name] = described[name]._replace(root=root)
        return _native.commit_tensors(described, keep, progress)

    return Pending(finish, done=False, fallback=bool(unusable))


def commit_shard(
    data: bytes | bytearray | memoryview | npt.NDArray[Any], offset: int, *, progress: Progress | None = None
) -> Shard:
    """Hashes a run of a tensor's bytes, which may begin and end anywhere.

    Args:
        data: The bytes, at least those of one worker.
        offset: The first byte's place in the tensor's canonical bytes.
        progress: As for `commit_bytes`.

    Returns:
        The shard. It holds hashes, and as they are the bytes of the chunks that reach across its
        ends, at most 1,023 at each end. `.to_bytes()` or pickle takes it to another process.

    Example:
        >>> left, right = commit_shard(b"ab", 0), commit_shard(b"c", 2)
        >>> merge_shards([left, right]) == commit_bytes(b"abc")
        True

    Source:
        docs/format.md, section 3.
    """
    return _native.commit_shard(_flat(data), _offset(offset, "the offset"), progress)


def merge_shards(shards: Iterable[Shard]) -> Commitment:
    """The commitment to the whole whose shards these are, in any order.

    Raises:
        InvalidInput: They do not tile the whole from its first byte; `.where` names the byte.
    """
    parts = list(shards)
    for part in parts:
        if not isinstance(part, Shard):
            raise InvalidInput(f"{part!r} is no shard", expected="Shard", actual=type(part).__name__)
    return _native.merge_shards(parts)


def commit_block(tensor: Any, offset: Sequence[int]) -> Block:
    """Hashes a box of a larger tensor alone, as tensor parallelism needs.

    Args:
        tensor: The box: a numpy array or a CPU torch tensor.
        offset: Index of its first element in each dimension of the whole.
    """
    described = describe("block", tensor)
    if described.data is None or not hasattr(tensor, "shape"):
        raise InvalidInput("only tensors are blocks", expected="a tensor", actual=type(tensor).__name__)
    if not isinstance(offset, Sequence):
        raise InvalidInput(
            "a block's offset has an index for each dimension", expected="a sequence", actual=repr(offset)
        )
    places = tuple(_offset(place, "each offset") for place in offset)
    root = _native.commit_bytes(described.data).root
    return Block(places, tuple(described.shape), described.dtype, root)


def items(tensors: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """The names and values of a mapping, which must be one."""
    try:
        return tensors.items()
    except AttributeError:
        kind = type(tensors).__name__
        raise InvalidInput(f"no mapping of names: a {kind}", expected="a mapping", actual=kind) from None


def canonical_bytes(value: Any) -> Bytes1D:
    """The canonical bytes of a tensor, of raw bytes, or of the file at a path."""
    if isinstance(value, str | os.PathLike):
        try:
            return np.fromfile(value, np.uint8)
        except FileNotFoundError as missing:
            raise NotFound(str(missing), where=os.fspath(value)) from None
        except OSError as failed:
            raise StorageError(str(failed), where=os.fspath(value)) from None
    if isinstance(value, bytes | bytearray | memoryview):
        return _flat(value)
    flat = describe("tensor", value).data
    if flat is None:
        raise InvalidInput("only tensors and bytes have chunks", actual=type(value).__name__)
    return flat


def _flat(data: Any) -> Bytes1D:
    try:
        if isinstance(data, np.ndarray):
            return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, BufferError, AttributeError) as refused:
        raise InvalidInput(
            f"contiguous bytes are needed, found {type(data).__name__}: {refused}",
            expected="contiguous bytes",
            actual=type(data).__name__,
        ) from None


class Description(NamedTuple):
    """What a value of a state is: a tensor with its bytes, parts or root, an alias, or nothing."""

    dtype: str = ""
    shape: Sequence[int] = ()
    data: Bytes1D | None = None
    target: str | None = None
    parts: list[Shard] | list[tuple[tuple[int, ...], tuple[int, ...], bytes]] | None = None
    root: bytes | None = None


def describe(name: str, value: Any) -> Description:
    """What is committed for a value under this name; a description stands for itself."""
    if isinstance(value, Description):
        return value
    _checked(name)
    if hasattr(value, "untyped_storage"):
        return _describe_torch(name, value)
    if value is None:
        return Description()
    if isinstance(value, Alias):
        if not isinstance(value.target, str):
            raise InvalidInput(f"{name}: an alias names a tensor, found {value.target!r}", where=name)
        return Description(target=value.target)
    if isinstance(value, Sharded):
        return _describe_sharded(name, value)
    if isinstance(value, str):
        encoded = np.frombuffer(_encoded(value, name), np.uint8)
        return Description("U8", [encoded.size], encoded)
    # bool before int, of which it is a subclass
    if isinstance(value, bool):
        value = np.bool_(value)
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InvalidInput(f"{name}: {value} does not fit 64 bits", where=name)
        value = np.int64(value)
    elif isinstance(value, float):
        value = np.float64(value)
    if not isinstance(value, np.ndarray | np.generic):
        raise InvalidInput(
            f"{name} is a {type(value).__name__}, which is no tensor; convert it to one",
            expected="numpy array, torch tensor, bool, int, float, str, None or Alias",
            actual=type(value).__name__,
            where=name,
        )
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidInput(f"{name} is a masked array; commit to its .data and its .mask", where=name)
    return _describe_numpy(name, np.asarray(value))


def _checked(name: Any) -> str:
    if not isinstance(name, str):
        raise InvalidInput(f"names are str, found {name!r}", expected="str", where=repr(name))
    _encoded(name, name)
    return name


def _encoded(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as refused:
        raise InvalidInput(f"{name!r} is not valid Unicode: {refused}", where=repr(name)) from None


def _offset(place: Any, what: str) -> int:
    if isinstance(place, int | np.integer) and 0 <= place < 2**64:
        return int(place)
    raise InvalidInput(f"{what} must be an int from 0 to 2^64 - 1, found {place!r}", actual=repr(place))


def _describe_sharded(name: str, value: Sharded) -> Description:
    try:
        if value.dtype not in _native.DTYPES:
            raise InvalidInput(f"{value.dtype!r} is no tag of a dtype", expected=" ".join(_native.DTYPES))
        shape = [_offset(extent, "each extent") for extent in value.shape]
        parts = list(value.parts)
        shards = [part for part in parts if isinstance(part, Shard)]
        if len(shards) == len(parts):
            return Description(value.dtype, shape, parts=shards)
        blocks = []
        for part in parts:
            if not isinstance(part, Block) or part.dtype != value.dtype or len(bytes(part.root)) != 32:
                raise InvalidInput(
                    f"{part!r} is no block of {value.dtype} elements, nor are all parts shards"
                )
            box = (part.offset, part.shape)
            offset, extents = (tuple(_offset(place, "each place") for place in side) for side in box)
            blocks.append((offset, extents, bytes(part.root)))
        return Description(value.dtype, shape, parts=blocks)
    except (InvalidInput, TypeError, ValueError) as refused:
        raise InvalidInput(f"{name}: {refused}", where=name) from None


def _describe_numpy(name: str, array: npt.NDArray[Any]) -> Description:
    tag = _TAGS.get(array.dtype.name)
    if tag is None:
        raise _unsupported(name, str(array.dtype))
    if tag == "BOOL":
        array = array != 0  # a view of other bytes may hold more than 0 and 1
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return Description(tag, array.shape, flat)


def _describe_torch(name: str, tensor: Any) -> Description:
    tag, dense = _dense(name, tensor)
    if not dense.is_cpu:
        dense = dense.cpu()
    if tag in _UNKNOWN_TO_NUMPY:
        dense = dense.reshape(-1).view(sys.modules["torch"].uint8)
    return Description(tag, list(tensor.shape), dense.numpy().reshape(-1).view(np.uint8))


def _dense(name: str, tensor: Any) -> tuple[str, Any]:
    """The tensor's tag, and the tensor as one whose memory is its canonical bytes."""
    dtype = tensor.dtype
    tag = _TORCH_TAGS.get(dtype)
    if tag is None:
        tag = _TAGS.get(str(dtype).removeprefix("torch."))
        if tag is None:
            raise _unsupported(name, str(dtype))
        _TORCH_TAGS[dtype] = tag
    if tensor.layout != sys.modules["torch"].strided:
        raise InvalidInput(
            f"{name} is a {tensor.layout} tensor; this version commits to dense tensors only",
            expected="torch.strided",
            actual=str(tensor.layout),
            where=name,
        )
    if tensor.is_meta:
        raise InvalidInput(f"{name} lies on meta and has no bytes", actual="meta", where=name)
    # Each call on a tensor costs a microsecond, and a step has hundreds of tensors.
    dense = tensor.detach() if tensor.requires_grad else tensor
    if dense.is_conj() or dense.is_neg():
        dense = dense.resolve_conj().resolve_neg()
    # A wrapper of other tensors, or one whose storage was freed, as sharded training does.
    if dense.numel() and (dense.data_ptr() == 0 or dense.untyped_storage().nbytes() < _end(dense)):
        raise InvalidInput(f"{name} has no memory of its own", actual=type(tensor).__name__, where=name)
    if tag == "BOOL":
        # A view of other bytes may hold more than 0 and 1.
        dense = dense.view(sys.modules["torch"].uint8).ne(0)
    return tag, dense.contiguous()


def _end(tensor: Any) -> int:
    """Bytes of its storage up to the end of its last element."""
    last = sum((extent - 1) * stride for extent, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return int(tensor.storage_offset() + last + 1) * int(tensor.itemsize)


def _unsupported(name: str, dtype: str) -> UnsupportedDtype:
    return UnsupportedDtype(
        f"{name} has dtype {dtype}, which has no canonical encoding; convert it first",
        expected=" ".join(_native.DTYPES),
        actual=dtype,
        where=name,
    )
