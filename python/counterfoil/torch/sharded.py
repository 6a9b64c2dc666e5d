"""Tensors of which each process holds a part: committed to as the whole, which nobody puts together.

Each process hashes its part where it lies and hands the hash to the others, at most two kilobytes for a
tensor. Parts that are runs of rows give the root of the whole tensor, the same as in a single process; other
boxes an entry of kind "sharded" (docs/format.md, section 2).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from counterfoil import Alias, Block, Shard, Sharded, commit_block, commit_shard
from counterfoil.commit import Pending, canonical_bytes, describe, start
from counterfoil.errors import InvalidInput
from counterfoil.torch.collect import State, is_sharded, own_part
from counterfoil.torch.exchange import exchange

if TYPE_CHECKING:
    from counterfoil import Commitment, Run


def start_whole(state: State) -> Pending:
    """As `counterfoil.commit.start`, called by all processes at the same time.

    Parts on a device are copied to the CPU, which is flagged as a fallback.
    """
    # A gradient may still be a sum of which each process has a part; those of norms under sequence parallelism are.
    summed = {name: value.full_tensor() for name, value in state.items() if _is_sum(value)}
    state = state | summed
    divided = {name: value for name, value in state.items() if is_sharded(value)}
    if not divided:
        return start(state)
    local = {name: own_part(value) for name, value in divided.items()}
    fallback = any(not tensor.is_cpu for tensor in local.values())
    whole: State = {name: tensor for name, tensor in local.items() if _placed(divided[name]) is None}
    own = {name: tensor.cpu() for name, tensor in local.items() if name not in whole}
    payload = _encode({name: _part(name, divided[name], tensor) for name, tensor in own.items()})
    told = [_decode(rank, each) for rank, each in enumerate(exchange(payload))]
    here = torch.distributed.get_rank()
    for name in own:
        ranks = divided[name].device_mesh.mesh.flatten().tolist()
        # Of replicas of one box, this process speaks of its own.
        ranks.sort(key=lambda rank: rank != here)
        tag = describe(name, own[name][:0]).dtype
        parts = _distinct(told[rank].get(name) for rank in ranks)
        whole[name] = Sharded(tag, tuple(divided[name].shape), parts)
    pending = start(state | whole)
    return Pending(pending.finish, done=pending.done, fallback=pending.fallback or fallback)


def store_whole(run: Run, state: State) -> Commitment:
    """As `Run.store`: a whole tensor is put together for it, one at a time. Of blocks nothing is stored."""
    commitment = start_whole(state).finish()
    run.store(
        {name: value for name, value in state.items() if not (is_sharded(value) or isinstance(value, Alias))}
    )
    for name in (entry.name for entry in commitment.entries if entry.kind == "dense"):
        value = state[name]
        if is_sharded(value):
            whole = value.full_tensor()
            is_first = torch.distributed.get_rank() == 0
            if is_first:
                run.store({name: whole})
            # In a folder that all share it is there now, and not written again.
            exchange(b"")
            if not is_first:
                run.store({name: whole})
    return commitment


def _placed(tensor: Any) -> tuple[tuple[int, ...], bool] | None:
    """Where this process's part begins, and whether all parts are runs of rows; None where each has the whole."""
    divided = [place.dim for place in tensor.placements if not place.is_replicate()]
    if not divided:
        return None
    (chunk,) = tensor.__create_chunk_list__()
    return tuple(chunk.offsets), max(divided) == 0


def _is_sum(value: Any) -> bool:
    return is_sharded(value) and any(place.is_partial() for place in value.placements)


def _part(name: str, tensor: Any, local: torch.Tensor) -> Shard | Block | None:
    placed = _placed(tensor)
    if placed is None or not local.numel():
        return None
    offset, by_rows = placed
    if not by_rows:
        return commit_block(local, offset)
    row = local[:1].numel() * local.itemsize
    return commit_shard(canonical_bytes(local), offset[0] * row)


def _encode(parts: Mapping[str, Shard | Block | None]) -> bytes:
    """A line of JSON with the parts' places and lengths, and their hashes behind it."""
    told, hashes = {}, []
    for name, part in parts.items():
        if part is not None:
            box = None if isinstance(part, Shard) else [part.offset, part.shape, part.dtype]
            hashes.append(part.to_bytes() if isinstance(part, Shard) else part.root)
            told[name] = [box, len(hashes[-1])]
    return b"".join([json.dumps(told).encode(), b"\n", *hashes])


def _decode(rank: int, payload: bytes) -> dict[str, Shard | Block]:
    try:
        line, rest = payload.split(b"\n", 1)
        parts: dict[str, Shard | Block] = {}
        for name, (box, length) in json.loads(line).items():
            own, rest = rest[:length], rest[length:]
            if box is None:
                parts[name] = Shard.from_bytes(own)
            elif length != 32:
                raise ValueError(f"{name} has a hash of {length} bytes")
            else:
                offset, shape, dtype = box
                parts[name] = Block(tuple(offset), tuple(shape), dtype, own)
        return parts
    except (ValueError, TypeError, AttributeError, RecursionError, InvalidInput) as refused:
        raise InvalidInput(
            f"rank {rank} told no hashes of its parts: {refused}", where=f"rank {rank}"
        ) from None


def _distinct(parts: Iterable[Shard | Block | None]) -> list[Any]:
    """The parts without replicas: of equal places the first one counts."""
    found: dict[Any, Shard | Block] = {}
    for part in parts:
        if part is not None:
            found.setdefault(part.offset, part)
    return list(found.values())
