"""Anchoring while a run is recorded: when, and what happens if it fails."""

from __future__ import annotations

import threading
import time
import warnings
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

from counterfoil._native import Key
from counterfoil.errors import CounterfoilError

if TYPE_CHECKING:
    from counterfoil.run import Run

_TICK = 0.5


class AnyChain(Protocol):
    """What anchoring asks of a chain."""

    def anchor(self, run: Any, key: Key | None = None) -> object:
        """Records a run's tree head."""


class Anchoring:
    """A thread that anchors a run when something is new and enough time or steps have passed.

    A failure is a warning: whoever trains goes on, and the next time tries again. A run that is
    dropped without being closed is anchored no more.
    """

    def __init__(self, run: Run, chain: AnyChain, key: Key | None, seconds: float, steps: int | None) -> None:
        """Begins."""
        self._run, self._chain, self._key = weakref.ref(run), chain, key
        # Closed, as far as the chain goes: its head is signed before.
        self._lane = SimpleNamespace(
            path=run.path, key=run.key, worker=run.worker, lane=run.lane, closed=True
        )
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
        run = self._run()
        if run is None:
            self.stop()
            return
        # What waits to be recorded is left to whoever trains.
        step, now = run._ledger.step, time.monotonic()
        is_late = now >= self._began + self._seconds
        is_long = self._steps is not None and step >= self._tried + self._steps
        if step > self._anchored and (is_late or is_long):
            self._began, self._tried = now, step
            run._ledger.tree_head()
            # Waiting for the chain keeps no run that everybody else has dropped.
            del run
            self._chain.anchor(self._lane, self._key)
            self._anchored = step

    def anchor_closed(self) -> None:
        """Anchors all of the run, for whoever closed it."""
        self._chain.anchor(self._run(), self._key)

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
