"""Where the time of a recorded training goes, and how often its parts are committed for a stated price."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from counterfoil.errors import InvalidInput

TRAINING = "training"
STATE = ("parameters", "optimizer", "buffers")
STEERED = {
    "gradients": ("gradients", "contribution"),
    "state": STATE,
    "checkpoint": ("checkpoint", "environment"),
}
"""What a budget makes rarer, in the order in which it spends: names of time, and the cadences that cause it."""

FIRST, EVERY, AHEAD = 3, 20, 200
"""Steps before the first review and between reviews, and over which what was overspent is saved again."""
RAREST = 1_000_000


class Spent:
    """A clock whose time always counts for exactly one part: training, or what a recorder does."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {TRAINING: 0.0}
        self.times: dict[str, int] = {}
        self.steps = 0
        self._part, self._since = TRAINING, time.perf_counter()
        self._thread = threading.get_ident()

    def _switch(self, part: str) -> str:
        now = time.perf_counter()
        self.seconds[self._part] = self.seconds.get(self._part, 0.0) + now - self._since
        before, self._part, self._since = self._part, part, now
        return before

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Counts what happens inside for a part; a part inside another one has its own time."""
        if threading.get_ident() != self._thread:
            yield  # what another thread does takes no time of the training's
            return
        before = self._switch(part)
        try:
            yield
        finally:
            self._switch(before)

    def did(self, part: str) -> None:
        """Counts that a part's work was done once more."""
        self.times[part] = self.times.get(part, 0) + 1

    def summary(self, cadence: Mapping[str, int]) -> Summary:
        """What was spent until now."""
        self._switch(self._part)
        recording = {part: spent for part, spent in self.seconds.items() if part != TRAINING}
        return Summary(self.steps, self.seconds[TRAINING], recording, dict(cadence))


@dataclass(frozen=True)
class Summary:
    """Where the time of a recorded run went, from `attach` until now or until it was closed.

    Attributes:
        steps: Recorded steps.
        training: Seconds that everything but recording took.
        recording: Seconds by what was recorded.
        cadence: Every how many steps each part is committed now; 0 for never.
    """

    steps: int
    training: float
    recording: Mapping[str, float]
    cadence: Mapping[str, int]

    @property
    def overhead(self) -> float:
        """What recording took, as a share of what training took."""
        return sum(self.recording.values()) / self.training if self.training else 0.0

    def __str__(self) -> str:
        """The share, then a line for each part."""
        each = 1000 / max(self.steps, 1)
        lines = [
            f"{self.steps} steps: {self.training:.2f} s of training, "
            f"{sum(self.recording.values()):.2f} s of recording ({self.overhead:.1%})"
        ]
        for part, seconds in sorted(self.recording.items(), key=lambda item: -item[1]):
            lines.append(f"  {part:<12} {seconds:8.2f} s  {seconds * each:8.3f} ms a step")
        return "\n".join(lines)


class Budget:
    """Chooses cadences so that recording takes a share of the training's time, as far as the floor allows.

    What every receipt costs (signing, hyperparameters, randomness, batches) is not steered.
    """

    def __init__(self, share: float, usual: Mapping[str, int], floor: Mapping[str, int]) -> None:
        self._share, self._usual, self._floor = share, dict(usual), dict(floor)
        self._review = FIRST

    def review(self, spent: Spent, cadence: Mapping[str, int]) -> dict[str, int]:
        """The cadences from the next step on: those of now, unless others fit the budget better."""
        if spent.steps < self._review:
            return dict(cadence)
        self._review = spent.steps + EVERY
        training = spent.summary(cadence).training / spent.steps
        recording = sum(seconds for part, seconds in spent.seconds.items() if part != TRAINING)
        room = (self._share * training * (spent.steps + AHEAD) - recording) / AHEAD
        room -= (
            sum(seconds for part, seconds in spent.seconds.items() if part not in (TRAINING, *STEERED))
            / spent.steps
        )
        chosen = dict(cadence)
        for number, (part, names) in enumerate(STEERED.items(), 1):
            times = spent.times.get(part, 0)
            if not times:
                continue
            cost = spent.seconds[part] / times
            # Each part may use most of what is left, and leaves something to those behind it.
            share = room if number == len(STEERED) else 0.6 * room
            wanted = math.ceil(cost / share) if share > 0 else RAREST
            for name in chosen.keys() & names:
                chosen[name] = self._within(name, wanted)
            room -= cost / max(chosen[names[0]], 1)
        return chosen if self._is_worth_it(cadence, chosen) else dict(cadence)

    def _within(self, name: str, wanted: int) -> int:
        usual, floor = self._usual.get(name, 0), self._floor.get(name, 0)
        if usual == 0:
            return 0
        return max(usual, min(wanted, floor or RAREST))

    @staticmethod
    def _is_worth_it(cadence: Mapping[str, int], chosen: Mapping[str, int]) -> bool:
        """A policy receipt for every small change would cost more than it saves."""
        return any(abs(chosen[name] - cadence[name]) * 4 > cadence[name] for name in chosen)


def cadences(
    floors: Mapping[str, int], every: int | Mapping[str, int], checkpoint_every: int, *, contributes: bool
) -> dict[str, int]:
    """Every how many steps each part is committed to, by the run's floor and `attach`'s options.

    Raises:
        InvalidInput: A part is unknown, or a number is out of range; `.where` names it.
    """
    cadence = dict.fromkeys(("gradients", "hyperparameters", "randomness"), 1)
    cadence["contribution"] = int(contributes)
    cadence |= dict.fromkeys(STATE, every if isinstance(every, int) else 50)
    if not isinstance(every, int):
        unknown = sorted(set(every) - set(cadence))
        if unknown:
            known = " ".join(cadence)
            raise InvalidInput(f"every: there is no part {unknown[0]!r}", expected=known, where="every")
        cadence |= every
    cadence |= dict.fromkeys(("environment", "checkpoint"), checkpoint_every)
    for name, number in cadence.items():
        if not isinstance(number, int) or not 0 <= number < 2**32:
            raise InvalidInput(
                f"{name}: every {number} steps", expected="an int from 0 to 2^32 - 1", where=name
            )
    for name, floor in floors.items():
        cadence[name] = min(filter(None, (floor, cadence.get(name))), default=0)
    return cadence
