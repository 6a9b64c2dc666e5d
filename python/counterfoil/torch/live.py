"""Executes a recorded training again in one or two environments and finds where it first differs.

A hunt for nondeterminism: the same states, batches and random numbers go into both, step by step, so that what
comes out differs by the environments alone, or by chance.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

from counterfoil import Record, commit_tensors
from counterfoil.commit import describe
from counterfoil.diff import Comparison, Difference, between, diagnose
from counterfoil.errors import InvalidInput, NotFound
from counterfoil.lookup import environment
from counterfoil.torch.child import CHOSEN
from counterfoil.torch.environments import checked
from counterfoil.torch.execution import COMPARED, Differs, Execution, Lane
from counterfoil.torch.process import Child, NotReplayable
from counterfoil.torch.replay import check_recipe

if TYPE_CHECKING:
    from counterfoil.torch.collect import State


def diff_live(
    path: str | os.PathLike[str],
    *environments: Mapping[str, str | int | bool],
    recipe: str | None = None,
    run_untrusted: bool = False,
    timeout: float = 120.0,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Finds the first difference between a record and its training here, or between two trainings here.

    Each lane is executed from its first checkpoint to its last step, in a confined process for each environment.
    Behind a step that cannot be executed, it goes on from the next checkpoint.

    Args:
        path: A run folder or a bundle, with a recipe.
        environments: One, compared with the record, or two, compared with each other. Names are `threads`,
            `deterministic`, `mkldnn`, `matmul_precision`, `default_dtype` and those of environment variables,
            such as `ATEN_CPU_CAPABILITY`; what is not named is as the run's environment says.
        recipe: The recipe's digest (`0x` and 64 hex digits) that you have read and trust.
        run_untrusted: Runs the recipe without such a pin.
        timeout: Seconds a step may take.
        progress: Called with the steps that are done, and all that are to be done.

    Returns:
        The first difference; its first side is the record, or the first environment.

    Raises:
        InvalidInput: The recipe is missing or not pinned, a setting has no such value, or there are not one or
            two environments.
    """
    if len(environments) not in (1, 2):
        raise InvalidInput("one environment beside the record, or two", where="environments")
    record = Record(path)
    check_recipe(record, recipe, run_untrusted)
    chosen = [checked(each) for each in environments]
    lanes = [Lane(record, *place) for place in sorted(record.lanes, key=lambda place: place[1])]
    total = sum(len(lane.steps) for lane in lanes)
    steps, fields = 0, 0
    gaps: list[str] = []
    for lane in (lane for lane in lanes if lane.steps):
        with contextlib.ExitStack() as stack:
            children = [stack.enter_context(Child(record, variables)) for _, variables in chosen]
            for child in children:
                child.launch()
            sides = [
                Execution(lane, child, timeout, settings, COMPARED)
                for child, (settings, _) in zip(children, chosen, strict=True)
            ]
            for found, compared in stack.enter_context(contextlib.closing(_walk(lane, sides, gaps))):
                steps, fields = steps + 1, fields + compared
                if progress is not None:
                    progress(steps, total)
                if found is not None:
                    found = _diagnosed(found, record, sides, chosen)
                    return Comparison(found, steps, fields, tuple(gaps))
    return Comparison(None, steps, fields, tuple(gaps))


def _walk(lane: Lane, sides: list[Execution], gaps: list[str]) -> Generator[tuple[Difference | None, int]]:
    """Executes a lane's steps on all sides; yields each one's first difference and the number of its fields.

    What cannot be executed or compared is added to `gaps`.
    """
    last = max(lane.steps)
    # Without any checkpoint the first step says what is missing.
    start: int | None = min(lane.starts, default=-1)
    while start is not None:
        number = start
        try:
            with contextlib.ExitStack() as stack:
                walks = [
                    stack.enter_context(contextlib.closing(side.steps(start + 1, last, start=start)))
                    for side in sides
                ]
                for computed in zip(*walks, strict=True):
                    number, states = computed[0][0], [state for _, state in computed]
                    try:
                        found = _compared(sides[0], number, states)
                    except NotReplayable as reason:
                        gaps.append(f"{lane.prefix}step {number}: {reason}")
                        continue
                    yield found, sum(field in states[0] for field in COMPARED)
            return
        except NotReplayable as reason:
            gaps.append(f"{lane.prefix}{reason}")
            behind = (at for at in lane.starts if number < at < last)
            start = None if reason.fatal else min(behind, default=None)


def _compared(side: Execution, number: int, states: list[dict[str, State]]) -> Difference | None:
    """Where a step's executions first differ, in the order in which data flow, or one differs from the record."""
    if len(states) == 1:
        try:
            if not side.compare(number, states[0]):
                raise NotReplayable("neither gradients nor parameters are recorded")
        except Differs as differs:
            return differs.found
        return None
    for field in COMPARED:
        ours, theirs = (
            {name: describe(name, value) for name, value in state[field].items()} for state in states
        )
        difference = commit_tensors(ours).first_difference(commit_tensors(theirs))
        if difference is not None:
            name, entry, _ = difference
            flat = ours[name].data if name in ours else None
            kept = None if flat is None else flat.tobytes()
            lane = side.lane.prefix.removesuffix(": ")
            place: dict[str, Any] = {"lane": lane, "step": number, "kind": "step", "field": field}
            return between(name, (entry, kept), theirs.get(name), diagnosis="", notes=(), **place)
    return None


def _diagnosed(
    found: Difference,
    record: Record,
    sides: list[Execution],
    chosen: list[tuple[dict[str, Any], dict[str, str]]],
) -> Difference:
    """The difference with what the two environments do not share: what was chosen, and what follows from it."""
    try:
        recorded = environment(record)
    except NotFound:
        recorded = {}
    whole = [
        recorded
        | {name: value for name, value in side.child.environment().items() if name not in CHOSEN}
        | settings
        | variables
        for side, (settings, variables) in zip(sides, chosen, strict=True)
    ]
    ours, theirs = whole if len(whole) == 2 else (recorded, whole[0])
    names = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    pairs = {name: (str(ours.get(name, "not set")), str(theirs.get(name, "not set"))) for name in names}
    return dataclasses.replace(found, diagnosis=diagnose(found.field, found.tensor, pairs, {}, True))
