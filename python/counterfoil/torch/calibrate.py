"""Measures by how much honest executions of a run's steps differ here, before anything of it is judged."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import random
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from counterfoil import Record
from counterfoil.errors import NotFound
from counterfoil.torch.environments import checked
from counterfoil.torch.execution import Execution, Lane
from counterfoil.torch.process import Child, NotReplayable
from counterfoil.torch.replay import check_recipe
from counterfoil.torch.tolerance import (
    COARSE,
    Calibration,
    distances,
    epsilon,
    is_coarse,
    rounded,
    specification,
)

if TYPE_CHECKING:
    from counterfoil.torch.collect import State

_ROUNDINGS, _RESOLUTION, _OUTLIER = 4, 4.0, 10.0
"""How often the state before a step is moved by roundings; how many roundings are honest where none were seen; and how far
above the median of all steps the noise of one may lie, since who made the run chose its states."""
_COARSE, _SHORT = "a gradient that was rounded to bfloat16", "one sample of a batch left out"
"""The cheats that are tried."""
_Step = tuple[Lane, int]


def calibrate(
    path: str | os.PathLike[str],
    *,
    steps: int = 16,
    recipe: str | None = None,
    run_untrusted: bool = False,
    environment: Mapping[str, str | int | bool] | None = None,
    timeout: float = 120.0,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Executes some of a run's steps in several environments of this machine and compares the executions.

    With another number of threads, without oneDNN, without vector instructions, and from states that are changed by
    roundings. Nothing that the run says it computed is looked at. Its states and batches are its maker's choice: so the
    steps are drawn at random, and one at which executions differ much more than at the others does not count.

    Args:
        path: A run folder or a bundle, with a recipe and with states that are stored before steps.
        steps: How many are executed, drawn from those behind a stored state.
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
    drawn = random.SystemRandom().sample(range(len(places)), min(steps, len(places)))
    chosen = [places[at] for at in sorted(drawn)]
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
        self._noise: dict[str, dict[_Step, float]] = {}
        self._floors: dict[str, float] = {}
        self._cheats: dict[str, list[dict[str, float]]] = {name: [] for name in (_COARSE, _SHORT)}
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
            noise={unit: self._usual(unit) for unit in self._noise},
            cheats={},
        )
        ratios = {
            name: min(
                (max(apart / found.accepted(unit) for unit, apart in each.items()) for each in tried),
                default=None,
            )
            for name, tried in self._cheats.items()
        }
        return dataclasses.replace(found, cheats=ratios)

    def _usual(self, unit: str) -> float:
        """The largest noise of a unit but for steps that lie far from the others."""
        floor = _RESOLUTION * self._floors.get(unit, 0.0)
        seen = self._noise[unit].values()
        usual = _OUTLIER * max(floor, statistics.median(seen))
        return max(floor, *(noise for noise in (0.0, *seen) if noise <= usual))

    def _execution(self, lane: Lane, child: Child, settings: Mapping[str, Any]) -> Execution:
        return Execution(lane, child, self._timeout, settings)

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
                if base and (machine, here) != (execution.machine, execution.here):
                    raise NotReplayable("it was computed in another environment than those before it")
                for draw in range(_ROUNDINGS):
                    other = execution.once(
                        number, change=functools.partial(rounded, draw=draw, computed=computed)
                    )
                    self._differ((lane, number), computed, other)
                self._try_cheats(execution, number, computed)
            except NotReplayable as reason:
                reasons.append(f"{lane.prefix}step {number}: {reason}")
                if reason.fatal:
                    child.fail()
                continue
            machine, here = execution.machine, execution.here
            base[lane, number] = computed
            self._floors |= _floors(computed)
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
                    other = self._execution(lane, child, settings).once(number)
                    self._differ((lane, number), computed, other)
            except NotReplayable:
                child.end()
                return False
        return True

    def _differ(self, step: _Step, computed: dict[str, State], other: dict[str, State]) -> None:
        for unit, apart in distances(computed, other).items():
            seen = self._noise.setdefault(unit, {})
            seen[step] = max(apart, seen.get(step, 0.0))
        self._done += 1
        self._progress(self._done, self._total)

    def _try_cheats(self, execution: Execution, number: int, computed: dict[str, State]) -> None:
        """Measures what some cheats change."""
        gradients = computed.get("gradients", {})
        found = {_COARSE: _coarse(gradients)}
        try:
            found[_SHORT] = execution.once(number, change=_without_one).get("gradients", {})
        except NotReplayable:
            # The recipe may take no such batch, and be late to say so.
            execution.child.end()
        for name, other in found.items():
            self._cheats[name].append(distances(computed, {"gradients": other}))
        self._done += 1
        self._progress(self._done, self._total)


def _floors(computed: dict[str, State]) -> dict[str, float]:
    """The rounding of each unit's numbers; of what follows from others, such as a loss, at least that of 32 bits."""
    # A bit of half precision turns now and then, and some executions see none turn.
    coarse = _RESOLUTION * COARSE if is_coarse(computed) else 0.0
    single = max(coarse, torch.finfo(torch.float32).eps)
    named = {
        "gradients": computed.get("gradients", {}),
        "update": computed.get("parameters", {}),
        "metrics": computed.get("metrics", {}),
        "buffers": computed.get("buffers", {}),
    }
    return {
        f"{field}/{name}": max(epsilon(value), coarse if field == "gradients" else single)
        for field, state in named.items()
        for name, value in state.items()
    }


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
