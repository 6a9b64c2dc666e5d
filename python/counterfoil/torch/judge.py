"""Judges a step on a machine whose bits differ, within thresholds that were calibrated before.

What the step computes is compared at the committed state before it. Then the optimiser is executed on the recorded
gradient, and what it makes of that has to be exact but for roundings.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from counterfoil.diff import Difference
from counterfoil.errors import CounterfoilError
from counterfoil.fingerprints import Sketches, distance, fingerprint, own_key, published
from counterfoil.torch.budget import STATE
from counterfoil.torch.execution import Differs, Execution, moved
from counterfoil.torch.process import NotReplayable
from counterfoil.torch.tolerance import (
    COMPUTED,
    LIMIT,
    REFUSAL,
    Calibration,
    apart,
    distances,
    epsilon,
    is_float,
    norm,
    real,
    rounded,
    whole,
)

if TYPE_CHECKING:
    from counterfoil import Receipt, Record
    from counterfoil.torch.collect import State

UPDATED = ("parameters", "optimizer")
ROUNDINGS, ALONG, UPDATE_REFUSAL = 4.0, 1e-6, 10.0
"""Roundings by which each element behind an update may be off, share of itself by which an update may be too long, and
how much more than that is refused."""
SHIFTS = ((1, 1), (-1, 1), (1, -1))
"""Directions in which parameters and moments are moved by a rounding beside the gradient, so that no sum cancels in all."""
ESTIMATED = (0.75, 1.4)
"""Between which shares of a distance its estimate from two fingerprints lies."""
DRAWS = 16
"""How often the state before a step is moved by roundings before a difference is held against the run."""
POOL = "pool"
"""The unit of a fingerprint in which the small tensors are."""


@dataclass(frozen=True)
class Fingerprints:
    """What a run's worker signed of the gradients of its steps.

    Attributes:
        key: Under which; None for each step's own, which shows errors and no lies.
        sketches: By the digests of the steps' receipts.
    """

    key: bytes | None
    sketches: Mapping[bytes, Sketches]

    @classmethod
    def of(cls, record: Record, key: bytes | None) -> Fingerprints:
        """Those that a record has under a key."""
        wanted = key or bytes(32)
        told = published(record)
        return cls(key, {receipt: sketch for (receipt, under), sketch in told.items() if under == wanted})


@dataclass(frozen=True)
class Judged:
    """What came of a step that was not refused.

    Attributes:
        is_exact: All came out bit for bit.
        computed: What was computed, by field.
        hidden: Share of itself by which the recorded update may be too long; 0 where its bits came out, None where it
            was not executed, since a fingerprint alone is known of the gradient.
    """

    is_exact: bool
    computed: dict[str, State]
    hidden: float | None


@dataclass
class _Measured:
    """Distances and what is accepted of each; an estimated one lies between two shares of the true one."""

    found: dict[str, float]
    accepted: dict[str, float]
    estimated: tuple[float, float] = (1.0, 1.0)


def judge(
    execution: Execution, number: int, calibration: Calibration, prints: Fingerprints | None = None
) -> Judged:
    """Executes a step from the state just before it and judges what its receipts say of it.

    Args:
        execution: The lane beside the process.
        number: The step's.
        calibration: The thresholds.
        prints: What stands for gradients that are not stored.

    Raises:
        NotReplayable: Something that is needed is not kept, or nothing can be decided; the reason says which.
        Differs: Something is out of tolerance.
    """
    receipt = execution.lane.steps[number]
    if execution.lane.is_shared(number):
        raise NotReplayable("of a step of several ranks nothing is judged within tolerance")
    execution.start(number)
    recorded = _recorded(execution, receipt, prints)
    computed = execution.once(number)
    _agree(calibration, execution)
    try:
        try:
            execution.compare(number, computed)
        except Differs as differs:
            if differs.found.field == "hyperparameters":
                raise
        else:
            return Judged(True, computed, 0.0)
        measured = _measured(execution, receipt, calibration, computed, recorded, prints)
        undecided: NotReplayable | None = None
        try:
            _hold(execution, number, computed, measured)
        except NotReplayable as reason:
            undecided = reason
            if reason.fatal:
                raise
        # What is undecided of the gradient may still be refused for what was made of it.
        hidden = None if recorded is None else _judge_update(execution, number, recorded)
        if undecided is not None:
            raise undecided
    except Differs:
        _confirm(execution, number)
        raise
    return Judged(False, computed, hidden)


def _recorded(execution: Execution, receipt: Receipt, prints: Fingerprints | None) -> State | None:
    """The stored gradient; None where a fingerprint stands for it."""
    try:
        return execution.stored(receipt, "gradients")
    except NotReplayable:
        if prints is not None and receipt.digest in prints.sketches:
            return None
    raise NotReplayable(
        "its gradient is neither stored (attach(store_gradients=True)) nor fingerprinted under this key"
    )


def _agree(calibration: Calibration, execution: Execution) -> None:
    pairs = (
        ("recorded", execution.machine, calibration.recorded),
        ("executed", execution.here, calibration.local),
    )
    for what, ours, theirs in pairs:
        other = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        if other:
            raise NotReplayable(f"{', '.join(other)} where it was {what} are not those of the calibration")


def _measured(
    execution: Execution,
    receipt: Receipt,
    calibration: Calibration,
    computed: dict[str, State],
    recorded: State | None,
    prints: Fingerprints | None,
) -> _Measured:
    """How far what the receipts say lies from what was computed."""
    number = receipt.fields["step"]
    gradients = computed.get("gradients", {})
    if not all(math.isfinite(norm(value)) for value in gradients.values()):
        raise NotReplayable(f"the gradient of step {number} is not finite on this machine")
    theirs: dict[str, State] = {} if recorded is None else {"gradients": recorded}
    for each in execution.receipts(number):
        for field in ("metrics", "buffers"):
            if any(each.fields.get(field, b"")):
                # Which notes the metrics that the recipe does not compute.
                execution.is_equal(each, field, computed)
                theirs[field] = execution.stored(each, field)
    before, after = (
        execution.stored(each, "parameters") for each in (execution.start(number), _behind(execution, number))
    )
    theirs["update"] = moved(before, after)
    found = distances(computed, theirs)
    accepted = {unit: calibration.accepted(unit) for unit in found}
    for name, update in computed["update"].items():
        # Both sides are rounded when they are stored, and of a small update that may be much.
        value, size = computed["parameters"][name], norm(update) or whole(computed["update"])
        share = epsilon(value) * norm(value) / size if size else 0.0
        accepted[f"update/{name}"] = max(accepted.get(f"update/{name}", 0.0), share)
    measured = _Measured(found, accepted)
    if recorded is None:
        assert prints is not None, "one of the two is known"
        _estimate(measured, execution, receipt, calibration, computed, prints)
    return measured


def _behind(execution: Execution, number: int) -> Receipt:
    """The receipt whose stored parameters are those behind a step."""
    kept = [each for each in execution.lane.ends.get(number, []) if any(each.fields["parameters"])]
    if not kept:
        raise NotReplayable(f"the parameters behind step {number} are not stored")
    return kept[0]


def _estimate(
    measured: _Measured,
    execution: Execution,
    receipt: Receipt,
    calibration: Calibration,
    computed: dict[str, State],
    prints: Fingerprints,
) -> None:
    """Adds what the fingerprints of the gradients tell."""
    number, sketched = receipt.fields["step"], prints.sketches[receipt.digest]
    gradients = {
        name: value for name, value in computed["gradients"].items() if isinstance(value, torch.Tensor)
    }
    try:
        ours = fingerprint(gradients, prints.key or own_key(receipt.digest))
    except CounterfoilError as refused:
        raise NotReplayable(f"no fingerprint of what was computed: {refused}") from None
    try:
        away = distance(ours, sketched)
    except CounterfoilError as refused:
        raise _refused(
            execution, number, computed, "gradients/", "a fingerprint of these tensors", str(refused)
        ) from None
    measured.estimated, size = ESTIMATED, whole(gradients)
    for unit, each in away.items():
        _, _, name = unit.partition("/")
        names = [name] if unit != POOL else [one for one in gradients if f"tensor/{one}" not in ours]
        of = f"gradients/{name}"
        measured.found[of] = 0.0 if each == 0 else each / size if size else math.inf
        wanted = math.hypot(*(calibration.accepted(f"gradients/{one}") for one in names))
        measured.accepted[of] = min(LIMIT, wanted)


def _hold(execution: Execution, number: int, computed: dict[str, State], measured: _Measured) -> None:
    """Holds distances against the thresholds."""
    found, accepted, (low, high) = measured.found, measured.accepted, measured.estimated
    outside = [unit for unit, away in found.items() if away > low * accepted[unit]]
    refused = [
        unit
        for unit in outside
        if found[unit] >= high * REFUSAL * accepted[unit] and _is_rounded(computed, unit)
    ]
    if not outside:
        return
    if refused and not execution.draws_alike and _draws(execution, number, computed):
        raise NotReplayable(
            f"step {number} draws random numbers, and a seed gives others here than where it was recorded"
        )
    # Where a rounding decides on which side of a kink a unit lies, honest machines differ by as much.
    spread: dict[str, float] = {}
    for draw in range(DRAWS) if any(math.isfinite(found[unit]) for unit in refused) else ():
        other = distances(
            computed, execution.once(number, change=functools.partial(rounded, draw=draw, computed=computed))
        )
        for unit in refused:
            of = [
                away
                for each, away in other.items()
                if each == unit or (unit == "gradients/" and each.startswith(unit))
            ]
            spread[unit] = max(spread.get(unit, 0.0), math.hypot(*of))
    # In the order in which data flow, so that a gradient is named before the update that follows from it.
    for unit in sorted(refused, key=lambda unit: (COMPUTED.index(unit.partition("/")[0]), -found[unit])):
        if found[unit] > REFUSAL * spread.get(unit, 0.0):
            expected = f"at most {accepted[unit]:.1e} off, as honest executions are"
            raise _refused(execution, number, computed, unit, expected, f"{found[unit]:.1e} off")
    unit = max(outside, key=lambda unit: found[unit] / (accepted[unit] or 1.0))
    what = f"{'gradients of small tensors' if unit == 'gradients/' else unit} of step {number} lies {found[unit]:.1e} off"
    if unit in spread:
        raise NotReplayable(
            f"{what}, and roundings of the state before it move it by {spread[unit]:.1e}: no machine can decide"
        )
    raise NotReplayable(f"{what}: beyond the {accepted[unit]:.1e} that are accepted, and not surely false")


def _is_rounded(computed: dict[str, State], unit: str) -> bool:
    """Whether a unit is of numbers that are rounded; a count that is off by one accuses nobody."""
    field, _, name = unit.partition("/")
    value = computed.get(field, {}).get(name)
    return not isinstance(value, torch.Tensor) or is_float(value)


def _draws(execution: Execution, number: int, computed: dict[str, State]) -> bool:
    """Whether what a step computes depends on torch's random numbers."""
    other = torch.Generator().manual_seed(1).get_state()

    def reseeded(states: dict[str, State]) -> dict[str, State]:
        return {**states, "randomness": {**states["randomness"], "torch": other}}

    return any(distances(computed, execution.once(number, change=reseeded)).values())


def _confirm(execution: Execution, number: int) -> None:
    """Refuses nothing where a recipe may have kept what no checkpoint holds, such as a scheduler.

    Raises:
        NotReplayable: Executed from the lane's first checkpoint on, it computes something else than built anew.
    """
    if number - 1 == min(execution.lane.starts):
        return
    try:
        kept, anew = execution.keeping(number), execution.once(number)
    except NotReplayable as reason:
        raise NotReplayable(f"what the recipe keeps is not known: {reason}", fatal=reason.fatal) from None
    alike = all(
        not apart(kept.get(field, {}).get(name), anew.get(field, {}).get(name))
        for field in {*kept, *anew}
        for name in {*kept.get(field, {}), *anew.get(field, {})}
    )
    if not alike:
        raise NotReplayable("the recipe keeps what no checkpoint holds, or computes otherwise each time")


def _judge_update(execution: Execution, number: int, recorded: State) -> float:
    """Holds the state behind the step against what the optimiser makes of the recorded gradient; returns what may hide."""
    applied = execution.once(number, recorded)
    hidden = 0.0
    moves: list[dict[str, State]] = []
    for receipt in execution.receipts(number):
        for field in (field for field in UPDATED if any(receipt.fields.get(field, b""))):
            if execution.is_equal(receipt, field, applied):
                continue
            moves = moves or [execution.once(number, *_shifted(recorded, *signs)) for signs in SHIFTS]
            ours, theirs = applied.get(field, {}), execution.stored(_behind(execution, number), field)
            before = execution.stored(execution.start(number), field)
            for name in {*ours, *theirs}:
                moved_here = [each.get(field, {}).get(name) for each in moves]
                off, limit = _off(field, before.get(name), ours.get(name), theirs.get(name), moved_here)
                if off > limit:
                    told = (
                        f"{off:.1e} of what roundings are"
                        if limit == ROUNDINGS
                        else f"{off:.1e} of itself too long"
                    )
                    if off < UPDATE_REFUSAL * limit:
                        where = f"{field}/{name} behind step {number}"
                        raise NotReplayable(f"{where} is {told}: not accepted, and not surely false")
                    expected = f"at most {limit:.1e} of that"
                    raise _refused(execution, number, applied, f"{field}/{name}", expected, told)
                hidden = max(hidden, limit if off and field == "parameters" else 0.0)
    return hidden


def _shifted(
    recorded: State, parameters: int, optimizer: int
) -> tuple[State, Callable[[dict[str, State]], dict[str, State]]]:
    """A gradient and a state before that are off by one rounding of each number, up or down."""

    def shifted(state: State, sign: int) -> State:
        floats = {name: value for name, value in state.items() if is_float(value)}
        return {**state, **{name: value * (1 + sign * epsilon(value)) for name, value in floats.items()}}

    def change(states: dict[str, State]) -> dict[str, State]:
        signs = {"parameters": parameters, "optimizer": optimizer}
        return {**states, **{field: shifted(states[field], sign) for field, sign in signs.items()}}

    return shifted(recorded, 1), change


def _off(field: str, before: Any, ours: Any, theirs: Any, moves: list[Any]) -> tuple[float, float]:
    """By how much what stands behind an update is off, and how much of that is accepted.

    No element may be off by more than a few roundings of what stands before and behind it, and of what it is computed
    from: where that cancels, a rounding is much of what is left. Roundings may be much of a small update as well, but
    do not all point along it: so it must not be too long either, as by another learning rate.
    """
    if not apart(ours, theirs):
        return 0.0, ROUNDINGS
    if not math.isfinite(apart(ours, theirs)) or not is_float(ours):
        return math.inf, ROUNDINGS
    mine, other = real(ours), real(theirs)
    old = real(before) if is_float(before) and before.shape == ours.shape else torch.zeros_like(mine)
    grain = epsilon(ours) * (mine.abs() + old.abs()) + torch.finfo(ours.dtype).tiny
    for each in moves:
        if is_float(each) and each.shape == ours.shape:
            grain = torch.maximum(grain, (real(each) - mine).abs())
    roundings = float(((other - mine).abs() / grain).max())
    if field != "parameters" or roundings > ROUNDINGS:
        return roundings, ROUNDINGS
    update = mine - old
    change = norm(update)
    if change == 0:
        return 0.0, ROUNDINGS
    along = abs(float(((other - mine) * update).sum())) / change**2
    return along, max(ALONG, ROUNDINGS * epsilon(ours) * norm(ours) / change / math.sqrt(ours.numel()))


def begins_alike(execution: Execution, computed: dict[str, State]) -> bool:
    """Whether the state before the first step is the one that the recipe made, but for roundings."""
    for field in STATE:
        recorded = execution.stored(execution.lane.starts[0], field)
        for name in {*recorded, *computed.get(field, {})}:
            ours = computed.get(field, {}).get(name)
            if apart(ours, recorded.get(name)) > ROUNDINGS * epsilon(ours) * norm(ours):
                return False
    return True


def _refused(
    execution: Execution, number: int, computed: dict[str, State], unit: str, expected: str, actual: str
) -> Differs:
    field, _, tensor = unit.partition("/")
    found = Difference(
        lane=execution.lane.prefix.removesuffix(": "),
        step=number,
        kind="step",
        field=field,
        tensor=tensor,
        chunk=None,
        index=None,
        ours=expected,
        theirs=actual,
        ours_root=None,
        theirs_root=None,
        ulps=None,
        differing=None,
        diagnosis="out of tolerance: forged, other code or precision, or a machine unlike those that were calibrated",
        notes=(),
    )
    return Differs(found, computed, None)
