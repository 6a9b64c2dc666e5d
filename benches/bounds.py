"""What rounding can do to one linear layer's gradient, derived and measured; for benches/tolerance.py."""

from __future__ import annotations

import math
from typing import Any

import torch

BATCHES = (8, 64, 512, 4096)
INPUTS, CLASSES, PART = 64, 10, 8
UNIT = 2.0**-24
"""The unit roundoff of fp32."""


def bounds() -> list[dict[str, Any]]:
    """For sums over batches of n: the error of fp32 beside its bounds.

    X (n, INPUTS) are normal numbers, G (n, CLASSES) gradients of the scores of a softmax. Each element of X^T G is a
    sum of n products: its error is at most gamma_n |X|^T |G|, gamma_n = n u / (1 - n u), in whatever order it is
    summed (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1); with roundings that are
    independent and have mean zero it is of the order of sqrt(n) u |X|^T |G| with high probability (Higham and Mary,
    A new approach to probabilistic rounding error analysis, 2019, where a factor of a few stands before it). The
    gradient of the bias is the same with a column of ones for X.
    """
    draw = torch.Generator().manual_seed(1)
    rows = []
    for count in BATCHES:
        features = torch.randn(count, INPUTS, generator=draw)
        scores = torch.randn(count, CLASSES, generator=draw)
        shown = torch.nn.functional.one_hot(torch.randint(0, CLASSES, (count,), generator=draw), CLASSES)
        gradient = (scores.softmax(1) - shown) / count
        ones = torch.ones(count, 1)
        for name, left, computed in (
            ("X^T G, one product", features, features.T @ gradient),
            ("X^T G, one sample after the other", features, _in_parts(features, gradient, 1)),
            ("X^T G, in eight parts", features, _in_parts(features, gradient, count // PART)),
            ("sum of G", ones, gradient.sum(0, keepdim=True)),
        ):
            rows.append(
                {"n": count, "computed": name, **_compared(left.double(), gradient.double(), computed)}
            )
    return rows


def _in_parts(features: torch.Tensor, gradient: torch.Tensor, size: int) -> torch.Tensor:
    """X^T G, added up over parts of the batch."""
    total = torch.zeros(features.shape[1], gradient.shape[1])
    for feature, each in zip(features.split(size), gradient.split(size), strict=True):
        total += feature.T @ each
    return total


def _compared(features: torch.Tensor, gradient: torch.Tensor, computed: torch.Tensor) -> dict[str, str]:
    count = len(features)
    exact, room = features.T @ gradient, features.abs().T @ gradient.abs()
    error, norm = (computed.double() - exact).abs(), float(exact.norm())
    worst, likely = count * UNIT / (1 - count * UNIT), math.sqrt(count) * UNIT
    found = {
        "error, of the norm": float(error.norm()) / norm,
        "bound by gamma_n, of the norm": worst * float(room.norm()) / norm,
        "sqrt(n) u, of the norm": likely * float(room.norm()) / norm,
        "largest error / bound by gamma_n": float((error / room).max()) / worst,
        "largest error / sqrt(n) u": float((error / room).max()) / likely,
    }
    return {name: f"{value:.1e}" for name, value in found.items()}
