"""What the ranks of one training contribute, and the run that they record together.

Each rank writes a lane of its own, with a key of its own if it has one. Its receipts commit to the gradient that it
computed and to the one that all of them applied, so that the ranks' applied gradients can be compared
afterwards, and one that did not take part, or took another step, is named.
"""

from __future__ import annotations

import base64
import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from counterfoil import Alias, Run
from counterfoil.commit import Description, Pending, commit_tensors, start
from counterfoil.errors import InvalidInput
from counterfoil.invitation import invite, join
from counterfoil.torch.collect import gradient, is_fully_sharded, is_sharded
from counterfoil.torch.exchange import exchange

if TYPE_CHECKING:
    import os

    from counterfoil import Commitment, Key, Session
    from counterfoil.torch.collect import Collector


def is_distributed(model: torch.nn.Module) -> bool:
    """Whether the gradients of a model, or of a part of it, are reduced over several processes."""
    return any(
        isinstance(each, DistributedDataParallel) or is_fully_sharded(each) for each in model.modules()
    )


def open_lane(
    path: str | os.PathLike[str], *, key: Key | None = None, session: Session | None = None, **options: Any
) -> Run:
    """Opens this rank's lane of the run that all ranks record; every rank calls it.

    Rank 0 creates the run, the others join it, each in the lane of its rank, in one folder that all reach or in
    folders of their own. After a restart each continues its lane: attach with `restore=True`.

    Args:
        path: The run's folder: missing, empty, or that of the run that goes on.
        key: The worker's, which signs this rank's receipts; by default the device key. A restarted process
            continues the lane only of the same worker.
        session: Another key that signs the steps in its place, such as one that each process makes anew.
        options: As of `Run.create`, for rank 0.

    Raises:
        InvalidInput: A rank could not open its lane, or another run lies in its folder.
        CounterfoilError: What `Run.create` says on rank 0, `Run.join` and `Run.open` on the others.
    """
    folder, rank = Path(path), distributed.get_rank()
    keys: dict[str, Any] = {"key": key, "session": session}
    run: Run | None = None
    told: dict[str, Any] = {}
    failed: BaseException | None = None
    if rank == 0:
        try:
            run = (
                Run.open(folder, **keys)
                if (folder / "spec.json").exists()
                else Run.create(folder, **keys, **options)
            )
            told = {
                "run": run.id,
                "files": {name: base64.b64encode(file).decode() for name, file in invite(run).items()},
            }
        except BaseException as refused:
            failed = refused
            told = {"failed": f"{type(refused).__name__}: {refused}"}
    # Nobody may wait for ever for a run that is not there.
    told = json.loads(exchange(json.dumps(told).encode())[0])
    if failed is None and rank and "failed" not in told:
        try:
            files = {name: base64.b64decode(text) for name, text in told["files"].items()}
            run = join(folder, told["run"], files, lane=rank, rank=rank, **keys)
        except BaseException as refused:
            failed = refused
    of_ranks = [
        each.decode()
        for each in exchange(b"" if failed is None else f"{type(failed).__name__}: {failed}".encode())
    ]
    if failed is None and not any(of_ranks):
        assert run is not None, "a rank either has a lane or failed"
        run.ranks = distributed.get_world_size()
        return run
    if run is not None:
        run.close()
    if failed is not None:
        raise failed
    other = next(index for index, text in enumerate(of_ranks) if text)
    raise InvalidInput(f"rank {other} could not open its lane: {of_ranks[other]}", where=str(path))


def check_alike(options: Any, collector: Collector) -> None:
    """Refuses ranks that would record at different steps, or parts of different models; every rank calls it.

    One that did something else at some step would wait for the others for ever, or they for it.

    Raises:
        InvalidInput: A rank differs from rank 0; `.where` names it.
    """
    parts = [(names, each.shape) for names, each in collector.named_parameters() if is_sharded(each)]
    told = exchange(json.dumps([options, parts]).encode())
    odd = next((rank for rank, each in enumerate(told) if each != told[0]), None)
    if odd is not None:
        raise InvalidInput(
            f"rank {odd} attaches with other options than rank 0, or holds parts of another model",
            expected=told[0].decode(),
            actual=told[odd].decode(),
            where=f"rank {odd}",
        )


def observe(run: Run) -> None:
    """Tells rank 0 how far this rank has recorded, which it records of all; every rank calls it at the same step."""
    head = run.tree_head()
    own = {"run": run.id, "worker": run.worker, "lane": run.lane, "size": head.size, "root": head.root.hex()}
    told = exchange(json.dumps(own).encode())
    if distributed.get_rank() == 0:
        for rank, text in enumerate(told[1:], 1):
            try:
                each = json.loads(text)
                # Each speaks of the lane of its rank alone. One that records another run is none of this one's.
                if each["run"] == run.id and each["lane"] == rank:
                    root = bytes.fromhex(each["root"])
                    run.record_observed_head(each["worker"], rank, size=each["size"], root=root)
            except (ValueError, TypeError, KeyError, RecursionError, InvalidInput) as nonsense:
                warnings.warn(f"rank {rank} did not say how far it has come: {nonsense!r}", stacklevel=2)


class Contributions:
    """The gradients that this rank computed, read before those of all ranks are reduced to one.

    PyTorch calls these hooks when a gradient was added to `.grad`, before the hook by which
    `DistributedDataParallel` reduces it, and before `fully_shard` does. Of several backward passes the last
    one's sum counts.
    """

    def __init__(self, collector: Collector, is_due: Callable[[], bool]) -> None:
        self._collector, self._is_due = collector, is_due
        self._taken: dict[str, Pending] = {}
        self._reducers = [m for m in collector.model.modules() if isinstance(m, DistributedDataParallel)]
        self._sharded = any(map(is_fully_sharded, collector.model.modules()))
        # Its forward pass computes with the other ranks' batches as well.
        self._apart = not any(isinstance(m, torch.nn.SyncBatchNorm) for m in collector.model.modules())
        self._reduced: set[str] = set()
        self._mixed = False
        named = collector.named_parameters()
        self._names = {name: (names, each.dtype) for names, each in named for name in names}
        # What gathers a sharded parameter makes a plain one, which is there in the forward pass.
        self._gathered: dict[int, torch.Tensor] = {}
        self._handles = [
            each.register_post_accumulate_grad_hook(functools.partial(self._take, names))
            for names, each in named
            if each.requires_grad and not is_sharded(each)
        ]
        if self._sharded:
            self._handles += [
                module.register_forward_pre_hook(functools.partial(self._meet, prefix))
                for prefix, module in collector.modules()
            ]

    def _meet(self, prefix: str, module: torch.nn.Module, _args: Any) -> None:
        for name, parameter in module._parameters.items():
            if parameter is None or not parameter.requires_grad:
                continue
            if is_sharded(parameter):
                self._apart = False  # here too: tensor parallelism, or nobody gathered it
                continue
            names, dtype = self._names.get(prefix + name, (None, None))
            # In another precision than the parameter's a process alone would compute something else.
            self._apart &= parameter.dtype == dtype
            if names is None or id(parameter) in self._gathered or not parameter.is_leaf:
                continue
            self._gathered[id(parameter)] = parameter
            self._handles.append(
                parameter.register_post_accumulate_grad_hook(functools.partial(self._take, names))
            )

    def _take(self, names: list[str], parameter: torch.Tensor) -> None:
        # What is added to a gradient that was reduced before stands on the other ranks' as well.
        self._mixed |= names[0] in self._reduced
        # Whether it was reduced by then is not to be known of `fully_shard`, and of a wrapper that is not here.
        if (
            self._sharded
            or not self._reducers
            or any(each.require_backward_grad_sync for each in self._reducers)
        ):
            self._reduced.add(names[0])
        if self._is_due():
            self._taken[names[0]] = start(gradient(names, parameter.grad))

    def take(self) -> tuple[Pending, bool]:
        """What was computed since the last call, and whether this rank computed all of it alone.

        It stands under the parameters' names; absent where nothing was computed.
        """
        taken, self._taken = self._taken, {}
        alone, self._mixed = self._apart and not self._mixed, False
        self._reduced.clear()
        parameters = self._collector.named_parameters()
        if self._sharded and taken:
            # What is called by another way than the modules' forward methods was not met.
            alone &= all(names[0] in taken for names, each in parameters if each.grad is not None)
        named = [(names, taken.get(names[0])) for names, _ in parameters]

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
