"""Judges a step on a machine whose bits differ: each distance against what honest executions there differ by.

The gradient, the metrics and the buffers are compared at the committed state before the step, within thresholds that
were calibrated before; the update is the optimiser's own on the recorded gradient, and is exact or a rounding away.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from counterfoil.diff import Difference
from counterfoil.durable import replace
from counterfoil.errors import InvalidInput
from counterfoil.torch.budget import STATE
from counterfoil.torch.execution import Differs, Execution
from counterfoil.torch.process import NotReplayable

if TYPE_CHECKING:
    from counterfoil import Record
    from counterfoil.torch.collect import State

COMPUTED = ("gradients", "metrics", "buffers")
UPDATED = ("parameters", "optimizer")
"""What backward leaves and what the optimiser does."""
MARGIN, REFUSAL, LIMIT = 4.0, 4.0, 0.05
"""How much more than honest executions differ by is accepted, and how much more than that is refused; and the largest
share of a gradient that is ever accepted, since who made the run chose the states at which honest executions differ."""
RESOLUTION = 4.0
"""Roundings that are allowed where honest executions did not differ at all."""
UPDATE, UPDATE_REFUSAL = 1e-6, 10.0
"""Share of an update that is accepted, and how much more than what is accepted is refused."""
DRAWS = 8
"""How often the state before a step is changed by roundings before a difference is held against the run."""


@dataclass(frozen=True)
class Calibration:
    """By how much honest executions of a run's steps differ on a machine, and what that hides.

    Attributes:
        recipe: The recipe's digest.
        spec: SHA-256 of the run's specification, in hexadecimal.
        recorded: What the run says of the machine that computed it.
        local: The machine that was calibrated.
        environments: In what it was varied.
        steps: The executed steps of each lane.
        noise: For each tensor, as `gradients/0.weight`, the largest distance between two honest executions.
        resolution: The distance that is taken for honest where none was seen.
        cheats: For cheats that were tried, how often the accepted distance each of them moved some tensor, at the step
            where it did so least.
    """

    recipe: str
    spec: str
    recorded: Mapping[str, Any]
    local: Mapping[str, Any]
    environments: tuple[str, ...]
    steps: Mapping[str, tuple[int, ...]]
    noise: Mapping[str, float]
    resolution: float
    cheats: Mapping[str, float]

    def accepted(self, unit: str) -> float:
        """The largest distance that is within tolerance."""
        return min(LIMIT, MARGIN * max(self.noise.get(unit, 0.0), self.resolution))

    def refused(self, unit: str) -> float:
        """The distance from which on a step is refused; between the two nothing is decided."""
        return REFUSAL * self.accepted(unit)

    @property
    def digest(self) -> str:
        """SHA-256 of the file, `0x` and 64 hexadecimal digits: publish it before steps are drawn."""
        return f"0x{hashlib.sha256(self._encoded()).hexdigest()}"

    def not_seen(self) -> list[str]:
        """What passes these thresholds, in words."""
        gradients = [self.accepted(unit) for unit in self.noise if unit.startswith("gradients/")]
        largest = max(gradients, default=self.accepted(""))
        return [
            f"changes of a gradient below {largest:.1e} of its norm, at each step and in a chosen direction",
            *(name for name, ratio in sorted(self.cheats.items()) if ratio < REFUSAL),
        ]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file."""
        replace(Path(path), self._encoded())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Reads a file that `save` wrote.

        Raises:
            InvalidInput: It is none.
        """
        try:
            document = json.loads(Path(path).read_bytes())
            steps = {str(lane): tuple(map(int, numbers)) for lane, numbers in document.pop("steps").items()}
            environments = tuple(map(str, document.pop("environments")))
            numbers = [document["resolution"], *document["noise"].values(), *document["cheats"].values()]
            if not all(type(number) is float and number >= 0 for number in numbers):
                raise ValueError("a distance is no number")
            return cls(**document, steps=steps, environments=environments)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as damaged:
            raise InvalidInput(f"{path} is no calibration: {damaged!a:.120}", where=str(path)) from None

    def _encoded(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    def check(self, record: Record) -> None:
        """Refuses thresholds that were measured for another training.

        Raises:
            InvalidInput: The recipe or the specification is another one.
        """
        for name, ours, theirs in (
            ("recipe", self.recipe, record.recipe_digest),
            ("spec", self.spec, specification(record)),
        ):
            if ours != theirs:
                raise InvalidInput(
                    f"the calibration is of another {name}", expected=ours, actual=theirs, where=name
                )


def specification(record: Record) -> str:
    """SHA-256 of a run's specification as canonical JSON."""
    return hashlib.sha256(json.dumps(record.spec, sort_keys=True).encode()).hexdigest()


def distances(ours: Mapping[str, State], theirs: Mapping[str, State]) -> dict[str, float]:
    """How far two executions of a step lie apart, by tensor.

    Args:
        ours: What was computed, by field.
        theirs: What it is compared with; its fields and names are looked at.

    Returns:
        For gradients the distance (L2) as a share of the norm of our whole gradient, so that a tensor whose gradient is
        zero but for roundings counts for little; for metrics and buffers as a share of our tensor's norm. Infinite
        where shapes, dtypes or names differ, or numbers that are not real.
    """
    found = {}
    whole = math.sqrt(sum(_norm(value) ** 2 for value in ours.get("gradients", {}).values()))
    for field in (field for field in COMPUTED if field in theirs):
        mine = ours.get(field, {})
        names = theirs[field] if field == "metrics" else {*mine, *theirs[field]}
        for name in names:
            # What a recipe does not log cannot be compared; that is noted elsewhere.
            if field == "metrics" and name not in mine:
                continue
            apart, size = _apart(mine.get(name), theirs[field].get(name))
            share = whole if field == "gradients" else size
            is_measured = math.isfinite(apart) and math.isfinite(share) and share > 0
            found[f"{field}/{name}"] = 0.0 if apart == 0 else apart / share if is_measured else math.inf
    return found


def _apart(ours: Any, theirs: Any) -> tuple[float, float]:
    """The distance of two tensors, and the norm of the first."""
    if not isinstance(ours, torch.Tensor) or not isinstance(theirs, torch.Tensor):
        return math.inf if isinstance(ours, torch.Tensor) or isinstance(theirs, torch.Tensor) else 0.0, 0.0
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return math.inf, 0.0
    bits = [value.contiguous().view(-1).view(torch.uint8) for value in (ours, theirs)]
    if torch.equal(*bits):
        return 0.0, 0.0
    if not ours.dtype.is_floating_point:
        return math.inf, 0.0
    apart = float(torch.linalg.vector_norm(ours.double() - theirs.double()))
    return apart if math.isfinite(apart) else math.inf, _norm(ours)


def _norm(value: Any) -> float:
    is_real = isinstance(value, torch.Tensor) and value.dtype.is_floating_point
    return float(torch.linalg.vector_norm(value.double())) if is_real else 0.0


def epsilon(value: Any) -> float:
    """The distance from 1 to the next number of a float tensor's dtype; 0 of anything else."""
    is_real = isinstance(value, torch.Tensor) and value.dtype.is_floating_point
    return torch.finfo(value.dtype).eps if is_real else 0.0


def rounded(states: dict[str, State], draw: int) -> dict[str, State]:
    """The states with each parameter moved by a rounding up, down or not at all."""
    generator = torch.Generator().manual_seed(draw)
    moved = {}
    for name, value in states["parameters"].items():
        if isinstance(value, torch.Tensor) and value.dtype.is_floating_point:
            signs = torch.randint(-1, 2, value.shape, generator=generator)
            moved[name] = (value.double() * (1 + signs * torch.finfo(value.dtype).eps)).to(value.dtype)
    return {**states, "parameters": {**states["parameters"], **moved}}


@dataclass(frozen=True)
class Judged:
    """What came of a step that was not refused.

    Attributes:
        is_exact: All came out bit for bit.
        computed: What was computed, by field.
        hidden: Share of its update by which the recorded one may be off; 0 where its bits came out.
    """

    is_exact: bool
    computed: dict[str, State]
    hidden: float


def judge(execution: Execution, number: int, calibration: Calibration) -> Judged:
    """Executes a step from the state just before it and judges what its receipts say of it.

    Raises:
        NotReplayable: Something that is needed is not kept, or nothing can be decided; the reason says which.
        Differs: Something is out of tolerance.
    """
    receipt = execution.lane.steps[number]
    if execution.lane.is_shared(number):
        raise NotReplayable("of a step of several ranks nothing is judged within tolerance")
    execution.start(number)
    try:
        recorded = execution.stored(receipt, "gradients")
    except NotReplayable:
        reason = "its gradient is not stored whole: record with attach(store_gradients=True)"
        raise NotReplayable(reason) from None
    computed = execution.once(number, recorded)
    _agree(calibration, execution)
    is_exact = True
    try:
        execution.compare(number, computed)
    except Differs as differs:
        if differs.found.field == "hyperparameters":
            raise
        is_exact = False
        _judge_computed(execution, number, calibration, computed, recorded)
    return Judged(is_exact, computed, _judge_update(execution, number, computed))


def begins_alike(execution: Execution, computed: dict[str, State]) -> bool:
    """Whether the state before the first step is the one that the recipe made, but for roundings."""
    for field in STATE:
        recorded = execution.stored(execution.lane.starts[0], field)
        for name in {*recorded, *computed.get(field, {})}:
            ours = computed.get(field, {}).get(name)
            apart, size = _apart(ours, recorded.get(name))
            if apart > RESOLUTION * epsilon(ours) * size:
                return False
    return True


def _agree(calibration: Calibration, execution: Execution) -> None:
    pairs = (
        ("recorded", dict(execution.machine), calibration.recorded),
        ("executed", execution.here, calibration.local),
    )
    for what, ours, theirs in pairs:
        other = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        if other:
            raise NotReplayable(f"{', '.join(other)} where it was {what} are not those of the calibration")


def _judge_computed(
    execution: Execution,
    number: int,
    calibration: Calibration,
    computed: dict[str, State],
    recorded: State,
) -> None:
    """Holds gradient, metrics and buffers against the thresholds."""
    theirs = {"gradients": recorded} | {
        field: execution.stored(receipt, field)
        for receipt in execution.receipts(number)
        for field in ("metrics", "buffers")
        if any(receipt.fields.get(field, b""))
    }
    found = distances(computed, theirs)
    outside = {unit: apart for unit, apart in found.items() if apart > calibration.accepted(unit)}
    if not outside:
        return
    field, _, name = (
        unit := max(outside, key=lambda unit: outside[unit] / calibration.accepted(unit))
    ).partition("/")
    if not math.isfinite(_norm(computed.get(field, {}).get(name))):
        raise NotReplayable(f"{unit} of step {number} is not finite on this machine")
    refused = calibration.refused(unit)
    if outside[unit] < refused:
        raise NotReplayable(
            f"{unit} of step {number} lies {outside[unit]:.1e} off: beyond the {calibration.accepted(unit):.1e} "
            f"that are accepted, below the {refused:.1e} that are refused"
        )
    if not execution.draws_alike and _draws(execution, number, computed):
        raise NotReplayable(
            f"step {number} draws random numbers, and those of a seed are others here than where it was recorded"
        )
    # Where a rounding decides on which side of a kink a unit lies, honest machines differ by as much.
    spread = 0.0
    for draw in range(DRAWS) if math.isfinite(outside[unit]) else ():
        moved = execution.once(number, change=functools.partial(rounded, draw=draw))
        spread = max(spread, distances(computed, moved).get(unit, 0.0))
    if outside[unit] <= REFUSAL * spread:
        raise NotReplayable(
            f"{unit} of step {number} lies {outside[unit]:.1e} off, and roundings of the state before it move it by "
            f"{spread:.1e}: no machine can decide"
        )
    raise _refused(
        execution,
        number,
        computed,
        unit,
        f"at most {calibration.accepted(unit):.1e} off, as honest executions are",
        f"{outside[unit]:.1e} off",
    )


def _draws(execution: Execution, number: int, computed: dict[str, State]) -> bool:
    """Whether what a step computes depends on torch's random numbers."""
    other = torch.Generator().manual_seed(1).get_state()

    def reseeded(states: dict[str, State]) -> dict[str, State]:
        return {**states, "randomness": {**states["randomness"], "torch": other}}

    return any(distances(computed, execution.once(number, change=reseeded)).values())


def _judge_update(execution: Execution, number: int, computed: dict[str, State]) -> float:
    """Holds the state behind the step against what the optimiser makes of the recorded gradient; returns what may hide."""
    before = execution.stored(execution.start(number), "parameters")
    compared, hidden = False, 0.0
    for receipt in execution.receipts(number):
        for field in (field for field in UPDATED if any(receipt.fields.get(field, b""))):
            compared |= field == "parameters"
            if execution.is_equal(receipt, field, computed):
                continue
            after = execution.stored(receipt, field)
            for name in {*after, *computed.get(field, {})}:
                ours = computed.get(field, {}).get(name)
                off, limit = _off(field, before.get(name), ours, after.get(name))
                if off > limit:
                    unit, share = f"{field}/{name}", f"{off:.1e} of the update off"
                    if off < UPDATE_REFUSAL * limit:
                        raise NotReplayable(
                            f"{unit} behind step {number} is {share}: beyond the {limit:.1e} that are accepted"
                        )
                    expected = f"at most {limit:.1e} of the update off, as roundings are"
                    raise _refused(execution, number, computed, unit, expected, share)
                hidden = max(hidden, limit if off else 0.0)
    if not compared:
        raise NotReplayable(f"the parameters behind step {number} are not recorded")
    return hidden


def _off(field: str, before: Any, ours: Any, theirs: Any) -> tuple[float, float]:
    """By which share of itself an update is off, and how much of that roundings may be.

    Roundings of what is stored may be much of a small update, but they do not all point along it: where no element is
    off by more than they are, what counts is how far the update is off in its own direction, as by another
    learning rate.
    """
    apart, size = _apart(ours, theirs)
    if apart == 0 or not math.isfinite(apart):
        return apart, UPDATE
    update = ours.double() - before.double() if field == "parameters" else ours.double()
    change, grain = _norm(update), size * epsilon(ours)
    if change == 0 or apart > max(UPDATE * change, grain):
        return apart / change if change else math.inf, UPDATE
    along = float(((theirs.double() - ours.double()) * update).sum()) / change**2
    return abs(along), max(UPDATE, 4 * grain / change / math.sqrt(ours.numel()))


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
