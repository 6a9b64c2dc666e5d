"""Records what a model was fed.

A proxy around the loader, because patching `__iter__` on a loader is ignored by `for`. A batch is
recorded when it is consumed: loader workers run ahead, and what they drew and nobody used is no
part of a step. Randomness is read at the same moment, since `iter(loader)` itself draws from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from counterfoil import commit_tensors
from counterfoil.torch.attach import recorder_of
from counterfoil.torch.collect import randomness

if TYPE_CHECKING:
    from counterfoil import Run

Batch = TypeVar("Batch")


class Batches(Generic[Batch]):
    """An iterable over a loader's batches that records each one as it is consumed."""

    def __init__(self, run: Run, loader: Iterable[Batch]) -> None:
        self._run, self._loader = run, loader

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        recorder = recorder_of(self._run)
        before = commit_tensors(randomness()).root
        for batch in self._loader:
            untouched = not recorder.pending or commit_tensors(randomness()).root == before
            recorder_of(self._run).feed(batch, replayable=untouched)
            yield batch
            before = commit_tensors(randomness()).root if recorder.pending else b""


def batches(run: Run, loader: Iterable[Batch]) -> Batches[Batch]:
    """Records the batches that training consumes and passes them on untouched.

    Args:
        run: An open run with a recorder attached by the time the first batch is drawn.
        loader: Any iterable of tensors, or of nested tuples, lists and mappings of them. Several
            batches consumed before one step are recorded together, as a tuple of batches, also
            one that the loop passed over. A step can be replayed when its batch consists of
            contiguous tensors; lists and named tuples come back to a recipe as tuples.

    Returns:
        An iterable with the loader's length, for `for x, y in run.batches(loader)`.

    Raises:
        RunClosed: While iterating, the run is closed.
        InvalidInput: While iterating, nothing is attached, or a batch holds something that is
            neither a tensor nor a number nor a string; `.where` names it.

    Example:
        >>> for x, y in run.batches(loader):
        ...     step(x, y)
    """
    return Batches(run, loader)
