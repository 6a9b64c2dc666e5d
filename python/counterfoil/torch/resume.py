"""Continues a run behind its last stored checkpoint, and refuses to continue it from anything else.

A checkpoint behind a resume must hold the state that the run had at that step: verification refutes
another one, so the recorder never writes it.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from counterfoil._native import Record
from counterfoil.errors import CorruptJournal, InvalidInput, NotFound
from counterfoil.lookup import lineage
from counterfoil.torch import collect
from counterfoil.torch.budget import STATE
from counterfoil.torch.collect import State
from counterfoil.torch.exchange import exchange
from counterfoil.torch.wire import from_bytes

if TYPE_CHECKING:
    from counterfoil import Commitment, Entry, Opened, Receipt, Run

ALSO, EPOCH, CONSUMED = "also/", "epoch/", "consumed"
RESTORED = 2
"""Why training goes on from an earlier step, as a resume receipt says it."""


@dataclass
class Epoch:
    """How far a loader has come: the randomness with which it began, and the batches consumed since.

    Attributes:
        after: The randomness behind those batches, of an epoch that is to be gone through again.
    """

    begin: State
    consumed: int = 0
    after: State | None = None


def restore(
    run: Run, collector: collect.Collector, also: Mapping[str, Any], *, together: bool
) -> Epoch | None:
    """Loads the last stored checkpoint of a run's lane, and says in the ledger that training goes on there.

    Of several processes that go on together, the last one that all of them have.

    Returns:
        How far the loader had come, if batches were recorded.

    Raises:
        NotFound: There is none though steps are recorded, or one of its tensors is missing.
        InvalidInput: It does not fit the model, the optimisers or what else is restored.
    """
    record, receipts = _lineage(run)
    opened = ((each, record.opened(each)) for each in reversed(receipts) if each.kind == "checkpoint")
    whole = ((receipt, fields) for receipt, fields in opened if {*STATE, "randomness"} <= fields.keys())
    receipt, fields = next(whole, (None, {}))
    if together:
        steps = _steps_of_all(-1 if receipt is None else receipt.fields["step"], run.step)
        if receipt is not None and receipt.fields["step"] > steps:
            found = ((each, parts) for each, parts in whole if each.fields["step"] == steps)
            receipt, fields = next(found, (None, {}))
    if receipt is None and run.step == 0:
        return None  # a process that ended before its first checkpoint leaves everything to do
    if receipt is None:
        raise NotFound(f"{run.path} has no stored checkpoint to go on from", where=str(run.path))
    states = {field: _stored(record, fields[field]) for field in STATE}
    extensions = _stored(record, fields["extensions"]) if "extensions" in fields else {}
    names = {name.removeprefix(ALSO) for name in extensions if name.startswith(ALSO)}
    if names != set(also):
        odd = min(names ^ set(also))
        raise InvalidInput(f"also: the checkpoint and the call differ in {odd!r}", where="also")
    collector.restore(states["parameters"], states["optimizer"], states["buffers"])
    _restore_hyperparameters(collector, fields["hyperparameters"])
    for name, target in also.items():
        blob = extensions[ALSO + name]
        target.load_state_dict(_load(name, blob.numpy().tobytes()))
    randomness = _valued(fields["randomness"])
    collect.restore_randomness(randomness)
    step = receipt.fields["step"]
    if step < run.step:
        run.record_resume(step, RESTORED)
    if EPOCH + CONSUMED not in extensions:
        return None
    begin = {
        name.removeprefix(EPOCH): value
        for name, value in extensions.items()
        if name.startswith(EPOCH) and name != EPOCH + CONSUMED
    }
    return Epoch(begin, int(extensions[EPOCH + CONSUMED]), randomness)


def _steps_of_all(last: int, recorded: int) -> int:
    """The step of the last checkpoint that all processes have; each says that of its own, -1 for none."""
    told = [json.loads(each) for each in exchange(json.dumps([last, recorded]).encode())]
    for rank, (checkpoint, step) in enumerate(told):
        if checkpoint < 0 < max(each for _, each in told):
            raise NotFound(
                f"rank {rank} has no checkpoint to go on from, others have: its lane must be that of the same worker, "
                f"and lie in the folder that it opens (it recorded {step} steps)",
                where=f"rank {rank}",
            )
    return min(int(checkpoint) for checkpoint, _ in told)


def check(run: Run, fields: Mapping[str, Commitment]) -> None:
    """Refuses to continue a run from another state than it recorded last.

    Raises:
        InvalidInput: The state is another one, or none is recorded at this step.
    """
    if not run.resumed:
        return
    record, receipts = _lineage(run)
    if not any(receipt.kind in ("step", "checkpoint") for receipt in receipts):
        return
    advice = "attach with restore=True to go on from the last checkpoint, or begin a new run"
    known: dict[str, Opened] = {}
    for receipt in receipts:
        if receipt.kind in ("step", "checkpoint") and receipt.fields["step"] == run.step:
            known |= record.opened(receipt)
    # Weights alone tell: other parts may be empty, and equal for any model.
    if "parameters" not in known:
        raise InvalidInput(f"the state after step {run.step} is not recorded: {advice}", where="model")
    for name, commitment in fields.items():
        if name in known and known[name].commitment != commitment:
            difference = commitment.first_difference(known[name].commitment)
            where = name if difference is None else f"{name}/{difference[0]}"
            raise InvalidInput(
                f"{where} is not what the run recorded after step {run.step}: {advice}",
                expected=known[name].commitment.root.hex(),
                actual=commitment.root.hex(),
                where=where,
            )


def saved(also: Mapping[str, Any], epoch: Epoch | None, waiting: int) -> State:
    """What a checkpoint holds besides the state that a step changes; `waiting` batches are of no step yet.

    Raises:
        InvalidInput: What an object says of itself could not be loaded again; `.where` names it.
    """
    state: State = {}
    for name, source in also.items():
        buffer = io.BytesIO()
        torch.save(source.state_dict(), buffer)
        _load(name, buffer.getvalue())
        state[ALSO + name] = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
    if epoch is not None:
        state |= {EPOCH + name: value for name, value in epoch.begin.items()}
        state[EPOCH + CONSUMED] = epoch.consumed - waiting
    return state


def _load(name: str, content: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(content), weights_only=True)
    except pickle.UnpicklingError as refused:
        raise InvalidInput(
            f"also: the state of {name!r} holds more than tensors, numbers, texts and containers: {refused}",
            where=name,
        ) from None


def _lineage(run: Run) -> tuple[Record, list[Receipt]]:
    run.flush()
    record = Record(run.path)
    return record, lineage(record.receipts(run.worker, run.lane))


def _stored(record: Record, opened: Opened) -> State:
    return {entry.name: _tensor(record, entry) for entry in opened.entries}


def _tensor(record: Record, entry: Entry) -> torch.Tensor | None:
    if entry.kind == "sharded":
        raise InvalidInput(
            f"{entry.name} was recorded in blocks, whose bytes are not stored", where=entry.name
        )
    if entry.kind != "dense":
        return None
    content = record.object(entry)
    if content is None:
        raise NotFound(f"{entry.name} of the last checkpoint is not stored any more", where=entry.name)
    return from_bytes(entry.dtype, entry.shape, content)


def _valued(opened: Opened) -> State:
    """The tensors of a state that the journal keeps by value."""
    if opened.values is None:
        raise CorruptJournal("the checkpoint's values are not in the journal", where="randomness")
    return {
        entry.name: from_bytes(entry.dtype, entry.shape, opened.values[entry.name])
        if entry.kind == "dense"
        else None
        for entry in opened.entries
    }


def _restore_hyperparameters(collector: collect.Collector, opened: Opened) -> None:
    """Puts learning rates and their like back, in the types that the optimisers have for them."""
    numbers, tensors = opened.scalars(), _valued(opened)
    for index, _, group in collector.groups():
        for key, now in group.items():
            name = f"{index}/{key}"
            if isinstance(now, torch.Tensor):
                value = tensors.get(name)
                if value is not None:
                    now.copy_(value)
            elif isinstance(now, tuple | list):
                parts = [f"{name}/{place}" for place in range(len(now))]
                if all(part in numbers for part in parts):
                    group[key] = type(now)(numbers[part] for part in parts)
            elif name in numbers:
                group[key] = numbers[name]
