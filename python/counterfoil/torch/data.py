"""Records what a model was fed, and which samples of a dataset that were.

A proxy around the loader, because patching `__iter__` on a loader is ignored by `for`. A batch is
recorded when it is consumed: loader workers run ahead, and what they drew and nobody used is no
part of a step. Randomness is read at the same moment, since `iter(loader)` itself draws from it.

A loader that draws from a map-style dataset asks a sampler for indices and gives batches in that
order, so the indices of a batch are the next ones that its sampler gave. Of what else is iterated
over, a sample is known by its content: the row of the batch that it became.
"""

from __future__ import annotations

import copy
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeGuard, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset

from counterfoil import commit_tensors
from counterfoil.errors import InvalidInput
from counterfoil.lookup import CONTENT, INDEX
from counterfoil.torch import collect
from counterfoil.torch.attach import recorder_of
from counterfoil.torch.resume import Epoch

if TYPE_CHECKING:
    from counterfoil import Commitment, Run

Batch = TypeVar("Batch")

MOST_ROWS = 4096
"""Rows of a batch that are told apart by their contents."""

_KEPT = 1_000_000
"""Samples below which the digests of a dataset are kept in the run's journal."""


class Drawn:
    """A sampler that remembers, for each time that it is iterated over, what it gave until that is consumed."""

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        self.latest: deque[Any] = deque()

    def __iter__(self) -> Iterator[Any]:
        self.latest = waiting = deque[Any]()

        def draw() -> Iterator[Any]:
            for drawn in self._sampler:
                waiting.append(drawn)
                yield drawn

        return draw()

    def __len__(self) -> int:
        return len(self._sampler)


_shadows: weakref.WeakKeyDictionary[DataLoader[Any], tuple[DataLoader[Any], Drawn]] = (
    weakref.WeakKeyDictionary()
)


def _watched(loader: Any) -> tuple[Any, Drawn | None]:
    """A loader that gives the same batches, and its sampler; none where batches do not follow one.

    The loader is kept with its copy, whose workers may live for many epochs.
    """
    ordered = isinstance(loader, DataLoader) and getattr(loader, "in_order", True)
    is_plain = ordered and type(loader).__iter__ is DataLoader.__iter__
    if not is_plain or isinstance(loader.dataset, IterableDataset):
        return loader, None
    # A loader refuses to have its sampler assigned, and reads it from here.
    name = "sampler" if loader.batch_sampler is None else "batch_sampler"
    if loader not in _shadows:
        _shadows[loader] = (copy.copy(loader), Drawn(getattr(loader, name)))
    shadow, drawn = _shadows[loader]
    # Anything else may have been assigned since.
    kept = {each: value for each, value in vars(loader).items() if each != "_iterator"}
    vars(shadow).update(kept | {name: drawn})
    return shadow, drawn


def _places(dataset: Any, indices: Sequence[Any], size: int | None) -> np.ndarray[Any, Any] | None:
    """The places in the committed dataset, of `size` samples, of what a loader's dataset has at these indices."""
    while isinstance(dataset, Subset):
        dataset, indices = dataset.dataset, [dataset.indices[index] for index in indices]
    is_known = all(isinstance(index, int | np.integer) for index in indices)
    if not is_known or (size is not None and len(dataset) != size):
        return None
    return np.array(indices, np.int64)


def _generators(loader: Any) -> dict[str, torch.Generator]:
    """Generators of a loader's own, from which it draws besides torch's."""
    batches = getattr(loader, "batch_sampler", None)
    owners = {"loader": loader, "sampler": getattr(loader, "sampler", None), "batches": batches}
    owners["batch sampler"] = getattr(batches, "sampler", None)
    found = {name: getattr(owner, "generator", None) for name, owner in owners.items()}
    return {name: each for name, each in found.items() if isinstance(each, torch.Generator)}


class Batches(Generic[Batch]):
    """An iterable over a loader's batches that records each one as it is consumed."""

    def __init__(self, run: Run, loader: Iterable[Batch]) -> None:
        self._run, self._loader = run, loader

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        recorder = recorder_of(self._run)
        again = recorder.epoch if recorder.epoch is not None and recorder.epoch.after else None
        if again is None:
            recorder.epoch = None  # one that was left in its middle
        recorder.settle(collect.randomness)
        generators = _generators(self._loader)
        if again is not None:
            _rewind(again, generators)
        begin = collect.randomness() | {f"generator/{n}": each.get_state() for n, each in generators.items()}
        epoch = Epoch(begin)
        loader, drawn = _watched(self._loader)
        batches = iter(loader)
        waiting = drawn.latest if drawn is not None else None
        for _ in range(again.consumed if again else 0):
            next(batches, None)
            epoch.consumed += 1
            if waiting:
                waiting.popleft()
        if again is not None and again.after is not None:
            collect.restore_randomness(again.after)
        recorder.epoch = epoch
        for batch in batches:
            recorder = recorder_of(self._run)
            indices = waiting.popleft() if waiting else None
            recorder.feed(batch, partial(self._samples, batch, indices))
            epoch.consumed += 1
            recorder.epoch = epoch
            yield batch
            recorder.consumed()
        recorder.epoch = None

    def _samples(self, batch: Any, indices: Any) -> collect.State:
        """Which samples a batch consists of: their places in the dataset, or their contents."""
        if indices is not None:
            several = indices if isinstance(indices, list | tuple) else [indices]
            places = _places(self._loader.dataset, several, self._run.dataset_size)  # type: ignore[attr-defined]
            if places is not None:
                return {INDEX: places}
        return contents(self._run, batch)


def contents(run: Run, batch: Any) -> collect.State:
    """Which samples a batch consists of, by their contents, if the run or its floor asks for it."""
    if run.dataset_size is None and not run.spec.get("policy", {}).get("samples"):
        return {}
    leaves = dict(collect.flatten(batch))
    sizes = {len(leaf) if isinstance(leaf, torch.Tensor) and leaf.dim() else 0 for leaf in leaves.values()}
    rows = sizes.pop() if len(sizes) == 1 else 0
    # Of more rows, which no step of a dataset of samples has, the batch is one sample.
    rows = rows if rows <= MOST_ROWS else 0
    each = [{name: leaf[row] for name, leaf in leaves.items()} for row in range(rows)] or [leaves]
    return {CONTENT: _digests(each)}


def _rewind(epoch: Epoch, generators: dict[str, torch.Generator]) -> None:
    """Puts all generators where they stood when the epoch began."""
    for name, generator in generators.items():
        state = epoch.begin.get(f"generator/{name}")
        if state is None:
            text = f"the checkpoint knows no generator of the {name}: draw from the loader that the run had before"
            raise InvalidInput(text, where=name)
        generator.set_state(state)
    collect.restore_randomness(epoch.begin)


def _digests(samples: Iterable[collect.State]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    roots = b"".join(commit_tensors(sample).root for sample in samples)
    return np.frombuffer(roots, np.uint8).reshape(-1, 32)


def sample_digest(sample: Any) -> bytes:
    """What names a sample by its content: the root over its tensors, 32 bytes.

    Args:
        sample: Nested tuples, lists and mappings of tensors, arrays, numbers and strings, as a dataset
            gives it.

    Raises:
        InvalidInput: It holds something else, such as an image that is no tensor yet; `.where` names it.
    """
    return bytes(_digests([_sample(sample)]))


def _sample(sample: Any) -> collect.State:
    return {
        name: torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf
        for name, leaf in collect.flatten(sample)
    }


def _is_map_style(dataset: Any) -> TypeGuard[Sequence[Any]]:
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


def commit_dataset(dataset: Iterable[Any]) -> Commitment:
    """Commits to the samples of a dataset, for `Run.create(dataset=)`.

    Each sample is named by its content, so that equal samples are known to be equal; every one is read
    once. A dataset that gives something else each time, as augmentation does, has to be committed before it.

    Args:
        dataset: A map-style or iterable dataset, such as torch's or Hugging Face's, a list or an array.

    Returns:
        The commitment. Up to a million samples its digests lie in the run's journal, where
        `counterfoil.uses` reads them.

    Raises:
        InvalidInput: There is no sample, or one of them has no content that can be hashed; `.where` names it.

    Example:
        >>> commit_dataset([(torch.zeros(3), 1), (torch.ones(3), 0)]).entries[0].shape
        [2, 32]

    Source:
        docs/format.md, section 14.
    """
    # A map-style dataset need not end by itself.
    samples = map(dataset.__getitem__, range(len(dataset))) if _is_map_style(dataset) else iter(dataset)
    digests = _digests(_sample(sample) for sample in samples)
    if not len(digests):
        raise InvalidInput("the dataset has no sample", where="dataset")
    return commit_tensors({CONTENT: digests}, keep=len(digests) <= _KEPT)


def batches(run: Run, loader: Iterable[Batch]) -> Batches[Batch]:
    """Records the batches that training consumes, and which samples they are, and passes them on untouched.

    Args:
        run: An open run with a recorder attached by the time the first batch is drawn.
        loader: Any iterable of tensors, or of nested tuples, lists and mappings of them. Several
            batches consumed before one step are recorded together, as a tuple of batches, also
            one that the loop passed over. A step can be replayed when its batch consists of
            contiguous tensors, flags and None; lists and named tuples come back to a recipe as tuples, a
            flag as a tensor. A restored run
            draws the batches of its unfinished epoch again and goes on behind them.

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
