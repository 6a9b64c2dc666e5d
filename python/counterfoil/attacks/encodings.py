"""Tensors that are offered for others that were committed to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from counterfoil import commit_tensors

Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Offer:
    """The state that was committed to, and the versions of it that somebody offers, by what is different in each."""

    committed: Tensors
    versions: dict[str, Tensors]


def by_commitment(case: Offer) -> str | None:
    """Takes any version that has the digest which was committed to; else says what all of them differ in."""
    expected = commit_tensors(case.committed).digest()
    refused = [
        name for name, version in case.versions.items() if commit_tensors(version).digest() != expected
    ]
    return f"another digest of {', '.join(refused)}" if len(refused) == len(case.versions) else None


def another_layout(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The same values, big-endian, column by column, and with a gap between them."""
    spread = np.zeros((values.shape[1], 2 * values.shape[0]), ">f4")
    spread[:, ::2] = values.T
    return spread[:, ::2].T
