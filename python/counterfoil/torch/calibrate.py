"""Measures by how much honest executions of a run's steps differ here, before anything of it is judged."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from counterfoil import Record
from counterfoil.errors import NotFound
from counterfoil.torch.environments import checked
from counterfoil.torch.execution import Execution, Lane
from counterfoil.torch.process import Child, NotReplayable
from counterfoil.torch.replay import check_recipe
from counterfoil.torch.tolerance import RESOLUTION, Calibration, distances, epsilon, rounded, specification

if TYPE_CHECKING:
    from counterfoil.torch.collect import State

_ROUNDINGS = 2
"""How often the state before a step is changed by roundings."""
_Step = tuple[Lane, int]


def calibrate(
    path: str | os.PathLike[str],
    *,
    steps: int = 8,
    recipe: str | None = None,
    run_untrusted: bool = False,
    environment: Mapping[str, str | int | bool] | None = None,
    timeout: float = 120.0,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Executes some of a run's steps in several environments of this machine and compares the executions.

    With another number of threads, without oneDNN, without vector instructions, and from states that are changed by
    roundings. Nothing that the run says it computed is looked at: whoever made the run chooses no threshold.

    Args:
        path: A run folder or a bundle, with a recipe and with states that are stored before steps.
        steps: How many are executed, evenly over those behind a stored state.
        recipe: The recipe's digest (`0x` and 64 hex digits) that you have read and trust.
        run_untrusted: Runs the recipe without such a pin.
        environment: What the steps are executed with where the run says otherwise, as in `replay`.
        timeout: Seconds a step may take.
        progress: Called with the executions that are done, and all that are to be done.

    Returns:
        The thresholds, for this run's training on this machine alone.

    Raises:
        InvalidInput: The recipe is missing or not pinned, or a setting has no such value.
        NotFound: No step follows a stored state, or none could be executed.
    """
    record = Record(path)
    check_recipe(record, recipe, run_untrusted)
    lanes = [Lane(record, *place) for place in sorted(record.lanes, key=lambda place: place[1])]
    places = [
        (lane, number)
        for lane in lanes
        for number in sorted(lane.steps)
        if number - 1 in lane.starts and not lane.is_shared(number)
    ]
    if not places:
        raise NotFound("no step follows a stored state: record with checkpoint_every=1", where=str(path))
    count = min(steps, len(places))
    chosen = [places[at * len(places) // count] for at in range(count)]
    measured = _Measured(record, chosen, dict(environment or {}), timeout, progress or (lambda *_: None))
    return measured.calibration()


class _Measured:
    """What executions of chosen steps differ by."""

    def __init__(
        self,
        record: Record,
        chosen: list[_Step],
        environment: dict[str, Any],
        timeout: float,
        progress: Callable[[int, int], None],
    ) -> None:
        self._record, self._chosen, self._environment = record, chosen, environment
        self._timeout, self._progress = timeout, progress
        self._noise: dict[str, float] = {}
        self._epsilon = 0.0
        self._cheats: dict[str, list[dict[str, float]]] = {}
        self._done = self._total = 0

    def calibration(self) -> Calibration:
        """Executes everything."""
        settings, variables = checked(self._environment)
        with Child(self._record, variables) as child:
            base, machine, here = self._base(child, settings)
            variations = list(_variations(here))
            self._total = len(base) * (2 + _ROUNDINGS + len(variations))
            tried = [each for each in variations if self._compare(base, each, child, variables)]
        steps: dict[str, tuple[int, ...]] = {}
        for lane, number in base:
            steps[lane.prefix] = (*steps.get(lane.prefix, ()), number)
        told = tuple(",".join(f"{name}={value}" for name, value in each.items()) for each in tried)
        found = Calibration(
            recipe=str(self._record.recipe_digest),
            spec=specification(self._record),
            recorded=machine,
            local=here,
            environments=(*told, "roundings"),
            steps={lane.removesuffix(": "): numbers for lane, numbers in steps.items()},
            noise=self._noise,
            resolution=RESOLUTION * self._epsilon,
            cheats={},
        )
        ratios = {
            name: min(max(apart / found.accepted(unit) for unit, apart in each.items()) for each in tried)
            for name, tried in self._cheats.items()
        }
        return Calibration(**{**found.__dict__, "cheats": ratios})

    def _execution(self, lane: Lane, child: Child, settings: Mapping[str, Any]) -> Execution:
        return Execution(lane, child, self._timeout, settings, ("gradients",))

    def _base(
        self, child: Child, settings: Mapping[str, Any]
    ) -> tuple[dict[_Step, dict[str, State]], dict[str, Any], dict[str, Any]]:
        """What each step computes in the chosen environment, and what that is."""
        base: dict[_Step, dict[str, State]] = {}
        machine: dict[str, Any] = {}
        here: dict[str, Any] = {}
        reasons: list[str] = []
        self._total = len(self._chosen) * (2 + _ROUNDINGS)
        for lane, number in self._chosen:
            execution = self._execution(lane, child, settings)
            try:
                computed = execution.once(number)
                if base and (machine, here) != (dict(execution.machine), execution.here):
                    raise NotReplayable("it was computed in another environment than those before it")
                for draw in range(_ROUNDINGS):
                    moved = execution.once(number, change=functools.partial(rounded, draw=draw))
                    self._differ(computed, moved)
                self._try_cheats(execution, number, computed)
            except NotReplayable as reason:
                reasons.append(f"{lane.prefix}step {number}: {reason}")
                if reason.fatal:
                    child.fail()
                continue
            machine, here = dict(execution.machine), execution.here
            base[lane, number] = computed
            self._epsilon = max([self._epsilon, *map(epsilon, computed.get("gradients", {}).values())])
        if not base:
            raise NotFound(f"no step could be executed: {reasons[0]}", where=str(self._record.path))
        return base, machine, here

    def _compare(
        self,
        base: Mapping[_Step, dict[str, State]],
        variation: Mapping[str, Any],
        child: Child,
        variables: Mapping[str, str],
    ) -> bool:
        """Executes the steps in another environment, in a process of its own where that needs one; whether all were."""
        settings, others = checked({**self._environment, **variation})
        with contextlib.ExitStack() as stack:
            if others != variables:
                child = stack.enter_context(Child(self._record, others))
            try:
                for (lane, number), computed in base.items():
                    self._differ(computed, self._execution(lane, child, settings).once(number))
            except NotReplayable:
                child.end()
                return False
        return True

    def _differ(self, computed: dict[str, State], other: dict[str, State]) -> None:
        for unit, apart in distances(computed, other).items():
            self._noise[unit] = max(apart, self._noise.get(unit, 0.0))
        self._done += 1
        self._progress(self._done, self._total)

    def _try_cheats(self, execution: Execution, number: int, computed: dict[str, State]) -> None:
        """Measures what some cheats change."""
        found = {
            "a gradient that was rounded to bfloat16": {"gradients": _coarse(computed.get("gradients", {}))}
        }
        with contextlib.suppress(NotReplayable):
            found["one sample of a batch left out"] = execution.once(number, change=_without_one)
        for name, other in found.items():
            apart = {unit: each for unit, each in distances(computed, other).items() if "gradients/" in unit}
            self._cheats.setdefault(name, []).append(apart)
        self._done += 1
        self._progress(self._done, self._total)


def _variations(here: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Other environments of this machine that change bits, as far as it has them."""
    yield {"threads": 1 if here["threads"] > 1 else 2}
    if here["mkldnn"]:
        yield {"mkldnn": False}
    if here["cpu_capability"] != "DEFAULT":
        yield {"ATEN_CPU_CAPABILITY": "default"}


def _coarse(state: State) -> State:
    floats = {
        name: value for name, value in state.items() if torch.is_tensor(value) and value.is_floating_point()
    }
    return {**state, **{name: value.bfloat16().to(value.dtype) for name, value in floats.items()}}


def _without_one(states: dict[str, State]) -> dict[str, State]:
    """The batch without its last sample, where its tensors have one first dimension.

    Raises:
        NotReplayable: They have not.
    """
    batch = {name: value for name, value in states["batch"].items() if isinstance(value, torch.Tensor)}
    sizes = {tuple(value.shape[:1]) for value in batch.values()}
    if len(sizes) != 1 or min(next(iter(sizes)), default=0) < 2:
        raise NotReplayable("the batch has no samples to leave out")
    return {**states, "batch": {**states["batch"], **{name: value[:-1] for name, value in batch.items()}}}
