"""What the market's agents do with PyTorch: train a job, look through a run, execute a disputed step again.

The specification of a job for these agents names its `recipe` by digest; runs with another recipe are refuted.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import counterfoil
from counterfoil import Key, Receipt, Record
from counterfoil._native import Opened
from counterfoil.attest import OTHER, SAME, answer
from counterfoil.errors import CounterfoilError, InvalidInput
from counterfoil.market import Job
from counterfoil.market.terms import FIELDS
from counterfoil.torch.attach import NOT_REPLAYABLE, SKIPPED
from counterfoil.torch.collect import local_environment
from counterfoil.torch.replay import re_execute

TIMEOUT = 120.0
OPENS = (
    "batch",
    "hyperparameters",
    "metrics",
    "randomness",
    *(each for each in FIELDS if each.startswith("checkpoint.")),
)
"""The states whose bytes `train` keeps at each step and checkpoint, for `Worker`."""
_NOT_EXECUTED = SKIPPED | NOT_REPLAYABLE
_STATES = {name.rpartition(".")[2] for name in FIELDS}


def recipe_digest(path: str | Path) -> str:
    """The digest by which a specification names a recipe of one file (docs/format.md, section 4)."""
    content = np.frombuffer(Path(path).read_bytes(), np.uint8)
    return "0x" + counterfoil.commit_tensors({"recipe.py": content}).digest().hex()


def machine() -> dict[str, Any]:
    """This machine, for the member `machine` of a specification: equal ones compute equal bits.

    A job whose specification has no such member is trained on any machine, and bits that differ on another one than the
    verifiers' refute nothing.
    """
    return local_environment()


def train(
    specification: bytes,
    recipe: Path,
    nonce: bytes,
    path: Path,
    key: Key,
    *,
    install: Callable[[torch.optim.Optimizer], None] = lambda _: None,
) -> None:
    """Records a run for a job: `steps` steps of its recipe, with a checkpoint behind each `checkpoint_every`.

    Args:
        specification: The job's, with the members `recipe`, `steps` and `checkpoint_every`.
        recipe: The recipe's file.
        nonce: That of the accepted job.
        path: The folder.
        key: The worker's.
        install: Called with the optimiser when recording has begun: where a worker who cheats begins.

    Raises:
        InvalidInput: The file is not the recipe that the specification names.
    """
    spec = json.loads(specification)
    if recipe_digest(recipe) != spec["recipe"]:
        raise InvalidInput(
            "the recipe is not the job's",
            expected=spec["recipe"],
            actual=recipe_digest(recipe),
            where=str(recipe),
        )
    policy, public = spec.pop("policy"), spec.pop("public")
    module: Any = _module(recipe)
    run = counterfoil.Run.create(
        path, key=key, spec=spec, recipe=recipe, policy=policy, public=public, nonce=nonce
    )
    with run:
        model, optimizer, step = module.recipe(run.spec)
        recorder = run.attach(model, optimizer, every=1, checkpoint_every=spec["checkpoint_every"])
        install(optimizer)
        epochs = itertools.repeat(run.batches(module.batches(run.spec)))
        batches = itertools.chain.from_iterable(epochs)
        for number, batch in zip(range(1, spec["steps"] + 1), batches, strict=False):
            step(batch, number, recorder.log)


def find_wrong(job: Job, record: Record) -> Receipt | None:
    """Verifies a delivered run, executes all of it again, and returns the receipt to dispute; None if all came out.

    That is the first step that came out otherwise; the first of all where the run did not begin from the state that
    its recipe makes; and the close receipt, which speaks of all of it, of a run that is broken or not the job's.
    """
    receipts = record.receipts()
    if not _holds(job, record):
        return receipts[-1]
    steps = [each for each in receipts if each.kind == "step"]
    report = re_execute(record, "all", TIMEOUT)
    if not report.begins:
        return steps[0]
    wrong = {each.step for each in report.refuted}
    return next((each for each in steps if each.fields["step"] in wrong), None)


def execute(
    job: Job, record: Record, receipt: Receipt, beacon: bytes, verifier: str
) -> tuple[int, bytes] | None:
    """Executes a disputed step again, from the checkpoint before it; of another receipt, looks at the whole run.

    The first step is executed from the state that the recipe makes. Of a run that is broken or not the job's each
    receipt is refuted.

    Args:
        job: The job.
        record: The delivered run.
        receipt: The disputed one.
        beacon: The round's, under which the answer is given.
        verifier: Address of whoever answers.

    Returns:
        The outcome, 1 as recorded and 2 otherwise, and the answer of docs/format.md, section 16; the answer is zero
        where nothing was computed. None if the step could not be executed, or only an earlier one differs.
    """
    is_whole = _holds(job, record)
    if receipt.kind != "step" and is_whole:
        # What was withheld when it was disputed may be there by now: then all of it is executed.
        is_whole = find_wrong(job, record) is None
    if receipt.kind != "step" or not is_whole:
        return (SAME if is_whole else OTHER), bytes(32)
    number, heard = receipt.fields["step"], _Heard(beacon, verifier)
    chosen = [0, 1] if number == 1 else [number]
    report = re_execute(record, chosen, TIMEOUT, attestation=heard)  # type: ignore[arg-type]
    outcome, given = heard.found.get(receipt.digest, (0, bytes(32)))
    if number == 1 and outcome == SAME and not report.begins:
        outcome = OTHER
    return (outcome, given) if outcome else None


class _Heard:
    """Takes what a replay tells of each step, in the place of a lane in the run's folder."""

    def __init__(self, beacon: bytes, verifier: str) -> None:
        self._beacon, self._verifier = beacon, verifier
        self.found: dict[bytes, tuple[int, bytes]] = {}

    def knows(self, replayed: Receipt) -> bool:
        return False

    def add(self, replayed: Receipt, outcome: int, computed: Mapping[str, Mapping[str, Any]]) -> None:
        self.found[replayed.digest] = (outcome, answer(self._beacon, self._verifier, replayed, computed))


def _holds(job: Job, record: Record) -> bool:
    """Whether all of a run is shown and unbroken, and is the job's: its specification, its recipe and its steps."""
    receipts, head = record.receipts(), record.tree_head()
    genesis = receipts[0].fields
    steps = max((each.fields["step"] for each in receipts if each.kind == "step"), default=0)
    is_own = genesis["specification"] == job.terms.specification
    is_own = is_own and record.spec.get("recipe") == record.recipe_digest and steps >= job.terms.units
    if not is_own or head is None or head.size != len(receipts):
        return False
    try:
        counterfoil.verify(record, signer=genesis["owner"])
        return _is_executable(record) and _names_its_machine(record)
    except CounterfoilError:
        # Stored bytes that are not what was signed among them.
        return False


def _is_executable(record: Record) -> bool:
    """Whether a run shows what executing its steps needs: what is withheld could be refuted by nobody.

    A step that says of itself that it was skipped, or cannot be executed, is withheld as well.
    """
    receipts = record.receipts()
    for receipt in (each for each in receipts if each.kind in ("step", "checkpoint")):
        opened, is_step = record.opened(receipt), receipt.kind == "step"
        named = {name for name in _STATES if any(receipt.fields.get(name, b""))}
        inputs = {"batch", "randomness"} if is_step else named
        if not inputs <= named <= {*opened} or (is_step and receipt.fields["flags"] & _NOT_EXECUTED):
            return False
        if any(entry.kind == "sharded" for name in named for entry in opened[name].entries):
            return False
        if not all(_is_kept(record, opened[name], is_step) for name in inputs):
            return False
    return any(each.kind == "checkpoint" and each.fields["step"] == 0 for each in receipts)


def _names_its_machine(record: Record) -> bool:
    """Whether each stored state was made on the machine that the specification names; on any, where it names none.

    Bits that differ accuse nobody who computed elsewhere, so whoever may name another machine may compute what it likes.
    """
    wanted = record.spec.get("machine", {})
    checkpoints = (each for each in record.receipts() if each.kind == "checkpoint")
    named = (record.opened(each)["environment"].scalars() for each in checkpoints)
    return all(each.get(name) == value for each in named for name, value in wanted.items())


def _is_kept(record: Record, opened: Opened, by_value: bool) -> bool:
    """Whether the bytes of a state's tensors are there: in the ledger, or else in the store."""
    values = opened.values
    if by_value or values is not None:
        return values is not None
    return all(record.object(entry) is not None for entry in opened.entries if entry.kind == "dense")


def _module(path: Path) -> Any:
    name = f"counterfoil_job_{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None, "a Python file"
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
