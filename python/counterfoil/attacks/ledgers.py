"""The runs that attacks on evidence need: a few steps of numbers, and machines that hold keys."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from counterfoil import Chain, Run, _native, commit_tensors
from counterfoil.testing.resign import resign
from counterfoil.testing.tamper import RECEIPT, STEP, places_of, read_frames, write_frames

STEPS = 4


class PublicChain(Chain):
    """A development chain that counts as one which is not in its prover's hands; nothing else is different."""

    def confirm(self, record: Mapping[str, Any]) -> tuple[str, bool, bool, int] | None:
        """As `Chain.confirm`, of a chain whose times count."""
        found = super().confirm(record)
        return None if found is None else (found[0], found[1], False, found[3])


@dataclass(frozen=True)
class Dated:
    """A run folder, and the chain that its verifier chose."""

    path: Path
    chain: PublicChain


def record(path: Path, steps: int = STEPS, *, scale: float = 1.0, **options: Any) -> Path:
    """Records so many steps and closes the run; `options` as of `Run.create`. Returns the folder."""
    with Run.create(path, **options) as run:
        go_on(run, steps, scale)
    return path


def go_on(run: Run, steps: int = 1, scale: float = 1.0) -> None:
    """Records so many steps more; another `scale` means other data, and so another gradient."""
    for step in range(run.step + 1, run.step + 1 + steps):
        batch = scale * np.arange(6, dtype=np.float32)
        fields = {"batch": {"x": batch}, "gradients": {"w": step * batch}}
        kept = {name: commit_tensors(tensors, keep=True) for name, tensors in fields.items()}
        run.record_step(step, kept)


def splice(source: Path, target: Path) -> None:
    """Puts the step receipts of one journal in the place of those of another one, which has as many."""
    theirs, frames = read_frames(source), read_frames(target)
    for here, there in zip(places_of(frames, STEP), places_of(theirs, STEP), strict=True):
        frames[here] = theirs[there]
    write_frames(target, frames)


def journal(path: Path, lane: int = 0) -> Path:
    """The journal of the only worker that has this lane."""
    (found,) = path.glob(f"workers/*/{lane}/journal")
    return found


@contextmanager
def machine(home: Path) -> Iterator[None]:
    """Inside, keys lie in this folder: who has a copy of it can sign as whoever it belongs to."""
    before = os.environ.get("COUNTERFOIL_HOME")
    os.environ["COUNTERFOIL_HOME"] = str(home)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COUNTERFOIL_HOME"]
        else:
            os.environ["COUNTERFOIL_HOME"] = before


def device_secret() -> bytes:
    """The device key of the machine, which its owner can always read."""
    return bytes.fromhex((Path(_native.key_folder()) / "device.key").read_text())


def two_histories(folder: Path) -> tuple[Path, Path, PublicChain]:
    """One key writes one run twice: its machine is copied between two steps, and both copies go on.

    Returns:
        The history that was anchored, the other one, and the chain.
    """
    one, other = folder / "one", folder / "other"
    with machine(folder / "home"):
        with Run.create(one) as run:
            go_on(run, 2)
            run.flush()
            shutil.copytree(one, other)
            shutil.copytree(folder / "home", folder / "copy")
            go_on(run, 2)
        chain = PublicChain.dev(folder / "chain")
        chain.anchor(one)
    with machine(folder / "copy"), Run.open(other) as run:
        go_on(run, 2, scale=2.0)
    return one, other, chain


def backdate(path: Path, secret: bytes, hours: int = 24) -> None:
    """Signs a run anew, with every time that its receipts tell set back."""

    def earlier(told: dict[str, Any]) -> None:
        told["time"] = str(int(told["time"]) - hours * 3_600_000)

    resign(path, secret, earlier)


def headless(folder: Path) -> Path:
    """A run as it lies on the disk while it is recorded: no tree head covers its signatures yet."""
    path = folder / "copy"
    with Run.create(folder / "run") as run:
        go_on(run, STEPS)
        run.flush()
        shutil.copytree(run.path, path)
    return path


def resigned(path: Path, change: Callable[[bytes], bytes], *, every: bool = False) -> None:
    """Replaces the last receipt's signature, or that of `every` receipt."""
    frames = read_frames(journal(path))
    receipts = [at for at, frame in enumerate(frames) if frame.startswith(RECEIPT)]
    for at in receipts if every else receipts[-1:]:
        frame = frames[at]
        frames[at] = frame[:35] + change(frame[35:100]) + frame[100:]
    write_frames(journal(path), frames)
