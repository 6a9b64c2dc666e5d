"""Executes a recorded training again in one or two environments and finds where it first differs.

A hunt for nondeterminism: the same states, batches and random numbers go into both, step by step, so that what
comes out differs by the environments alone, or by chance.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from counterfoil import Record, commit_tensors
from counterfoil.commit import describe
from counterfoil.diff import Comparison, Difference, between, diagnose
from counterfoil.errors import InvalidInput
from counterfoil.torch.child import CHOSEN
from counterfoil.torch.execution import COMPARED, Child, Differs, Execution, Lane, NotReplayable
from counterfoil.torch.replay import check_recipe

if TYPE_CHECKING:
    from counterfoil.torch.collect import State

_KINDS = {"threads": int, "deterministic": bool, "matmul_precision": str, "default_dtype": str}


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

    Args:
        path: A run folder or a bundle, with a recipe.
        environments: One, compared with the record, or two, compared with each other. Names are `threads`,
            `deterministic`, `matmul_precision`, `default_dtype` and those of environment variables, such as
            `ATEN_CPU_CAPABILITY`; what is not named is as the run's environment says.
        recipe: The recipe's digest (`0x` and 64 hex digits) that you have read and trust.
        run_untrusted: Runs the recipe without such a pin.
        timeout: Seconds a step may take.
        progress: Called with the steps that are done, and all that are to be done.

    Returns:
        The first difference; its first side is the record, or the first environment.

    Raises:
        InvalidInput: The recipe is missing or not pinned, a setting has another type, or there are not one or two
            environments.
    """
    if len(environments) not in (1, 2):
        raise InvalidInput("one environment beside the record, or two", where="environments")
    record = Record(path)
    check_recipe(record, recipe, run_untrusted)
    chosen = [_checked(each) for each in environments]
    lanes = [Lane(record, *place) for place in sorted(record.lanes, key=lambda place: place[1])]
    total = sum(len(lane.steps) for lane in lanes)
    steps, fields = 0, 0
    gaps: list[str] = []
    for lane in (lane for lane in lanes if lane.steps):
        with contextlib.ExitStack() as stack:
            sides = [
                Execution(lane, stack.enter_context(Child(record, variables)), timeout, settings, COMPARED)
                for settings, variables in chosen
            ]
            walks = [
                stack.enter_context(contextlib.closing(side.steps(1, max(lane.steps)))) for side in sides
            ]
            try:
                for computed in zip(*walks, strict=True):
                    number, states = computed[0][0], [state for _, state in computed]
                    found = _compared(sides[0], number, states)
                    steps, fields = steps + 1, fields + sum(field in states[0] for field in COMPARED)
                    if progress is not None:
                        progress(steps, total)
                    if found is not None:
                        return Comparison(_diagnosed(found, environments), steps, fields, tuple(gaps))
            except NotReplayable as reason:
                gaps.append(f"{lane.prefix}{reason}")
    return Comparison(None, steps, fields, tuple(gaps))


def _checked(environment: Mapping[str, str | int | bool]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the process is told, and its environment variables."""
    settings = {name: value for name, value in environment.items() if name in CHOSEN}
    for name, value in settings.items():
        if type(value) is not _KINDS[name]:
            raise InvalidInput(f"{name} is a {_KINDS[name].__name__}", actual=repr(value), where=name)
    return settings, {name: str(value) for name, value in environment.items() if name not in CHOSEN}


def _compared(side: Execution, number: int, states: list[dict[str, State]]) -> Difference | None:
    """Where a step's executions first differ, in the order in which data flow, or one differs from the record."""
    if len(states) == 1:
        try:
            side.compare(number, states[0])
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


def _diagnosed(found: Difference, environments: tuple[Mapping[str, Any], ...]) -> Difference:
    ours, theirs = environments if len(environments) == 2 else ({}, environments[0])
    names = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    usual = "as recorded"
    pairs = {name: (str(ours.get(name, usual)), str(theirs.get(name, usual))) for name in names}
    return dataclasses.replace(found, diagnosis=diagnose(found.field, found.tensor, pairs, {}, True))
