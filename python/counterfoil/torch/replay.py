"""Executes recorded steps again and compares.

The recipe is the prover's code, so it never judges: it runs in a confined child that is given the
state before a step, its randomness and its batch, and hands back what it computed. This side
commits to that and compares every field the step's receipt opens. A step that cannot be executed
is reported as such and never counts as replayed; on a machine whose bits may differ from the
recording one's, a difference is not held against the run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import counterfoil
from counterfoil import Mismatch, Record, ReplayReport, commit_tensors
from counterfoil.errors import CounterfoilError, InvalidInput
from counterfoil.lookup import lineage
from counterfoil.torch import confine, wire
from counterfoil.torch.attach import NOT_REPLAYABLE, SKIPPED
from counterfoil.torch.budget import STATE
from counterfoil.torch.child import CHOSEN
from counterfoil.torch.collect import ACCELERATOR, VARIABLES, State, local_environment

if TYPE_CHECKING:
    from counterfoil import Chain, Commitment, Entry, Opened, Receipt, Verdict

COMPARED = ("hyperparameters", "gradients", "metrics", "parameters", "optimizer", "buffers")
OWN = ("contribution",)
"""What is compared of a step, and of one that several ranks made: what one of them computed alone."""
ROOM = 64 << 20
LIVES = 4
START = 120.0
"""Bytes a child may answer beyond its state, and seconds in which it has to stand."""


class NotReplayable(Exception):
    """Why a step was not executed again; `fatal` when the child can execute no more."""

    def __init__(self, reason: str, *, fatal: bool = False) -> None:
        super().__init__(reason)
        self.fatal = fatal


class Differs(Exception):
    """What was computed is not what was recorded; the first argument is the mismatch."""

    def __init__(self, mismatch: Mismatch, *, excused: bool) -> None:
        super().__init__(mismatch)
        self.mismatch, self.excused = mismatch, excused


def replay(
    path: str | Path,
    steps: str | Sequence[int] = "all",
    *,
    recipe: str | None = None,
    run_untrusted: bool = False,
    signer: str | None = None,
    require: str = "integrity",
    chain: Chain | None = None,
    trusted_blocks: Iterable[str] = (),
    timeout: float = 120.0,
) -> Verdict:
    """Verifies a run, executes chosen steps of it again and compares them bit for bit.

    Args:
        path: The run folder.
        steps: `"all"`, `"sample:20"` (drawn here and now, without replacement), `"207:217"` (both
            included), `"217"` or step numbers.
        recipe: The recipe's digest (`0x` and 64 hex digits) that you have read and trust.
        run_untrusted: Runs the recipe without such a pin.
        signer, require, chain, trusted_blocks: As for `counterfoil.verify`.
        timeout: Seconds a step may take.

    Of each lane the chosen steps are executed. A step of several ranks needs a checkpoint just before it, and only what
    its rank computed alone is compared, its contribution: such a step does not count as replayed.

    Returns:
        The verdict, its Transition line counting the steps that came out bit-exact.

    Raises:
        Refuted: The evidence is broken, or a step came out differently; carries the verdict.
        InvalidInput: The recipe is missing or not pinned, or a step does not exist.

    Source:
        docs/format.md, section 4.
    """
    record = Record(path)
    pins: dict[str, Any] = {"signer": signer, "recipe": recipe, "require": require, "chain": chain}
    pins["trusted_blocks"] = tuple(trusted_blocks)

    def verify(report: ReplayReport | None) -> Verdict:
        return counterfoil.verify(record, replay=report, **pins)

    verify(None)
    _check_recipe(record, recipe, run_untrusted)
    return verify(re_execute(record, steps, timeout))


def _check_recipe(record: Record, pinned: str | None, run_untrusted: bool) -> None:
    digest, names = record.recipe_digest, sorted(record.recipe)
    if digest is None:
        raise InvalidInput("the run has no recipe: its steps cannot be executed again", where="recipe")
    paths = [PurePosixPath(name) for name in names]
    if any(path.is_absolute() or ".." in path.parts or "\\" in str(path) for path in paths):
        raise InvalidInput("a recipe file's name leads out of its folder", where="recipe")
    if pinned is not None and pinned.lower() != digest:
        raise InvalidInput("the recipe is not the pinned one", expected=pinned, actual=digest, where="recipe")
    if pinned is None and not run_untrusted:
        raise InvalidInput(
            f"the recipe is the prover's code and was not run. Read {', '.join(names)} in {record.path}/recipe, "
            f'then pin it with recipe="{digest}", or say run_untrusted=True',
            actual=digest,
            where="recipe",
        )


def choose(steps: str | Sequence[int], last: int) -> list[int]:
    """The chosen steps of 1..last in ascending order; `sample:k` with unpredictable randomness."""
    try:
        if not isinstance(steps, str):
            chosen: Iterable[int] = [int(step) for step in steps]
        elif steps == "all":
            chosen = range(1, last + 1)
        elif steps.startswith("sample:"):
            count = int(steps.removeprefix("sample:"))
            chosen = secrets.SystemRandom().sample(range(1, last + 1), min(count, last))
        else:
            first, _, final = steps.partition(":")
            chosen = range(int(first), int(final or first) + 1)
    except ValueError:
        raise InvalidInput(f"{steps!r} is not all, sample:k, a:b or a step", where="steps") from None
    found = sorted(set(chosen))
    if not found or found[0] < 1 or found[-1] > last:
        raise InvalidInput(f"{steps!r} is not within the recorded steps 1..{last}", where="steps")
    return found


def re_execute(record: Record, steps: str | Sequence[int], timeout: float) -> ReplayReport:
    """Executes chosen steps of each lane and reports what was seen, up to the first lane that differs."""
    # By number, which is the rank: by the workers' addresses, chance would say who is executed before one that differs.
    places = sorted(record.lanes, key=lambda place: place[1])
    lanes = [Execution(record, timeout, *place) for place in places]
    last = max((len(each.steps) for each in lanes), default=0)
    found = ReplayReport(())
    for execution in lanes:
        every = choose(steps, last)
        chosen = [step for step in every if step in execution.steps]
        if execution.steps and not found.refuted:
            seen = _re_execute(execution, chosen)
            if len(chosen) < len(every):
                note = f"{execution.lane}has {len(chosen)} of the {len(every)} chosen steps"
                seen = dataclasses.replace(seen, notes=(*seen.notes, note))
            found = ReplayReport(
                found.steps + seen.steps,
                seen.refuted,
                tuple(dict.fromkeys(found.notes + seen.notes)),
                found.undecided + seen.undecided,
            )
    return found


def _re_execute(execution: Execution, chosen: Sequence[int]) -> ReplayReport:
    replayed: list[int] = []
    contributed: list[int] = []
    notes: list[str] = []
    differing: list[Mismatch] = []
    refuted: list[Mismatch] = []
    with execution:
        for step in chosen:
            try:
                execution.reach(step)
                (contributed if execution.is_shared(step) else replayed).append(step)
            except NotReplayable as reason:
                notes.append(f"{execution.lane}step {step} not replayed: {reason}")
                execution.at = None
                if reason.fatal:
                    execution.begin_anew()
            except Differs as found:
                (differing if found.excused else refuted).append(found.mismatch)
                execution.at = None
            if refuted or (differing and replayed):
                break
    if differing and replayed and not refuted:
        # Bits that came out equal show that this machine computes what the recording one did.
        refuted = differing[:1]
    undecided = [
        f"step {wrong.step} differs in {wrong.field}, on another kind of machine or behind what the recipe keeps"
        for wrong in differing
    ]
    if contributed:
        notes.append(
            f"{execution.lane}its contribution to {len(contributed)} steps was computed again, bit-exact; what several "
            "ranks made of theirs is not executed again"
        )
    return ReplayReport(
        steps=tuple(replayed),
        refuted=tuple(refuted),
        notes=tuple(notes + execution.notes),
        undecided=() if refuted else tuple(undecided),
    )


class Execution:
    """A recorded lane beside the child that executes its recipe."""

    def __init__(self, record: Record, timeout: float, worker: str, lane: int) -> None:
        self.lane = "" if len(record.lanes) == 1 else f"{worker} lane {lane}: "
        self.steps: dict[int, Receipt] = {}
        self.notes: list[str] = []
        self.at: int | None = None
        self._starts: dict[int, Receipt] = {}
        self._ends: dict[int, list[Receipt]] = {}
        self._restarts: set[int] = set()
        resumed = False
        for receipt in lineage(record.receipts(worker, lane)):
            step = receipt.fields.get("step", 0)
            if receipt.kind == "resume":
                resumed = True
            elif receipt.kind == "step":
                resumed = False
                self.steps[step] = receipt
            elif receipt.kind == "checkpoint" and any(receipt.fields["parameters"]):
                self._starts[step] = receipt
                self._ends.setdefault(step, []).append(receipt)
                # Training may go on in another process, with other threads.
                self._restarts |= {step} if resumed else set()
        self._record, self._timeout = record, timeout
        self._environment: State = {}
        self._same_machine = True
        self._limit = ROOM
        self._greeted = False
        self._lives = LIVES

    def __enter__(self) -> Execution:
        self._folder = tempfile.TemporaryDirectory(prefix="counterfoil-")
        for name, content in self._record.recipe.items():
            file = Path(self._folder.name, "recipe", name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        self._errors = tempfile.TemporaryFile()
        libraries = sorted({str(Path(module.__path__[0]).parent) for module in (counterfoil, torch, np)})
        passed = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-B", confine.__file__, *libraries],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, cwd=self._folder.name,
            env=passed | {"OMP_WAIT_POLICY": "PASSIVE", "TMPDIR": self._folder.name}, start_new_session=True,
        )  # fmt: skip
        assert self._child.stdin is not None and self._child.stdout is not None
        self._pipe = wire.Pipe(self._child.stdout.fileno(), self._child.stdin.fileno())
        run = Path(self._record.path).resolve()
        self._hidden = not any(run.is_relative_to(path) for path in confine.visible(libraries))
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        for pipe in (self._child.stdin, self._child.stdout, self._errors):
            if pipe is not None:
                pipe.close()  # not read to its end: a process left behind may hold the other one
        self._child.wait()
        self._folder.cleanup()

    def begin_anew(self) -> None:
        """Replaces a child that ended, a few times: later steps are none of its business."""
        self._lives -= 1
        if self._lives > 0:
            self.__exit__()
            self.__enter__()
            self._greeted = False

    def is_shared(self, step: int) -> bool:
        """Whether several ranks made a step, by its receipt."""
        return any(self.steps[step].fields["contribution"])

    def reach(self, step: int) -> None:
        """Executes from the nearest checkpoint, or from where the child stands, up to a step.

        Raises:
            NotReplayable: Something on the way is not kept, or the child gave no usable answer.
            Differs: A field of this step, or of one on the way, came out differently.
        """
        if self._lives == 0:
            raise NotReplayable("the recipe's process ended too often")
        starts = sorted(at for at in self._starts if at < step)
        if not starts:
            raise NotReplayable("no checkpoint lies before it")
        if not self._greeted:
            self._greet()
        try:
            self._execute(starts[-1], step)
        except Differs as found:
            if starts[-1] == starts[0]:
                raise
            # A recipe may keep what no checkpoint holds, such as a scheduler. Before the run is
            # accused, its steps are executed from its first checkpoint on.
            self.at = None
            try:
                self._execute(starts[0], step)
            except NotReplayable:
                # Of a step of several ranks, none before it is executed, and what a recipe keeps is not known.
                raise Differs(found.mismatch, excused=found.excused or self.is_shared(step)) from None

    def _execute(self, start: int, step: int) -> None:
        states: dict[str, State] = {}
        if self.at is None or not start <= self.at < step:
            states, self.at = self._restored(self._starts[start]), start
        for number in range(self.at + 1, step + 1):
            if number - 1 in self._restarts:
                # Its state is the one that was reached, or verification had refuted it.
                self._take_environment(self._starts[number - 1])
            receipt = self.steps[number]
            if receipt.fields["flags"] & (SKIPPED | NOT_REPLAYABLE):
                raise NotReplayable(f"step {number} is flagged as skipped or not replayable")
            opened = self._record.opened(receipt)
            inputs = {
                field: _tensors(opened.get(field), f"{field} of step {number}")
                for field in ("batch", "randomness")
            }
            shared = self.is_shared(number)
            header = self._environment | {"step": number, "spec": self._record.spec, "contribution": shared}
            _, computed = self._exchange(wire.encode(header, states | inputs), self._timeout)
            states, self.at = {}, number
            self._compare(receipt, opened, computed)
            if shared:
                self.at = None  # the other ranks' gradients are part of what came next
                if number < step:
                    raise NotReplayable(
                        f"no checkpoint stands between steps {number} and {number + 1} of several ranks"
                    )
                return
            for checkpoint in self._ends.get(number, []):
                self._compare(checkpoint, self._record.opened(checkpoint), computed)

    def _greet(self) -> None:
        """Waits until the child stands, and notes what it could not be cut off from."""
        self._greeted = True
        cut, _ = self._exchange(None, START)
        for kept, what in (
            (cut.get("network"), "the network"),
            (cut.get("files") and self._hidden, "the run folder"),
        ):
            if kept is not True:
                self.notes.append(f"the recipe's process could not be cut off from {what} on this machine")

    def _take_environment(self, checkpoint: Receipt) -> None:
        opened = self._record.opened(checkpoint)
        where = f"checkpoint {checkpoint.fields['step']}"
        environment = opened["environment"].scalars() if "environment" in opened else {}
        if any(name not in environment for name in CHOSEN):
            raise NotReplayable(f"the environment of {where} is not opened")
        self._environment = {name: environment[name] for name in CHOSEN}
        for name, usual in (("default_dtype", "torch.float32"), ("matmul_precision", "highest")):
            note = f"executed with {name} {self._environment[name]}, as the run's environment says"
            if self._environment[name] != usual and note not in self.notes:
                self.notes.append(note)
        local = local_environment()
        compared = {*local, *VARIABLES, ACCELERATOR}
        other = sorted(name for name in compared if environment.get(name) != local.get(name))
        self._same_machine = not other
        if other:
            note = f"{', '.join(other)} differ from what the run says of its machine"
            self.notes += [note] * (note not in self.notes)

    def _restored(self, checkpoint: Receipt) -> dict[str, State]:
        self._take_environment(checkpoint)
        opened = self._record.opened(checkpoint)
        where = f"checkpoint {checkpoint.fields['step']}"
        for field in STATE:
            if field not in opened:
                raise NotReplayable(f"{field} of {where} is not opened")
        states = {
            field: {entry.name: self._object(entry, where) for entry in opened[field].entries}
            for field in STATE
        }
        self._limit = ROOM + 4 * sum(
            sum(entry.size for entry in opened[field].entries if entry.kind == "dense") for field in STATE
        )
        return states

    def _object(self, entry: Entry, where: str) -> torch.Tensor | None:
        if entry.kind == "sharded":
            raise NotReplayable(f"{entry.name} of {where} is in blocks; only whole tensors are replayed")
        if entry.kind != "dense":
            return None
        try:
            content = self._record.object(entry)
        except CounterfoilError:
            content = None
        if content is None:
            raise NotReplayable(f"{entry.name} of {where} is missing or is not what was signed")
        return wire.from_bytes(entry.dtype, entry.shape, content)

    def _exchange(self, message: bytes | None, seconds: float) -> tuple[dict[str, Any], dict[str, State]]:
        try:
            if message is not None:
                self._pipe.send(message, seconds)
            return self._pipe.receive(self._limit, seconds)
        except TimeoutError:
            reason = f"the recipe gave no answer within {seconds:g} s"
        except (EOFError, OSError):
            self._errors.seek(0)
            lines = self._errors.read(1 << 16).decode(errors="replace").strip().splitlines()
            reason = (
                f"the recipe's process ended: {lines[-1][:200]!a}" if lines else "the recipe's process ended"
            )
        except CounterfoilError as error:
            reason = f"the recipe's process answered nonsense: {error}"
        raise NotReplayable(reason, fatal=True)

    def _compare(self, receipt: Receipt, opened: dict[str, Opened], computed: dict[str, State]) -> None:
        number, compared = receipt.fields["step"], set()
        # A checkpoint at the end of a run may stand behind a scheduler's step; its state does not.
        of_step = OWN if any(receipt.fields.get("contribution", b"")) else COMPARED
        for field in of_step if receipt.kind == "step" else STATE:
            if not any(receipt.fields.get(field, b"")):
                continue
            if field not in opened:
                raise NotReplayable(f"{field} of step {number} is not opened")
            if any(entry.kind == "sharded" for entry in opened[field].entries):
                raise NotReplayable(f"{field} of step {number} is in blocks; only whole tensors are replayed")
            try:
                recorded, actual = self._both(field, opened[field], computed)
            except CounterfoilError as error:
                raise NotReplayable(f"the recipe's process answered nonsense: {error}", fatal=True) from None
            compared.add(field)
            difference = recorded.first_difference(actual)
            if difference is None:
                continue
            tensor, expected, found = difference
            name = self.lane + (field if receipt.kind == "step" else f"checkpoint {field}")
            shown = _shown(tensor, opened[field], expected, computed.get(field, {}), found)
            excused = not self._same_machine and field != "hyperparameters"
            raise Differs(Mismatch(number, name, tensor, *shown), excused=excused)
        if receipt.kind == "step" and not compared & {"gradients", "parameters", "contribution"}:
            raise NotReplayable("neither gradients nor parameters are recorded")

    def _both(self, field: str, opened: Opened, computed: dict[str, State]) -> tuple[Commitment, Commitment]:
        """What was recorded and what was computed; of metrics, those that the recipe computes."""
        ours = computed.get(field, {})
        if field != "metrics":
            return opened.commitment, commit_tensors(ours)
        theirs = _tensors(opened, field)
        other = sorted(theirs.keys() - ours.keys())
        note = f"the recipe does not compute the metrics {', '.join(other)}"
        self.notes += [note] * bool(other and note not in self.notes)
        both = theirs.keys() & ours.keys()
        return tuple(commit_tensors({name: state[name] for name in both}) for state in (theirs, ours))  # type: ignore[return-value]


def _tensors(opened: Opened | None, what: str) -> State:
    if opened is None or opened.values is None:
        raise NotReplayable(f"{what} is not kept")
    state: State = {}
    for entry in opened.entries:
        dense = entry.kind == "dense"
        state[entry.name] = (
            wire.from_bytes(entry.dtype, entry.shape, opened.values[entry.name]) if dense else None
        )
    return state


def _shown(
    tensor: str, opened: Opened, expected: Entry | None, computed: State, found: Entry | None
) -> tuple[str, str]:
    """What was recorded and what was computed: numbers where both are at hand, else the tensors' roots."""
    recorded = opened.scalars().get(tensor) if opened.values is not None else None
    value = computed.get(tensor)
    if recorded is not None and isinstance(value, torch.Tensor) and value.numel() == 1:
        return str(recorded), str(value.item())
    roots = [
        f"0x{entry.root.hex()}" if entry is not None and entry.kind == "dense" else "no tensor"
        for entry in (expected, found)
    ]
    return roots[0], roots[1]
