"""Executes recorded steps in a confined child and compares what comes out with what was signed.

The recipe is the prover's code, so it never judges: its process is given the state before a step, its
randomness and its batch, and hands back what it computed. This side commits to that and compares every
field that the step's receipt opens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from counterfoil import Record, commit_tensors
from counterfoil.diff import Difference, between, diagnose
from counterfoil.errors import CounterfoilError
from counterfoil.lookup import lineage
from counterfoil.torch import wire
from counterfoil.torch.attach import NOT_REPLAYABLE, SKIPPED
from counterfoil.torch.budget import STATE
from counterfoil.torch.child import CHOSEN
from counterfoil.torch.collect import ACCELERATOR, RANDOM, VARIABLES, State
from counterfoil.torch.process import ROOM, Child, NotReplayable

if TYPE_CHECKING:
    from counterfoil import Commitment, Entry, Opened, Receipt

COMPARED = ("hyperparameters", "gradients", "metrics", "parameters", "optimizer", "buffers")
OWN = ("contribution",)
"""What is compared of a step, and of one that several ranks made: what one of them computed alone."""
ELSEWHERE, UNCONFIRMED = "elsewhere", "unconfirmed"
"""Why a difference is not held against a run: another machine computed it, or a recipe may have kept something."""
LONGEST = 256
"""Characters of a variable's value that a process is started with."""


class Differs(Exception):
    """What was computed is not what was recorded.

    Attributes:
        found: Where, the record's side first.
        computed: All that was computed at the step.
        excuse: `ELSEWHERE` where another kind of machine may be the cause, `UNCONFIRMED` where a recipe may have kept
            what no checkpoint holds; else None.
    """

    def __init__(self, found: Difference, computed: dict[str, State], excuse: str | None) -> None:
        super().__init__(found)
        self.found, self.computed, self.excuse = found, computed, excuse


class Lane:
    """The steps of a recorded lane that lead to where it stands, and the states that are stored between them."""

    def __init__(self, record: Record, worker: str, number: int) -> None:
        self.record = record
        self.prefix = f"{worker} lane {number}: "
        self.steps: dict[int, Receipt] = {}
        self.starts: dict[int, Receipt] = {}
        self.ends: dict[int, list[Receipt]] = {}
        self.restarts: set[int] = set()
        resumed = False
        for receipt in lineage(record.receipts(worker, number)):
            step = receipt.fields.get("step", 0)
            if receipt.kind == "resume":
                resumed = True
            elif receipt.kind == "step":
                resumed = False
                self.steps[step] = receipt
            elif receipt.kind == "checkpoint" and any(receipt.fields["parameters"]):
                self.starts[step] = receipt
                self.ends.setdefault(step, []).append(receipt)
                # Training may go on in another process, with other threads.
                self.restarts |= {step} if resumed else set()

    def is_shared(self, step: int) -> bool:
        """Whether several ranks made a step, by its receipt."""
        return any(self.steps[step].fields["contribution"])

    def is_whole(self, step: int) -> bool:
        """Whether a step's receipt says all that there is to compare: then a checkpoint behind it adds nothing."""
        receipt = self.steps.get(step)
        if receipt is None or self.is_shared(step):
            return False
        return step not in self.ends or all(any(receipt.fields[field]) for field in STATE)

    def start(self, step: int) -> int:
        """The last step before this one whose state is stored; -1 without one."""
        return max((at for at in self.starts if at < step), default=-1)


class Execution:
    """A recorded lane beside the child that executes its recipe.

    Args:
        lane: The recorded lane.
        child: The process, which may serve others in between.
        timeout: Seconds a step may take.
        settings: What the process is told instead of what the run's environment says, by names of `CHOSEN`.
        wanted: What is computed besides the fields that the receipts speak of.
        unlike: Whether something is known to be other here than where the run was recorded.
    """

    def __init__(
        self,
        lane: Lane,
        child: Child,
        timeout: float,
        settings: Mapping[str, Any] = MappingProxyType({}),
        wanted: Sequence[str] = (),
        *,
        unlike: bool = False,
    ) -> None:
        self.lane, self.child = lane, child
        self.notes: list[str] = []
        self._record, self._timeout = lane.record, timeout
        self._settings, self._wanted = settings, set(wanted)
        self._unlike = unlike
        self.machine: dict[str, Any] = {}
        self._environment: State = {}
        self._same_machine = True
        self.draws_alike = True
        self._limit = ROOM
        # The last step whose parameters were restored, or compared and equal.
        self._agreed = 0

    def confirm(self, differs: Differs) -> dict[str, State]:
        """Executes up to a step that came out differently once more, before the run is accused.

        A recipe may keep what no checkpoint holds, such as a scheduler, or what steps of another lane left: the
        lane is executed from its first checkpoint on, in a process that served no other one.

        Returns:
            What the child computed at this step, by field, when that is what was recorded.

        Raises:
            Differs: It differs again, or nothing else could be tried.
        """
        first = min(self.lane.starts)
        if self.child.begun == [(self, first)]:
            raise differs
        self.child.end()
        step = differs.found.step
        try:
            # Of a step of several ranks none before it is executed to its end.
            if self.lane.is_shared(step) and self.lane.start(step) != first:
                raise NotReplayable("what the recipe keeps is not known")
            return self.reach(step, start=first)
        except NotReplayable as reason:
            if reason.fatal:
                self.child.fail()
            raise Differs(differs.found, differs.computed, UNCONFIRMED) from None

    def reach(self, step: int, *, start: int | None = None) -> dict[str, State]:
        """Executes and compares up to one step.

        Returns:
            What the child computed at this step, by field.

        Raises:
            NotReplayable: Something on the way is not kept, or the child gave no usable answer.
            Differs: A field of this step, or of one on the way, came out differently.
        """
        computed: dict[str, State] = {}
        with contextlib.closing(self.steps(step, step, start=start)) as steps:
            for number, computed in steps:
                self.compare(number, computed)
        return computed

    def begin(self) -> None:
        """Has the recipe make its initial state, and compares it with the first one that is stored.

        Raises:
            NotReplayable: It is not stored, or the child gave no usable answer.
            Differs: It is another one.
        """
        checkpoint = self.lane.starts.get(0)
        if checkpoint is None:
            raise NotReplayable("the state before the first step is not stored")
        self._restored(checkpoint)
        self.child.stands = None
        self.child.begun.append((self, -1))
        header = self._environment | {
            "step": 0,
            "spec": self._record.spec,
            "contribution": False,
            "wanted": STATE,
        }
        self.child.send(wire.encode(header, {}), self._timeout)
        computed = self.child.receive(self._limit, self._timeout)
        self._compare(checkpoint, self._record.opened(checkpoint), computed)

    def once(
        self,
        number: int,
        recorded: State | None = None,
        change: Callable[[dict[str, State]], dict[str, State]] = dict,
    ) -> dict[str, State]:
        """Executes one step from the checkpoint just before it, with a recipe that is built anew.

        Args:
            number: The step's.
            recorded: A gradient that the optimiser applies in place of the computed one.
            change: What is done to the state before the step, its randomness and its batch.

        Returns:
            What the child computed, by field, by how much it moved the parameters, as `update`, and the coarsest
            precision that it computed in, as `precision`.

        Raises:
            NotReplayable: The state before it is not stored, or the child gave no usable answer.
        """
        return self._from_state(number, recorded, change, keep=False)

    def keeping(self, number: int) -> dict[str, State]:
        """Executes one step as `once` does, with a recipe that executed all steps before it in a new process."""
        self.child.end()
        first = min(self.lane.starts)
        with contextlib.closing(self.steps(first + 1, number - 1, start=first)) as steps:
            for _ in steps:
                pass
        return self._from_state(number, None, dict, keep=True)

    def _from_state(
        self,
        number: int,
        recorded: State | None,
        change: Callable[[dict[str, State]], dict[str, State]],
        *,
        keep: bool,
    ) -> dict[str, State]:
        states = self._restored(self.start(number))
        self.child.stands = None
        self.child.begun.append((self, number - 1))
        before: State = {}

        def changed(whole: dict[str, State]) -> dict[str, State]:
            result = change(whole)
            before.update(result["parameters"])
            return result

        self._request(
            number,
            states,
            changed,
            keep=keep,
            watch=True,
            exchange=recorded is not None,
            also=("gradients", "parameters"),
        )
        computed = self.child.receive(self._limit, self._timeout)
        if recorded is not None:
            # Only now: a recipe that knew the recorded gradient before could hand it back.
            self.child.send(wire.encode({}, {"gradients": recorded}), self._timeout)
            computed = self.child.receive(self._limit, self._timeout)
        return computed | {"update": moved(before, computed.get("parameters", {}))}

    def steps(
        self, first: int, last: int, *, start: int | None = None
    ) -> Generator[tuple[int, dict[str, State]]]:
        """Executes up to `last`, from the checkpoint nearest to `first` or from where the child stands behind it.

        Yields:
            Each step's number and what the child computed, while it executes the next one.

        Raises:
            NotReplayable: Something on the way is not kept, or the child gave no usable answer.
        """
        start = self.lane.start(first) if start is None else start
        if start < 0:
            raise NotReplayable("no checkpoint lies before it")
        states: dict[str, State] = {}
        at = self.child.stands[1] if self.child.stands and self.child.stands[0] is self else -1
        if not start <= at < first:
            states, at = self._restored(self.lane.starts[start]), start
            self._agreed = at
            self.child.begun.append((self, start))
        self.child.stands = None
        self._request(at + 1, states)
        for number in range(at + 1, last + 1):
            computed = self.child.receive(self._limit, self._timeout)
            failed: NotReplayable | None = None
            # Where the next step begins with a stored state, its environment must not judge this one.
            restores = number in self.lane.restarts or self.lane.is_shared(number)
            is_ahead = number < last and not restores
            if is_ahead:
                try:
                    self._request(number + 1, {})
                except NotReplayable as reason:
                    failed = reason
            elif number == last:
                self.child.stands = (self, number)
            try:
                yield number, computed
            except GeneratorExit:
                self.child.stands = None
                if is_ahead and failed is None:
                    self._pass_over()
                raise
            if failed is not None:
                raise failed
            if number < last and restores:
                self._request(number + 1, {})

    def _pass_over(self) -> None:
        """Takes the answer to a request that nobody needs any more."""
        try:
            self.child.receive(self._limit, self._timeout)
        except NotReplayable:
            self.child.end()

    def _request(
        self,
        number: int,
        states: Mapping[str, State],
        change: Callable[[dict[str, State]], dict[str, State]] = dict,
        *,
        exchange: bool = False,
        keep: bool = False,
        watch: bool = False,
        also: Sequence[str] = (),
    ) -> None:
        before = self.lane.starts.get(number - 1)
        # The state that was reached is not the run's where other ranks had a part in it.
        shared = number - 1 in self.lane.steps and self.lane.is_shared(number - 1)
        if shared and before is None:
            raise NotReplayable(
                f"no checkpoint stands between steps {number - 1} and {number} of several ranks"
            )
        # Behind a resume it is, or verification had refuted it; a new process does not have it.
        is_restart = before is not None and number - 1 in self.lane.restarts
        if not states and before is not None and (shared or (is_restart and self._take_environment(before))):
            states = self._restored(before)
            self.child.begun.append((self, number - 1))
        if number not in self.lane.steps:
            raise NotReplayable(f"step {number} is not shown")
        receipt = self.lane.steps[number]
        if receipt.fields["flags"] & (SKIPPED | NOT_REPLAYABLE):
            raise NotReplayable(f"step {number} is flagged as skipped or not replayable")
        opened = self._record.opened(receipt)
        inputs = {
            field: _tensors(opened.get(field), f"{field} of step {number}")
            for field in ("batch", "randomness")
        }
        # By what is recorded, not by what is asked for: a recipe does not learn which step is judged.
        wanted = {field for field in (*COMPARED, *OWN) if any(receipt.fields.get(field, b""))}
        wanted |= self._wanted | {*also} | (set(STATE) if number in self.lane.ends else set())
        shared = self.lane.is_shared(number)
        header = {
            "step": number,
            "spec": self._record.spec,
            "contribution": shared,
            "wanted": sorted(wanted),
            "exchange": exchange,
            "keep": keep,
            "watch": watch,
        }
        self.child.send(wire.encode(self._environment | header, change({**states, **inputs})), self._timeout)

    def compare(self, number: int, computed: dict[str, State]) -> bool:
        """Compares what the child computed with the receipts of a step and of the checkpoints behind it.

        Returns:
            Whether they speak of what the step computed; of a step that is recorded sparsely they may not.

        Raises:
            NotReplayable: It cannot be compared.
            Differs: A field came out differently.
        """
        receipt = self.lane.steps[number]
        compared = self._compare(receipt, self._record.opened(receipt), computed)
        if not self.lane.is_shared(number):
            for checkpoint in self.lane.ends.get(number, []):
                compared |= self._compare(checkpoint, self._record.opened(checkpoint), computed)
        return bool(compared & {"gradients", "parameters", "contribution"})

    def _take_environment(self, checkpoint: Receipt) -> bool:
        """Computes from here on as the run did from this checkpoint; returns whether in a process without a state."""
        opened = self._record.opened(checkpoint)
        where = f"checkpoint {checkpoint.fields['step']}"
        environment = opened["environment"].scalars() if "environment" in opened else {}
        if any(name not in environment for name in CHOSEN):
            raise NotReplayable(f"the environment of {where} is not opened")
        self._environment = {name: environment[name] for name in CHOSEN} | dict(self._settings)
        for name, usual in (("default_dtype", "torch.float32"), ("matmul_precision", "highest")):
            note = f"executed with {name} {self._environment[name]}, as the run's environment says"
            if self._environment[name] != usual and note not in self.notes:
                self.notes.append(note)
        texts = {name: str(environment[name]) for name in VARIABLES if name in environment}
        usable = {name: text for name, text in texts.items() if "\0" not in text and len(text) <= LONGEST}
        is_new = self.child.choose(usable)
        local = self.child.environment()
        compared = {*local, *VARIABLES, ACCELERATOR}
        # The child leaves out oneDNN where the run did, and without a GPU cuBLAS computes nothing.
        compared -= {"mkldnn"} if environment["mkldnn"] is False else set()
        compared -= {"CUBLAS_WORKSPACE_CONFIG"} if ACCELERATOR not in environment else set()
        # Runs of an earlier version do not say which random numbers they drew.
        compared -= {RANDOM} if RANDOM not in environment else set()
        self.draws_alike = environment.get(RANDOM) == local[RANDOM] and ACCELERATOR not in environment
        other = sorted(name for name in compared if environment.get(name) != local.get(name))
        other += sorted(name for name, value in self._settings.items() if environment[name] != value)
        self.machine = {name: environment.get(name) for name in sorted(compared)}
        self._same_machine = not other and not self._unlike
        if other:
            note = f"{', '.join(other)} differ from what the run says of its machine"
            self.notes += [note] * (note not in self.notes)
        return is_new

    def _restored(self, checkpoint: Receipt) -> dict[str, State]:
        self._take_environment(checkpoint)
        states = {field: self.stored(checkpoint, field) for field in STATE}
        self._limit = ROOM + 4 * sum(
            value.nbytes for state in states.values() for value in state.values() if value is not None
        )
        return states

    def start(self, number: int) -> Receipt:
        """The checkpoint just before a step.

        Raises:
            NotReplayable: There is none.
        """
        checkpoint = self.lane.starts.get(number - 1)
        if checkpoint is None:
            raise NotReplayable("no state is stored just before it")
        return checkpoint

    def receipts(self, number: int) -> list[Receipt]:
        """The receipt of a step, and those of the checkpoints behind it."""
        return [self.lane.steps[number], *self.lane.ends.get(number, [])]

    def stored(self, receipt: Receipt, field: str) -> State:
        """The tensors of a field whose bytes are kept, by value or in the store.

        Raises:
            NotReplayable: Some are not.
        """
        opened, where = self._record.opened(receipt).get(field), f"{receipt.kind} {receipt.fields['step']}"
        if opened is None:
            raise NotReplayable(f"{field} of {where} is not opened")
        if opened.values is not None:
            return _tensors(opened, f"{field} of {where}")
        return {entry.name: self._object(entry, where) for entry in opened.entries}

    def is_equal(self, receipt: Receipt, field: str, computed: dict[str, State]) -> bool:
        """Whether the child computed the bits that a receipt speaks of."""
        opened = self._record.opened(receipt).get(field)
        if opened is None:
            raise NotReplayable(f"{field} of {receipt.kind} {receipt.fields['step']} is not opened")
        try:
            recorded, actual = self._both(field, opened, computed)
        except CounterfoilError as error:
            raise NotReplayable(f"the recipe's process answered nonsense: {error}", fatal=True) from None
        return recorded.first_difference(actual) is None

    @property
    def here(self) -> dict[str, Any]:
        """What the child computes with since a state was restored."""
        return {**self.child.environment(), **self._environment}

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

    def _compare(self, receipt: Receipt, opened: dict[str, Opened], computed: dict[str, State]) -> set[str]:
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
            tensor, expected, _ = difference
            kept = (opened[field].values or {}).get(tensor)
            if kept is None and expected is not None and expected.kind == "dense":
                with contextlib.suppress(CounterfoilError):
                    kept = self._record.object(expected)
            # The state before and the batch are the recorded ones; an update is computed from more.
            alike = field not in STATE or {"gradients", "hyperparameters"} <= compared
            found = between(
                tensor,
                (expected, kept),
                computed.get(field, {}).get(tensor),
                lane=self.lane.prefix.removesuffix(": "),
                step=number,
                kind=receipt.kind,
                field=field,
                diagnosis=diagnose(field, tensor, {}, {}, alike, begins=number == 0),
                notes=(
                    f"the parameters were last compared at step {self._agreed}: what is false lies behind it",
                )
                * (self._agreed < number - 1),
            )
            is_same = self._same_machine or field == "hyperparameters"
            raise Differs(found, computed, None if is_same else ELSEWHERE)
        if "parameters" in compared:
            self._agreed = number
        return compared

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


def moved(before: State, after: State) -> State:
    """By how much the float tensors of one state differ from those of another, in 64 bits."""
    return {
        name: value.double() - before[name].double()
        for name, value in after.items()
        if isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and isinstance(before.get(name), torch.Tensor)
        and before[name].shape == value.shape
    }


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
