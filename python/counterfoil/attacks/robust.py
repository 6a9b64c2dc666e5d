"""How aggregators look at contributions that they do not compute again: by norms, and by their neighbours.

Source:
    Sun et al., "Can You Really Backdoor Federated Learning?", 2019 (norms); Blanchard et al., "Machine Learning with
    Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017 (Krum).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from counterfoil.attacks.judging import by_replay
from counterfoil.attacks.workers import CHEAT, State, Together

FACTOR = 2.0
"""How many times the median norm a contribution may have, or what part of it."""


def by_norm(case: Together) -> str | None:
    """Judges each worker's contributions by their norms, beside the median of all; what is odd, or None."""
    for step, vectors in _vectors(case):
        norms = np.linalg.norm(vectors, axis=1)
        usual = float(np.median(norms))
        for worker, norm in enumerate(norms):
            if not usual / FACTOR <= norm <= usual * FACTOR:
                return f"step {step}: worker {worker} has norm {norm:g}, and {usual:g} is usual"
    return None


def by_krum(case: Together) -> str | None:
    """Judges contributions by the distances to their nearest neighbours; whom multi-Krum leaves out, or None.

    One worker of all may be a cheat, so that one is left out at each step; a cheat goes through where that is another.
    """
    for step, vectors in _vectors(case):
        apart = np.square(vectors[:, None] - vectors[None]).sum(axis=2)
        nearest = np.sort(apart, axis=1)[:, 1 : len(vectors) - 2]
        if int(nearest.sum(axis=1).argmax()) == CHEAT:
            return f"step {step}: worker {CHEAT} lies farthest from the others"
    return None


def by_contributions(case: Together) -> str | None:
    """Judges all workers by computing their contributions again, each from its own batch."""
    return by_replay(case.path)


def _vectors(case: Together) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for step, told in enumerate(case.contributions, 1):
        yield step, np.stack([_flat(state) for state in told])


def _flat(state: State) -> NDArray[np.float32]:
    return np.concatenate([state[name].ravel() for name in sorted(state)])
