"""Bundles: what an owner shows of a run, in one file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from counterfoil._native import Key, Record
from counterfoil.errors import InvalidInput


def export(
    run: str | os.PathLike[str] | Record,
    path: str | os.PathLike[str],
    *,
    key: Key | None = None,
    steps: Iterable[int] | None = None,
    tensors: Mapping[str, int | None] | Iterable[str] | None = None,
) -> None:
    """Writes a bundle: one file that anybody can verify without this folder, a key or a network.

    Args:
        run: A run folder, or a bundle to show less of.
        path: The bundle, `x.counterfoil` by custom; a file that is there is replaced.
        key: Signs the bundle, so that a later change shows; by default the device key.
        steps: Steps whose receipts and checkpoints are shown; by default all. Of the others the
            bundle has only what proves that they are part of the run.
        tensors: Tensors that are opened, as `"parameters/0.weight"`, and fields that are opened as a whole,
            as `"samples"`; by default everything that the run opens, and with none nothing. Opening one
            tensor discloses no other. With a number, only that chunk of 1,024 bytes is shown of a tensor that
            is stored.

    Raises:
        NotFound: There is no run.
        CorruptJournal: It cannot be read, or opens no such tensor.
    """
    record = run if isinstance(run, Record) else Record(run)
    chosen = None if steps is None else set(steps)
    if chosen is not None and not all(0 <= step < 1 << 64 for step in chosen):
        raise InvalidInput("steps are numbers from 1 on", where="steps")
    if tensors is not None:
        tensors = dict(tensors) if isinstance(tensors, Mapping) else dict.fromkeys(tensors)
    record.export(path, key or Key.device(), chosen, tensors)
