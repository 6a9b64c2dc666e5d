"""What a cheat has in the place of work: states and gradients that cost nothing to make and look like trained ones.

Each is computed from what the cheat knows of others, on numpy arrays of float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def zeros(gradient: Array) -> Array:
    """A gradient of nothing."""
    return np.zeros_like(gradient)


def noise(shape: tuple[int, ...], deviation: float, seed: int) -> Array:
    """Normal noise of a standard deviation."""
    drawn = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return drawn * np.float32(deviation)


def blurred(gradient: Array, share: float, seed: int) -> Array:
    """Another's gradient, each element changed by a share of itself, so that it is no copy."""
    return gradient * (1 + noise(gradient.shape, share, seed))


def shifted(gradients: Sequence[Array], deviations: float) -> Array:
    """The mean of others' gradients, moved by standard deviations of theirs in each coordinate.

    Args:
        gradients: Of the others, of one shape.
        deviations: How many: few enough that it lies among them.

    Source:
        Baruch, Baruch and Goldberg, "A Little Is Enough", NeurIPS 2019.
    """
    others = np.stack(gradients)
    return np.asarray(others.mean(axis=0) - np.float32(deviations) * others.std(axis=0), np.float32)


def interpolate(
    start: Mapping[str, Array], end: Mapping[str, Array], segments: int
) -> Iterator[dict[str, Array]]:
    """States on the line between two, in equal steps: `segments` of them, the last is `end`.

    Args:
        start: Tensors by name.
        end: Others of the same names and shapes.
        segments: How many steps lead from the one to the other.

    Source:
        Zhang et al., "Adversarial Examples for Proof-of-Learning", S&P 2022; Fang et al., "Proof-of-Learning is
        Currently More Broken Than You Think", EuroS&P 2023.
    """
    for at in range(1, segments):
        yield scaled_up(start, end, at / segments)
    yield {name: value.copy() for name, value in end.items()}


def scaled_up(start: Mapping[str, Array], end: Mapping[str, Array], factor: float) -> dict[str, Array]:
    """The state that lies `factor` times as far from `start` as `end` does."""
    return {name: start[name] + (end[name] - start[name]) * np.float32(factor) for name in start}


def gradient_between(
    start: Array, end: Array, learning_rate: float, momentum: float, buffer: Array | None
) -> Array:
    """The gradient with which SGD with this momentum goes from `start` to `end`.

    Args:
        start: A parameter before the step.
        end: The same behind it.
        learning_rate: The step's.
        momentum: The optimiser's; without dampening, decay and Nesterov's rule.
        buffer: The momentum buffer before the step; None at the first.
    """
    applied = (start - end) / np.float32(learning_rate)
    return np.asarray(applied if buffer is None else applied - np.float32(momentum) * buffer, np.float32)
