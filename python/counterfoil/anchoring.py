"""Anchoring while a run is recorded: when, and what happens if it fails."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, Protocol

from counterfoil._native import Key
from counterfoil.errors import CounterfoilError

_TICK = 0.5


class AnyChain(Protocol):
    """What anchoring asks of a chain."""

    def anchor(self, run: Any, key: Key | None = None) -> object:
        """Records a run's tree head."""


class Anchoring:
    """A thread that calls `anchor` when something is new and enough time or steps have passed.

    A failure is a warning: whoever trains goes on, and the next time tries again.
    """

    def __init__(
        self, anchor: Callable[[], object], step: Callable[[], int], seconds: float, steps: int | None
    ) -> None:
        """Begins; `step` tells the last recorded step."""
        self._anchor, self._step = anchor, step
        self._seconds, self._steps = seconds, steps
        self._began, self._tried, self._anchored = time.monotonic(), 0, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="counterfoil-anchoring", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._over.wait(_TICK):
            # The run may be closed meanwhile; whoever closes it anchors it.
            attempt(self._anchor_if_due, self._over.is_set)

    def _anchor_if_due(self) -> None:
        step, now = self._step(), time.monotonic()
        is_late = now >= self._began + self._seconds
        is_long = self._steps is not None and step >= self._tried + self._steps
        if step > self._anchored and (is_late or is_long):
            self._began, self._tried = now, step
            self._anchor()
            self._anchored = step

    def stop(self) -> None:
        """Begins nothing new."""
        self._over.set()

    def join(self) -> None:
        """Waits for what was begun."""
        self._thread.join()


def attempt(anchor: Callable[[], object], is_expected: Callable[[], bool] = bool) -> None:
    """Anchors, or warns unless that was to be expected."""
    try:
        anchor()
    except CounterfoilError as error:
        if not is_expected():
            warnings.warn(f"the run was not anchored: {error}", stacklevel=3)
