"""By how much honest executions of a step differ on a machine, tensor by tensor, and what such thresholds hide."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from counterfoil.durable import replace
from counterfoil.errors import InvalidInput
from counterfoil.torch.wire import flat_enough

if TYPE_CHECKING:
    from counterfoil import Record
    from counterfoil.torch.collect import State

COMPUTED = ("gradients", "metrics", "buffers", "update")
"""What is measured: what backward leaves, and by how much the optimiser then moves the parameters."""
MARGIN, REFUSAL, LIMIT = 4.0, 4.0, 0.05
"""How much more than honest executions differ by is accepted, and how much more than that is refused; and the largest
share that is accepted of anything but an update, since who made the run chose the states that were calibrated."""

HALF, COARSE = 2.0**-10, 2.0**-16
"""The rounding of half precision; and by which share parameters are moved where a step computes in that or coarser."""


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
        noise: For each unit, such as `gradients/0.weight`, the largest distance between two honest executions.
        cheats: For cheats that were tried, how often the accepted distance each of them moved some tensor of the
            gradient, at the step where it did so least; None for one that could not be tried.
    """

    recipe: str
    spec: str
    recorded: Mapping[str, Any]
    local: Mapping[str, Any]
    environments: tuple[str, ...]
    steps: Mapping[str, tuple[int, ...]]
    noise: Mapping[str, float]
    cheats: Mapping[str, float | None]

    def accepted(self, unit: str) -> float:
        """The largest distance that is within tolerance; of a unit that was not calibrated, that of its field."""
        field, _, _ = unit.partition("/")
        alike = [noise for other, noise in self.noise.items() if other.startswith(f"{field}/")]
        wanted = MARGIN * self.noise.get(unit, max(alike, default=0.0))
        return wanted if field == "update" else min(LIMIT, wanted)

    @property
    def digest(self) -> str:
        """SHA-256 of what `save` writes, `0x` and 64 hexadecimal digits: publish it before steps are drawn."""
        return f"0x{hashlib.sha256(self._encoded()).hexdigest()}"

    def not_seen(self) -> list[str]:
        """What passes these thresholds, in words."""
        accepted = {unit: self.accepted(unit) for unit in self.noise}
        free = [unit.partition("/")[2] for unit, share in accepted.items() if share > LIMIT]
        largest: dict[str, float] = {}
        for unit, share in accepted.items():
            if share <= LIMIT:
                field, _, _ = unit.partition("/")
                largest[field] = max(share, largest.get(field, 0.0))
        told = ", ".join(f"{field} {share:.1e}" for field, share in sorted(largest.items()))
        more = f" and {len(free) - 3} more" if len(free) > 3 else ""
        return [
            f"what moves a tensor by less than these shares, at each step and in a chosen direction: {told}",
            *([f"any update of {', '.join(sorted(free)[:3])}{more}"] if free else []),
            *(f"{name} (not tried)" for name, ratio in sorted(self.cheats.items()) if ratio is None),
            *(name for name, ratio in sorted(self.cheats.items()) if ratio is not None and ratio < REFUSAL),
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
            document = json.loads(flat_enough(Path(path).read_bytes()))
            steps = {str(lane): tuple(map(int, numbers)) for lane, numbers in document.pop("steps").items()}
            environments = tuple(map(str, document.pop("environments")))
            numbers = [
                *document["noise"].values(),
                *(each for each in document["cheats"].values() if each is not None),
            ]
            if not all(type(number) is float and number >= 0 for number in numbers):
                raise ValueError("a distance is no number")
            if not all(type(document[name]) is dict for name in ("recorded", "local")):
                raise ValueError("a machine is no object")
            if not all(type(document[name]) is str for name in ("recipe", "spec")):
                raise ValueError("a digest is no text")
            return cls(**document, steps=steps, environments=environments)
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as damaged:
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
    """How far two executions of a step lie apart, by field and tensor.

    Args:
        ours: What was computed, by field.
        theirs: What it is compared with; its fields are looked at.

    Returns:
        For gradients the distance (L2) as a share of the norm of our whole gradient, so that a tensor whose gradient is
        zero but for roundings counts for little; for others as a share of the tensor's norm, and of the
        whole update where ours is zero. Infinite where shapes, dtypes or names differ, or numbers are not real.
    """
    found = {}
    for field in (field for field in COMPUTED if field in theirs):
        mine = ours.get(field, {})
        all_of_it = whole(mine)
        for name in theirs[field].keys() & mine.keys() if field == "metrics" else {*mine, *theirs[field]}:
            one, other = mine.get(name), theirs[field].get(name)
            away = apart(one, other)
            size = (
                all_of_it
                if field == "gradients"
                else norm(one) or (all_of_it if field == "update" else norm(other))
            )
            is_measured = math.isfinite(away) and math.isfinite(size) and size > 0
            found[f"{field}/{name}"] = 0.0 if away == 0 else away / size if is_measured else math.inf
    return found


def apart(ours: Any, theirs: Any) -> float:
    """The distance (L2) of two tensors; infinite where they are not alike or a number is not finite on one side alone."""
    if not isinstance(ours, torch.Tensor) or not isinstance(theirs, torch.Tensor):
        return math.inf if isinstance(ours, torch.Tensor) or isinstance(theirs, torch.Tensor) else 0.0
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return math.inf
    bits = [value.contiguous().view(-1).view(torch.uint8) for value in (ours, theirs)]
    if torch.equal(*bits):
        return 0.0
    away = float(torch.linalg.vector_norm(real(ours) - real(theirs)))
    if not math.isfinite(away):
        return math.inf
    # Below the smallest number that is not subnormal, machines flush to zero or not.
    smallest = torch.finfo(ours.dtype).tiny if is_float(ours) else 0.0
    return 0.0 if away <= smallest * math.sqrt(ours.numel()) else away


def norm(value: Any) -> float:
    """The L2 norm of a tensor; 0 of anything else."""
    return float(torch.linalg.vector_norm(real(value))) if isinstance(value, torch.Tensor) else 0.0


def whole(state: State) -> float:
    """The norm of all tensors together."""
    return math.hypot(*map(norm, state.values()))


def is_float(value: Any) -> bool:
    """Whether a tensor holds real or complex numbers, which are rounded."""
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())


def epsilon(value: Any) -> float:
    """The distance from 1 to the next number of a float tensor's dtype; 0 of anything else."""
    return torch.finfo(value.dtype).eps if is_float(value) else 0.0


def real(value: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor in 64 bits, complex ones as pairs."""
    return torch.view_as_real(value).double() if value.is_complex() else value.double()


def is_coarse(computed: Mapping[str, State]) -> bool:
    """Whether a step computed in half precision or less."""
    return float(computed.get("precision", {}).get("epsilon", 0.0)) >= HALF


def rounded(states: dict[str, State], draw: int, computed: Mapping[str, State]) -> dict[str, State]:
    """The states with each parameter moved up, down or not at all, by a rounding of the precision of a computed step.

    A rounding of 32 bits turns hardly any of 16 bits: where a step computed in such, parameters move by 2^-16 of
    themselves, with which distances come out as those of other machines do (measured, BENCHMARKS.md).
    """
    generator = torch.Generator().manual_seed(draw)
    moved = {}
    for name, value in states["parameters"].items():
        if isinstance(value, torch.Tensor) and value.dtype.is_floating_point:
            signs = torch.randint(-1, 2, value.shape, generator=generator)
            grain = max(epsilon(value), COARSE if is_coarse(computed) else 0.0)
            moved[name] = (value.double() * (1 + signs * grain)).to(value.dtype)
    return {**states, "parameters": {**states["parameters"], **moved}}
