"""What processes that train together tell each other: bytes, on a group of their own.

No pickles: a worker that lies must not run code in the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import distributed

from counterfoil.errors import InvalidInput

ROOM = 1 << 28
"""Most bytes that one process may tell."""

_group: tuple[Any, Any] | None = None
"""The processes' own group, and the group of all processes that it was made for."""


def _side() -> Any:
    """A group on gloo beside the one that training uses, whose collectives may come in any order."""
    global _group
    world = distributed.group.WORLD
    if _group is None or _group[1] is not world:
        _group = (distributed.new_group(backend="gloo"), world)
    return _group[0]


def exchange(payload: bytes) -> list[bytes]:
    """Gives every process the payloads of all, by their ranks; every process calls it at the same time.

    Raises:
        InvalidInput: One tells more than 256 MiB; `.where` names it.
        RuntimeError: One of them ended, or did not come within half an hour.
    """
    group, ranks = _side(), distributed.get_world_size()
    size = torch.tensor([len(payload)])
    sizes = [torch.empty_like(size) for _ in range(ranks)]
    distributed.all_gather(sizes, size, group=group)
    for rank, each in enumerate(sizes):
        if not 0 <= int(each) <= ROOM:
            raise InvalidInput(
                f"rank {rank} tells {int(each)} bytes",
                expected=f"at most {ROOM}",
                actual=str(int(each)),
                where=f"rank {rank}",
            )
    room = max(int(each) for each in sizes)
    own = torch.zeros(max(room, 1), dtype=torch.uint8)
    own[: len(payload)] = torch.from_numpy(np.frombuffer(payload, np.uint8).copy())
    found = [torch.empty_like(own) for _ in range(ranks)]
    distributed.all_gather(found, own, group=group)
    return [each.numpy().tobytes()[: int(size)] for each, size in zip(found, sizes, strict=True)]
