"""Turns what optimisers do into step receipts.

Everything is hashed where the bytes cannot change underneath: before the hook returns, or on a
device behind the work that its stream has. The receipt of a step whose roots a device computes is
written one step late, when they have arrived, so that training never waits. A step that could not
be recorded stops the recorder: a gap that nobody sees would make later receipts false. A checkpoint
is the state at the end of `optimizer.step()`; a recipe whose loop changes parameters elsewhere is
not replayable from it.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
import inspect
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from counterfoil import commit_tensors, cuda
from counterfoil.commit import start
from counterfoil.errors import InvalidInput, RunClosed
from counterfoil.torch import collect, resume
from counterfoil.torch.budget import STATE, Budget, Spent, cadences
from counterfoil.torch.distributed import Contributions, check_alike, is_distributed, observe
from counterfoil.torch.exchange import exchange
from counterfoil.torch.hooks import Hooks, innermost
from counterfoil.torch.sharded import start_whole, store_whole

if TYPE_CHECKING:
    from counterfoil import Commitment, Run
    from counterfoil.commit import Pending
    from counterfoil.torch.budget import Summary

SKIPPED, NOT_REPLAYABLE, FALLBACK = 1, 2, 4
UPDATED = ("parameters", "optimizer")
"""What an optimiser's step changes."""
FROM_CHECKPOINT = "from_checkpoint"
"""The extension of a step which says that it goes on from the last checkpoint, and that its gradients are stored."""
KEEP_BATCH = 32 << 20
"""Bytes below which a replayable run keeps a step's batch."""

_active: dict[int, Recorder] = {}


def check_options(options: Mapping[str, Any]) -> None:
    """Refuses, before a trainer has begun, what `attach` would refuse when it has.

    Raises:
        InvalidInput: There is no such option; `.where` names it.
    """
    known = [
        name for name in inspect.signature(attach).parameters if name not in ("run", "model", "optimizer")
    ]
    for name in options:
        if name not in known:
            there = ", ".join(known)
            raise InvalidInput(
                f"attach has no option {name}; there are {there}", expected=there, actual=name, where=name
            )


def attach(
    run: Run,
    model: torch.nn.Module,
    optimizer: Any,
    *,
    every: int | Mapping[str, int] = 50,
    checkpoint_every: int = 50,
    budget: float | None = None,
    also: Mapping[str, Any] | None = None,
    restore: bool = False,
    store_gradients: bool = False,
) -> Recorder:
    """Records every step of an optimiser into a run, from now until the run closes.

    Gradients, hyperparameters, randomness and, where `run.batches` is used, batches and samples are
    recorded at each step; parameters, optimiser state and buffers at a cadence. The first and last state
    and one every `checkpoint_every` steps are stored whole, so that steps can be re-executed and the run
    continued.

    Tensors on NVIDIA GPUs are hashed there, without waiting: the receipt of a step is then written
    during the next one, or when the run is flushed or closed. Those of other devices are copied and
    hashed by the CPU, with a warning, and their steps are flagged.

    Args:
        run: An open run.
        model: The model whose parameters the optimiser steps, bare or inside a known wrapper.
        optimizer: A torch optimiser, a trainer's wrapper around one, or a list of them: then each step of
            each of them is a step of the run, and a module holds all the models.
        every: Steps between commitments to parameters, optimiser state and buffers, 0 for never; or a
            mapping with some of `gradients`, `parameters`, `optimizer`, `buffers`, `hyperparameters`,
            `randomness`, and `contribution`: what a rank computed alone, 1 where several train together, else 0.
        checkpoint_every: Steps between checkpoints; 0 leaves only the first and the last. Of several processes,
            rank 0 also records as often how far the others have come, whatever the budget.
        budget: What recording may take of the training's time, for example 0.02. Gradients, state and
            checkpoints then become rarer than `every` says where that is needed, by signed policies and
            never below the run's floor. What each receipt itself costs stays.
        also: What else is stored with checkpoints and restored from them, by name: objects with
            `state_dict()` and `load_state_dict()`, such as a scheduler or a gradient scaler.
        restore: Whether a run that was opened again goes on from its last stored checkpoint, which is
            loaded into all of these. Otherwise they must be as the run last recorded them.
        store_gradients: Whether the gradients of each step that directly follows a checkpoint are stored whole,
            with the parameters after it, so that `verify` executes the optimiser's update again: with
            `checkpoint_every=1` that of every step. This hashes parameters and optimiser state twice more and writes
            as many bytes as gradients and parameters have, at each such step. Who has a gradient can learn of its batch,
            for small ones the samples themselves. A step before which weights or state were changed is left out; who
            changes them within `optimizer.step()`, in a hook of it, is refuted. Of several optimisers,
            or with tensors as hyperparameters, nothing is stored.

    Returns:
        The recorder; the same one when this run already records this optimiser.

    Raises:
        RunClosed: The run is closed.
        NotFound: There is no stored checkpoint to restore, or one of its tensors is missing.
        InvalidInput: The optimiser is recorded by another run, the run records another optimiser,
            the run was opened again and training stands elsewhere, or something is not recordable
            (sparse parameters, sharded ones in a run of one process or with a budget, the capture of a CUDA
            graph); `.where` names it.
        UnsupportedDtype: A dtype has no canonical bytes; `.where` names the tensor.

    Source:
        docs/format.md, section 4.
    """
    cuda.refuse_capture()
    if run.closed:
        raise RunClosed(f"{run.path} is closed: a closed run records nothing")
    several = isinstance(optimizer, list | tuple)
    inner = [innermost(each) for each in (optimizer if several else [optimizer])]
    if not inner or len({id(each) for each in inner}) < len(inner):
        raise InvalidInput("one or more optimisers, each once", where="optimizer")
    for recorder in _active.values():
        if recorder.run is run and recorder.optimizers == tuple(inner):
            return recorder
        if recorder.run is run:
            raise InvalidInput("this run already records another optimiser", where="optimizer")
        if any(each is known for each in inner for known in recorder.optimizers):
            raise InvalidInput(
                f"this optimiser is recorded by {recorder.run.path}: close it first",
                where="optimizer",
            )
    if budget is not None and not 0 < budget < 1:
        raise InvalidInput(f"a budget is a share between 0 and 1, found {budget}", where="budget")
    collector = collect.Collector(model, inner)
    collector.reshard()
    if collector.has_parts() and (run.ranks == 1 or budget is not None):
        raise InvalidInput(
            "several processes hold parts of this model: all of them open the run with counterfoil.torch.open_lane, and "
            "commit at the same steps, which no budget chooses",
            where="model",
        )
    cadence = cadences(run.spec.get("policy", {}), every, checkpoint_every, contributes=is_distributed(model))
    if run.ranks > 1:
        check_alike([cadence, budget is not None, restore, store_gradients], collector)
    steered = None if budget is None else Budget(budget, cadence, run.spec.get("policy", {}))
    return Recorder(
        run, collector, cadence, steered, dict(also or {}), restore=restore, store_gradients=store_gradients
    )


def recorder_of(run: Run) -> Recorder:
    """The recorder attached to a run.

    Raises:
        RunClosed: The run is closed.
        InvalidInput: Nothing is attached.
    """
    if run.closed:
        raise RunClosed(f"{run.path} is closed: a closed run records nothing")
    if id(run) not in _active:
        raise InvalidInput("call run.attach(model, optimizer) before batches are drawn", where="batches")
    return _active[id(run)]


def _is_wanted_by_all(wanted: bool) -> bool:
    try:
        return all(each == b"yes" for each in exchange(b"yes" if wanted else b"no"))
    except RuntimeError:
        return False  # one of them ended, or the group did


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else copy.copy(value)


@atexit.register
def _write_what_waits() -> None:
    """A process that ends without closing its run still has its last step's receipt."""
    for recorder in list(_active.values()):
        with contextlib.suppress(Exception):
            recorder.leave()


@dataclass
class Unwritten:
    """A step whose receipt waits for what a device computes."""

    number: int
    outcome: Callable[[], tuple[Pending | None, bool]]
    fields: dict[str, Pending]
    metrics: dict[str, Callable[[], bool | int | float]]
    flags: int

    def finish(self) -> tuple[dict[str, Commitment], int]:
        """The fields and flags of the receipt; waits for the device, and may be called again."""
        gradients, skipped = self.outcome()
        fields = dict(self.fields)
        if gradients is not None and not skipped:
            fields["gradients"] = gradients
        if self.metrics:
            values = {name: value() for name, value in self.metrics.items()}
            fields["metrics"] = start(values, keep=True)
        fallback = any(pending.fallback for pending in fields.values())
        flags = self.flags + SKIPPED * skipped + FALLBACK * fallback
        return {name: pending.finish() for name, pending in fields.items()}, flags


class Recorder:
    """Records the steps of one or more optimisers; made by `attach`."""

    def __init__(
        self,
        run: Run,
        collector: collect.Collector,
        cadence: dict[str, int],
        budget: Budget | None,
        also: dict[str, Any],
        *,
        restore: bool,
        store_gradients: bool,
    ):
        self.run, self.optimizers = run, collector.optimizers
        self._has_parts = collector.has_parts()
        self._start = start_whole if self._has_parts else start
        self._store = functools.partial(store_whole, run) if self._has_parts else run.store
        self._collect, self._also = collector, also
        self._cadence, self._budget, self._policy_recorded = cadence, budget, False
        self._batches: list[collect.State] = []
        self._samples: list[collect.State] = []
        self._fed, self._replayable = False, True
        self._consumed: collect.State | None = None
        self._metrics: dict[str, Callable[[], bool | int | float]] = {}
        # What the last step committed to is mostly that of the next one too.
        self._last: tuple[str, Pending] = ("", start({}))
        self._drawn: tuple[collect.State, Pending] = ({}, start({}))
        self._checkpointed = -1
        self._stored: dict[str, Commitment] = {}
        self._store_gradients = store_gradients and len(self.optimizers) == 1
        # Whether the step under way goes on from the last checkpoint, and its gradients are stored.
        self._continues = False
        # A checkpoint whose receipt waits for what the loop does behind `optimizer.step()`.
        self._unsettled: tuple[int, dict[str, Commitment]] | None = None
        self._unwritten: Unwritten | None = None
        self._writing = self._waits = False
        # From the beginning of a step's recording until it is certain to have a receipt.
        self._broken = False
        # Whoever flushes or closes the run may be another thread, or a signal's handler.
        self._lock, self._process = threading.RLock(), os.getpid()
        # Processes that record one run tell each other now and then how far they have come.
        self._observe_every = cadence["checkpoint"] if run.ranks > 1 else 0
        self.epoch: resume.Epoch | None = None
        if restore:
            self.epoch = resume.restore(run, collector, also, together=run.ranks > 1)
        self._spent = Spent()
        self._randomness = collect.randomness()
        self._checkpoint(run.step, begins=True)
        self.settle(collect.randomness)
        for device in {tensor.device for tensor in collector.model.parameters() if cuda.engine.away(tensor)}:
            cuda.usable(device)
        self._versions = self._collect.versions()
        self._contributions: Contributions | None = None
        if cadence["contribution"]:
            self._contributions = Contributions(collector, functools.partial(self._is_due, "contribution"))
        self._hooks = [
            Hooks(
                each,
                self._begin_step,
                functools.partial(self._take, each),
                self._same,
                functools.partial(self._done, each),
            )
            for each in self.optimizers
        ]
        _active[id(run)] = self
        if run.ranks > 1:
            observe(run)  # a lane that is left out later is missed
        run.on_flush(self._write)
        run.on_close(self._close)

    def log(self, **metrics: Any) -> None:
        """Adds numbers to the receipt of the step under way; call it before `optimizer.step()`.

        Args:
            metrics: Python numbers or tensors of shape `[]` on any device, such as `loss=loss`.

        Raises:
            InvalidInput: A value is not one number; `.where` names it.
        """
        self._metrics.update({name: collect.metric(name, value) for name, value in metrics.items()})

    def summary(self) -> Summary:
        """Where the time went since `attach`; `run.summary()` calls this."""
        with self._lock:
            return self._spent.summary(self._cadence)

    def feed(self, batch: Any, samples: Callable[[], collect.State] = dict) -> None:
        """Takes a batch that training is about to consume; `batches` and the callbacks of trainers call this.

        Args:
            batch: Nested tuples, lists and mappings of tensors; copied.
            samples: Tells which samples these are, as `counterfoil.torch.data` names them.
        """
        self.settle(collect.randomness)
        with self._spent.on("batch"):
            now = collect.randomness()
            if not self._batches:
                self._randomness, self._replayable = now, True
            elif now is not self._consumed:
                self._replayable = False  # drawing this batch changed the randomness of a step under way
            leaves = dict(collect.flatten(batch))
            # Kernels choose by memory layout and give other bits; a receipt knows no strides. A number comes back as
            # a tensor, of which powers have other bits; what is true or absent is the same to a recipe.
            plain = all(
                value.is_contiguous()
                if isinstance(value, torch.Tensor)
                else value is None or isinstance(value, bool)
                for value in leaves.values()
            )
            self._replayable &= plain
            self._batches.append({name: _copy(value) for name, value in leaves.items()})
            self._samples.append(samples())
            self._fed, self._consumed = True, None

    def consumed(self) -> None:
        """Says that training has used the last batch: who draws until the next one belongs to no step."""
        self.settle(collect.randomness)
        self._consumed = collect.randomness() if self._batches else None

    def _due(self, field: str, step: int) -> bool:
        return self._cadence[field] > 0 and step % self._cadence[field] == 0

    def _is_due(self, field: str) -> bool:
        """Whether the step under way, whose receipt comes next, has this field."""
        before = self._unwritten
        return self._due(field, 1 + (self.run.step if before is None else before.number))

    def record(self) -> None:
        """Records a step that calls no Python: the replay of a CUDA graph that holds `optimizer.step()`.

        Call it after each replay. Attach after the capture, inside which nothing can be hashed. That a
        scaler skipped the step is not seen here.

        Raises:
            InvalidInput: An earlier step was not recorded, there are several optimisers, the optimiser
                overwrites its gradient or is not one of torch's, or something is not recordable; `.where`
                names it.
        """
        with self._lock:
            cuda.refuse_capture()
            if len(self.optimizers) > 1:
                raise InvalidInput(
                    "which of several optimisers made the step is not known", where="optimizer"
                )
            (optimizer,), (hooks,) = self.optimizers, self._hooks
            if hooks.stepping:
                raise InvalidInput("an earlier step was not completed or not recorded", where="optimizer")
            if hooks.may_overwrite:
                kind = type(optimizer).__name__
                raise InvalidInput(f"{kind} may have overwritten the gradient: not readable", where=kind)
            self.settle(lambda: self._randomness)
            self._begin()
            gradients = self._take(optimizer)
            self._add(optimizer, lambda: (gradients, False))

    def leave(self) -> None:
        """Writes the last receipt when the process ends, unless it is a copy of the one that records."""
        if self._process == os.getpid():
            self._write()

    def _begin(self) -> None:
        if self._broken:
            raise InvalidInput("an earlier step was not recorded", where="optimizer")
        self._broken = True

    def _begin_step(self) -> None:
        self.settle(lambda: self._randomness)
        follows = self._checkpointed == self.run.step and self._unwritten is None
        self._continues = self._store_gradients and follows and self._is_due("gradients")
        if self._continues:
            # A tensor is recorded as the number that it holds, and torch computes with it otherwise.
            numbers = self._collect.hyperparameters().values()
            self._continues = not any(isinstance(value, torch.Tensor) for value in numbers)
        if self._continues:
            with self._spent.on("checkpoint"):
                # What a loop does to weights between two steps is no part of the optimiser's update.
                self._collect.reshard()
                now = {name: self._start(getattr(self._collect, name)()) for name in UPDATED}
                self._continues = all(now[name].finish() == self._stored[name] for name in UPDATED)

    def _take(self, optimizer: torch.optim.Optimizer) -> Pending | None:
        if not self._is_due("gradients"):
            return None
        with self._spent.on("gradients"):
            if self._has_parts:
                self._collect.reshard()
            state = self._collect.gradients(optimizer)
            gradients = self._start(state)
            if self._continues:
                self._store(state)
            self._spent.did("gradients")
        self._waits = not gradients.done
        return gradients

    @staticmethod
    def _same(early: Pending | None, late: Pending | None) -> bool:
        return early is None or late is None or early.finish() == late.finish()

    def _done(
        self, optimizer: torch.optim.Optimizer, outcome: Callable[[], tuple[Pending | None, bool]]
    ) -> None:
        with self._lock:
            self._begin()
            self._add(optimizer, outcome)

    def _add(
        self, optimizer: torch.optim.Optimizer, outcome: Callable[[], tuple[Pending | None, bool]]
    ) -> None:
        self._write()
        step = self.run.step + 1
        if not self._policy_recorded:
            for field in ("batch", "samples"):
                self._cadence.setdefault(field, int(self._fed))
            self.run.record_policy(step, self._cadence)
            self._policy_recorded = True
        fields: dict[str, Pending] = {}
        with self._spent.on("state"):
            continues, self._continues = self._continues, False
            due = [field for field in STATE if self._due(field, step) or (continues and field in UPDATED)]
            fields |= {field: self._start(getattr(self._collect, field)()) for field in due}
            if due:
                self._spent.did("state")
            if continues:
                fields["extensions"] = start({FROM_CHECKPOINT: True}, keep=True)
                if not self._due("checkpoint", step):
                    self._store(self._collect.parameters())
        alone = True
        if self._contributions is not None:
            contribution, alone = self._contributions.take()
            if self._due("contribution", step):
                fields["contribution"] = contribution
        with self._spent.on("details"):
            if self._due("hyperparameters", step):
                fields["hyperparameters"] = self._hyperparameters(optimizer)
            if self._due("environment", step):
                fields["environment"] = start(self._collect.environment(), keep=True)
            if self._due("randomness", step):
                if self._randomness is not self._drawn[0]:
                    self._drawn = (self._randomness, start(self._randomness, keep=self.run.replayable))
                fields["randomness"] = self._drawn[1]
            self._randomness, self._versions = collect.randomness(), self._collect.versions()
        with self._spent.on("batch"):
            kept = self._add_batch(fields)
        # Of several optimisers a recipe steps none in particular.
        is_kept = kept and "randomness" in fields and len(self.optimizers) == 1
        # A gradient scaler's scale is in the contribution, and in no checkpoint that a recipe sees.
        is_alone = alone and not ("contribution" in fields and any(each.scaled for each in self._hooks))
        lost = self.run.replayable and not (is_kept and is_alone)
        metrics, self._metrics = self._metrics, {}
        self._unwritten = Unwritten(step, outcome, fields, metrics, NOT_REPLAYABLE * lost)
        self._batches, self._samples = [], []
        self._broken = False
        self._spent.steps += 1
        due_now = self._due("checkpoint", step)
        if due_now or not (self._waits or any(not pending.done for pending in fields.values())):
            self._write()
        if due_now:
            self._checkpoint(step)
        if self._observe_every and step % self._observe_every == 0:
            self._write()
            observe(self.run)
        if self._budget is not None:
            chosen = self._budget.review(self._spent, self._cadence)
            if chosen != self._cadence:
                self.run.record_policy(step + 1, chosen)
                self._cadence = chosen

    def _hyperparameters(self, optimizer: torch.optim.Optimizer) -> Pending:
        state = self._collect.hyperparameters(optimizer)
        text = repr(state)
        # A tensor's text is not all of it, and there are many NaNs.
        if text != self._last[0] or "tensor" in text or "nan" in text:
            self._last = (text, start(state, keep=True))
        return self._last[1]

    def _write(self) -> None:
        """Writes the receipt that waits for a device, if there is one. An interrupted attempt is repeated."""
        with self._lock:
            step = self._unwritten
            if step is None or self._writing:
                return
            with self._spent.on("receipt"):
                fields, flags = step.finish()
                if self._unwritten is not step:
                    return  # a signal's handler was here
                self._writing = True
                try:
                    if self.run.step < step.number:
                        self.run.record_step(step.number, fields, flags=flags)
                    self._unwritten = None
                finally:
                    self._writing = False

    def _add_batch(self, fields: dict[str, Pending]) -> bool:
        """Adds what was fed; returns whether it is kept."""
        if not (self._cadence["batch"] or self._cadence["samples"] or self._batches):
            return False
        batches = self._batches
        numbered = {f"{i}/{name}": leaf for i, batch in enumerate(batches) for name, leaf in batch.items()}
        whole = batches[0] if len(batches) == 1 else numbered
        size = sum(value.nbytes for value in whole.values() if isinstance(value, torch.Tensor))
        keep = bool(batches) and self._replayable and self.run.replayable and size < KEEP_BATCH
        fields["batch"] = start(whole, keep=keep)
        samples = {
            f"{i}/{name}": value for i, each in enumerate(self._samples) for name, value in each.items()
        }
        fields["samples"] = start(samples, keep=True)
        return keep

    def _checkpoint(self, step: int, *, begins: bool = False) -> None:
        with self._spent.on("checkpoint"):
            fields = {name: self._store(getattr(self._collect, name)()) for name in STATE}
            if begins:
                resume.check(self.run, fields)
            fields["environment"] = commit_tensors(self._collect.environment(), keep=True)
            self._spent.did("checkpoint")
        self._unsettled = (step, fields)
        self._checkpointed, self._stored = step, dict(fields)

    def settle(self, randomness: Callable[[], collect.State]) -> None:
        """Writes the checkpoint that waits: schedulers have stepped, and the next batch is not drawn yet."""
        with self._lock:
            if self._unsettled is None:
                return
            with self._spent.on("checkpoint"):
                step, fields = self._unsettled
                fields["hyperparameters"] = commit_tensors(self._collect.hyperparameters(), keep=True)
                fields["randomness"] = commit_tensors(randomness(), keep=True)
                extensions = resume.saved(self._also, self.epoch, len(self._batches))
                if extensions:
                    fields["extensions"] = self.run.store(extensions)
                self.run.record_checkpoint(step, fields)
                self._unsettled = None
                # What is stored is to be gone on from, whatever happens next.
                self.run.flush()

    def _close(self, reason: int) -> bool:
        """Returns whether a step has no receipt."""
        with self._lock:
            for hooks in self._hooks:
                hooks.remove()
            self._collect.reshard()
            if self._contributions is not None:
                self._contributions.remove()
            _active.pop(id(self.run), None)
            self._write()
            incomplete = self._broken or any(hooks.stepping for hooks in self._hooks)
            interrupted = incomplete or (reason != 0 and bool(self._batches))
            # Weights that were loaded or averaged after the last step are not that step's state.
            changed = self._versions() != self._collect.versions(anew=True)()
            wanted = not (interrupted or changed or self._checkpointed == self.run.step)
            if self._has_parts:
                # A state whose parts are on other processes is stored by all of them or not at all.
                wanted = reason == 0 and _is_wanted_by_all(wanted)
            if wanted:
                self._checkpoint(self.run.step)
            self.settle(collect.randomness)
            return incomplete
