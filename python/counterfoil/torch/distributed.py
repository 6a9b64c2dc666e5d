"""What the ranks of one training contribute, and the run that they record together.

Each rank writes a lane of its own, with a key of its own if it has one. Its receipts commit to the gradient that it
computed and to the one that all of them applied, so that the ranks' applied gradients can be compared
afterwards, and one that did not take part, or took another step, is named.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from counterfoil import Alias, Run
from counterfoil.commit import Description, Pending, commit_tensors, start
from counterfoil.errors import InvalidInput
from counterfoil.torch.collect import gradient

if TYPE_CHECKING:
    import os

    from counterfoil import Commitment, Key
    from counterfoil.torch.collect import Collector


def is_distributed(model: torch.nn.Module) -> bool:
    """Whether the gradients of a model, or of a part of it, are reduced over several processes."""
    return any(isinstance(each, DistributedDataParallel) for each in model.modules())


def open_lane(path: str | os.PathLike[str], *, key: Key | None = None, **options: Any) -> Run:
    """Opens this rank's lane of the run that all ranks record; every rank calls it.

    Rank 0 creates the run, the others join it, each in the lane of its rank. All reach one folder.

    Args:
        path: The run's folder, missing or empty.
        key: Signs this rank's receipts; by default the device key.
        options: As of `Run.create`, for rank 0.

    Raises:
        InvalidInput: Rank 0 could not create the run.
        CounterfoilError: What `Run.create` says on rank 0, `Run.join` on the others.
    """
    rank = torch.distributed.get_rank()
    failed = [""]
    if rank == 0:
        try:
            run = Run.create(path, key=key, **options)
        except BaseException as refused:
            # Nobody may wait for ever for a run that is not there.
            torch.distributed.broadcast_object_list([f"{type(refused).__name__}: {refused}"], src=0)
            raise
    torch.distributed.broadcast_object_list(failed, src=0)
    if failed[0]:
        raise InvalidInput(f"rank 0 could not create the run: {failed[0]}", where=str(path))
    return run if rank == 0 else Run.join(Path(path), lane=rank, rank=rank, key=key)


class Contributions:
    """The gradients that this rank computed, read before those of all ranks are reduced to one.

    PyTorch calls these hooks when a gradient was added to `.grad`, before the hook by which
    `DistributedDataParallel` reduces it. Of several backward passes the last one's sum counts.
    """

    def __init__(self, collector: Collector, is_due: Callable[[], bool]) -> None:
        self._collector, self._is_due = collector, is_due
        self._taken: dict[int, Pending] = {}
        self._reducers = [m for m in collector.model.modules() if isinstance(m, DistributedDataParallel)]
        # Its forward pass computes with the other ranks' batches as well.
        self._apart = not any(isinstance(m, torch.nn.SyncBatchNorm) for m in collector.model.modules())
        self._reduced: set[int] = set()
        self._mixed = False
        self._names = {id(parameter): names for names, parameter in collector.named_parameters()}
        trained = [parameter for _, parameter in collector.named_parameters() if parameter.requires_grad]
        self._handles = [each.register_post_accumulate_grad_hook(self._take) for each in trained]

    def _take(self, parameter: torch.Tensor) -> None:
        # What is added to a gradient that was reduced before stands on the other ranks' as well.
        self._mixed |= id(parameter) in self._reduced
        if any(each.require_backward_grad_sync for each in self._reducers):
            self._reduced.add(id(parameter))
        if self._is_due():
            self._taken[id(parameter)] = start(gradient(self._names[id(parameter)], parameter.grad))

    def take(self) -> tuple[Pending, bool]:
        """What was computed since the last call, and whether this rank computed all of it alone.

        It stands under the parameters' names; absent where nothing was computed.
        """
        taken, self._taken = self._taken, {}
        alone, self._mixed = self._apart and not self._mixed, False
        self._reduced.clear()
        named = [(names, taken.get(id(parameter))) for names, parameter in self._collector.named_parameters()]

        def finish() -> Commitment:
            whole: dict[str, Description | Alias | None] = {}
            for names, each in named:
                if each is None:
                    whole |= dict.fromkeys(names)
                    continue
                for entry in each.finish().entries:
                    dense = Description(entry.dtype, entry.shape, root=entry.root)
                    whole[entry.name] = Alias(entry.target) if entry.target else dense
            return commit_tensors(whole)

        done = all(each.done for each in taken.values())
        fallback = any(each.fallback for each in taken.values())
        whole = finish() if done else None
        return Pending(finish if whole is None else lambda: whole, done=done, fallback=fallback), alone

    def remove(self) -> None:
        """Takes the hooks off the parameters."""
        for handle in self._handles:
            handle.remove()
