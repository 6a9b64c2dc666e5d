"""Turns what an optimiser does into step receipts.

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
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from counterfoil import commit_tensors, cuda
from counterfoil.commit import start
from counterfoil.errors import InvalidInput, RunClosed
from counterfoil.torch import collect
from counterfoil.torch.hooks import Hooks, innermost

if TYPE_CHECKING:
    from counterfoil import Commitment, Run
    from counterfoil.commit import Pending

SKIPPED, NOT_REPLAYABLE, FALLBACK = 1, 2, 4
KEEP_BATCH = 32 << 20
"""Bytes below which a replayable run keeps a step's batch."""

_active: dict[int, Recorder] = {}


def attach(
    run: Run,
    model: torch.nn.Module,
    optimizer: Any,
    *,
    every: int = 50,
    checkpoint_every: int = 50,
) -> Recorder:
    """Records every step of an optimiser into a run, from now until the run closes.

    Gradients, hyperparameters, randomness and, where `run.batches` is used, batches are recorded
    at each step; parameters, optimiser state and buffers at a cadence. The first and last state and
    one every `checkpoint_every` steps are stored whole, so that steps can be re-executed.

    Tensors on NVIDIA GPUs are hashed there, without waiting: the receipt of a step is then written
    during the next one, or when the run is flushed or closed. Those of other devices are copied and
    hashed by the CPU, with a warning, and their steps are flagged.

    Args:
        run: An open run.
        model: The model whose parameters the optimiser steps, bare or inside a known wrapper.
        optimizer: A torch optimiser or a trainer's wrapper around one.
        every: Steps between commitments to parameters, optimiser state and buffers; 0 for never.
        checkpoint_every: Steps between checkpoints; 0 leaves only the first and the last.

    Returns:
        The recorder; the same one when this run already records this optimiser.

    Raises:
        RunClosed: The run is closed.
        InvalidInput: The optimiser is recorded by another run, the run records another optimiser,
            or something is not recordable (LBFGS, sparse or sharded tensors, the capture of a CUDA
            graph); `.where` names it.
        UnsupportedDtype: A dtype has no canonical bytes; `.where` names the tensor.

    Source:
        docs/format.md, section 4.
    """
    cuda.refuse_capture()
    if run.closed:
        raise RunClosed(f"{run.path} is closed: a closed run records nothing")
    inner = innermost(optimizer)
    for recorder in _active.values():
        if recorder.run is run and recorder.optimizer is inner:
            return recorder
        if recorder.run is run:
            raise InvalidInput("this run already records another optimiser", where="optimizer")
        if recorder.optimizer is inner:
            raise InvalidInput(
                f"this optimiser is recorded by {recorder.run.path}: close it first",
                where="optimizer",
            )
    return Recorder(run, model, inner, _cadence(run, every, checkpoint_every))


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


def _cadence(run: Run, every: int, checkpoint_every: int) -> dict[str, int]:
    cadence = dict.fromkeys(("gradients", "hyperparameters", "randomness"), 1)
    cadence |= dict.fromkeys(("parameters", "optimizer", "buffers"), every)
    cadence |= dict.fromkeys(("environment", "checkpoint"), checkpoint_every)
    for name, floor in run.spec.get("policy", {}).items():
        cadence[name] = min(filter(None, (floor, cadence.get(name))), default=0)
    return cadence


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
    """Records the steps of one optimiser; made by `attach`."""

    def __init__(
        self,
        run: Run,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        cadence: dict[str, int],
    ):
        self.run, self.optimizer = run, optimizer
        self._collect = collect.Collector(model, optimizer)
        self._cadence, self._policy_recorded = cadence, False
        self._batches: list[collect.State] = []
        self._fed, self._replayable = False, True
        self._metrics: dict[str, Callable[[], bool | int | float]] = {}
        self._checkpointed = -1
        self._unwritten: Unwritten | None = None
        self._writing = self._waits = False
        # From the beginning of a step's recording until it is certain to have a receipt.
        self._broken = False
        # Whoever flushes or closes the run may be another thread, or a signal's handler.
        self._lock, self._process = threading.RLock(), os.getpid()
        self._randomness = collect.randomness()
        self._checkpoint(run.step)
        for device in {parameter.device for parameter in model.parameters() if cuda.engine.away(parameter)}:
            cuda.usable(device)
        self._versions = self._collect.versions()
        self._hooks = Hooks(optimizer, self._take, self._same, self._done)
        _active[id(run)] = self
        run.on_flush(self._write)
        run.on_close(self._close)

    @property
    def pending(self) -> bool:
        """Whether a batch was consumed since the last step."""
        return bool(self._batches)

    def log(self, **metrics: Any) -> None:
        """Adds numbers to the receipt of the step under way; call it before `optimizer.step()`.

        Args:
            metrics: Python numbers or tensors of shape `[]` on any device, such as `loss=loss`.

        Raises:
            InvalidInput: A value is not one number; `.where` names it.
        """
        self._metrics.update({name: collect.metric(name, value) for name, value in metrics.items()})

    def feed(self, batch: Any, *, replayable: bool = True) -> None:
        """Takes a batch that training is about to consume; `batches` calls this.

        Args:
            batch: Nested tuples, lists and mappings of tensors; copied.
            replayable: False when drawing this batch changed the randomness of a step under way.
        """
        if not self._batches:
            self._randomness, self._replayable = collect.randomness(), True
        leaves = dict(collect.flatten(batch))
        # Kernels choose by memory layout and give other bits; a receipt knows no strides.
        plain = all(isinstance(value, torch.Tensor) and value.is_contiguous() for value in leaves.values())
        self._replayable &= replayable and plain
        self._batches.append({name: _copy(value) for name, value in leaves.items()})
        self._fed = True

    def _due(self, field: str, step: int) -> bool:
        return self._cadence[field] > 0 and step % self._cadence[field] == 0

    def record(self) -> None:
        """Records a step that calls no Python: the replay of a CUDA graph that holds `optimizer.step()`.

        Call it after each replay. Attach after the capture, inside which nothing can be hashed. That a
        scaler skipped the step is not seen here.

        Raises:
            InvalidInput: An earlier step was not recorded, the optimiser overwrites its gradient or is
                not one of torch's, or something is not recordable; `.where` names it.
        """
        with self._lock:
            cuda.refuse_capture()
            if self._hooks.stepping:
                raise InvalidInput("an earlier step was not completed or not recorded", where="optimizer")
            if self._hooks.may_overwrite:
                kind = type(self.optimizer).__name__
                raise InvalidInput(f"{kind} may have overwritten the gradient: not readable", where=kind)
            self._begin()
            gradients = self._take()
            self._add(lambda: (gradients, False))

    def leave(self) -> None:
        """Writes the last receipt when the process ends, unless it is a copy of the one that records."""
        if self._process == os.getpid():
            self._write()

    def _begin(self) -> None:
        if self._broken:
            raise InvalidInput("an earlier step was not recorded", where="optimizer")
        self._broken = True

    def _take(self) -> Pending | None:
        before = self._unwritten
        if not self._due("gradients", 1 + (self.run.step if before is None else before.number)):
            return None
        gradients = start(self._collect.gradients())
        self._waits = not gradients.done
        return gradients

    @staticmethod
    def _same(early: Pending | None, late: Pending | None) -> bool:
        return early is None or late is None or early.finish() == late.finish()

    def _done(self, outcome: Callable[[], tuple[Pending | None, bool]]) -> None:
        with self._lock:
            self._begin()
            self._add(outcome)

    def _add(self, outcome: Callable[[], tuple[Pending | None, bool]]) -> None:
        self._write()
        step = self.run.step + 1
        if not self._policy_recorded:
            self._cadence.setdefault("batch", int(self._fed))
            self.run.record_policy(step, self._cadence)
            self._policy_recorded = True
        fields: dict[str, Pending] = {}
        for field in ("parameters", "optimizer", "buffers"):
            if self._due(field, step):
                fields[field] = start(getattr(self._collect, field)())
        for field in ("hyperparameters", "environment"):
            if self._due(field, step):
                fields[field] = start(getattr(self._collect, field)(), keep=True)
        if self._due("randomness", step):
            fields["randomness"] = start(self._randomness, keep=self.run.replayable)
        batch, kept = self._batch()
        if batch is not None:
            fields["batch"] = batch
        lost = self.run.replayable and not (kept and "randomness" in fields)
        randomness, versions = collect.randomness(), self._collect.versions()
        metrics, self._metrics = self._metrics, {}
        self._unwritten = Unwritten(step, outcome, fields, metrics, NOT_REPLAYABLE * lost)
        self._batches, self._randomness, self._versions = [], randomness, versions
        self._broken = False
        due = self._due("checkpoint", step)
        if due or not (self._waits or any(not pending.done for pending in fields.values())):
            self._write()
        if due:
            self._checkpoint(step)

    def _write(self) -> None:
        """Writes the receipt that waits for a device, if there is one. An interrupted attempt is repeated."""
        with self._lock:
            step = self._unwritten
            if step is None or self._writing:
                return
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

    def _batch(self) -> tuple[Pending | None, bool]:
        if not self._cadence["batch"] and not self._batches:
            return None, False
        batches = self._batches
        numbered = {f"{i}/{name}": leaf for i, batch in enumerate(batches) for name, leaf in batch.items()}
        whole = batches[0] if len(batches) == 1 else numbered
        size = sum(value.nbytes for value in whole.values() if isinstance(value, torch.Tensor))
        keep = bool(batches) and self._replayable and self.run.replayable and size < KEEP_BATCH
        return start(whole, keep=keep), keep

    def _checkpoint(self, step: int) -> None:
        fields = {
            name: self.run.store(getattr(self._collect, name)())
            for name in ("parameters", "optimizer", "buffers")
        }
        fields["hyperparameters"] = commit_tensors(self._collect.hyperparameters(), keep=True)
        fields["environment"] = commit_tensors(self._collect.environment(), keep=True)
        fields["randomness"] = commit_tensors(collect.randomness(), keep=self.run.replayable)
        self.run.record_checkpoint(step, fields)
        self._checkpointed = step

    def _close(self, reason: int) -> bool:
        """Returns whether a step has no receipt."""
        with self._lock:
            self._hooks.remove()
            _active.pop(id(self.run), None)
            self._write()
            incomplete = self._broken or self._hooks.stepping
            interrupted = incomplete or (reason != 0 and self.pending)
            # Weights that were loaded or averaged after the last step are not that step's state.
            changed = self._versions() != self._collect.versions()()
            if not (interrupted or changed or self._checkpointed == self.run.step):
                self._checkpoint(self.run.step)
            return incomplete
