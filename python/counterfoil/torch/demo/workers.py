"""Four workers train one model, each with a key of its own, and one of them cheats.

It adds noise of a thousandth to the gradients that it contributes. All workers apply the same mean of their
contributions and all signatures hold; only what each was to contribute, computed again from its batch, shows
who cheated. `torchrun` starts this module once for each worker.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table

import counterfoil
from counterfoil.errors import CounterfoilError, Refuted
from counterfoil.torch import open_lane, replay
from counterfoil.torch.demo import digits, fresh, ranks, say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from counterfoil import Record, Verdict

WORKERS = 4
CHEAT = WORKERS - 1
"""How many there are, and the rank of the one that cheats."""
SPEC: dict[str, Any] = {"seed": 1, "hidden": 64, "learning_rate": 0.05}
DATA = "digits.pt"
"""Beside the run: importing scikit-learn takes a worker longer than its training does."""
SAME, DIFFERS, UNCHECKED = "bit-exact", "differs", "not checked"


def main(folder: str | Path = "runs") -> int:
    """Runs the demo below `folder`, in `workers`, or in `workers-2` and so on when that exists.

    Returns:
        0 when the worker that cheats is named, and no other one.

    Raises:
        NotFound: scikit-learn, which brings the data, is not installed.
        CounterfoilError: The workers did not come to their end, or not exactly the one that cheats was named.
    """
    data = digits().tensors
    path = fresh(Path(folder), "workers") / "run"
    torch.save(data, path.with_name(DATA))
    say(f"training with {WORKERS} workers, of which rank {CHEAT} cheats")
    _train(path)
    record = counterfoil.Record(path)
    say("verifying, and computing each worker's contributions again")
    before = counterfoil.verify(record)
    try:
        after = replay(path, "all", recipe=record.recipe_digest)
    except Refuted as refuted:
        after = refuted.verdict
    found = findings(record, after)
    console = Console(highlight=False)
    console.print(_table(record, found))
    signed = f"{before.status} by signatures: {next(note for note in before.notes if 'contributed' in note)}"
    console.print(f"\n{signed}", soft_wrap=True)
    console.print(accusation(after, found), soft_wrap=True)
    console.print(f"try  counterfoil replay {path} --recipe {record.recipe_digest}", soft_wrap=True)
    return 0


def findings(record: Record, verdict: Verdict) -> dict[tuple[str, int], str]:
    """What replay found of each lane, by its worker and number, which is its rank; ordered by rank."""

    def found(worker: str, lane: int) -> str:
        name = f"{worker} lane {lane}: "
        if any(name in edge.edge for edge in verdict.broken):
            return DIFFERS
        again = any(note.startswith(name) and SAME in note for note in verdict.notes)
        return SAME if again else UNCHECKED

    return {place: found(*place) for place in sorted(record.lanes, key=lambda place: place[1])}


def accusation(verdict: Verdict, found: dict[tuple[str, int], str]) -> str:
    """One sentence that names the worker which cheated.

    Raises:
        CounterfoilError: Nobody differs, or another worker does.
    """
    named = [place for place, finding in found.items() if finding == DIFFERS]
    if [rank for _, rank in named] != [CHEAT]:
        shown = ", ".join(f"rank {rank}" for _, rank in named) or "nobody"
        raise CounterfoilError(
            f"rank {CHEAT} cheats, and replay named {shown}", expected=f"rank {CHEAT}", actual=shown
        )
    ((worker, rank),) = named
    _, _, what = verdict.broken[0].edge.partition(f"{worker} lane {rank}: ")
    return f"{verdict.status} by replay: rank {rank}, worker {worker}, signed what its batch does not give ({what})"


def _table(record: Record, found: dict[tuple[str, int], str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("rank", "worker", "steps", "samples", "computed again"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("steps", "samples") else "left")
    for (worker, rank), finding in found.items():
        steps = [receipt for receipt in record.receipts(worker, rank) if receipt.kind == "step"]
        samples = sum(record.opened(receipt)["batch"].entries[0].shape[0] for receipt in steps)
        style = {SAME: "green", DIFFERS: "bold red"}.get(finding, "dim")
        table.add_row(str(rank), worker, str(len(steps)), str(samples), finding, style=style)
    return table


def _train(path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORKERS}"]
    # Small layers: a second thread costs more than it brings, and torchrun would warn that it chose one.
    done = subprocess.run(
        [*torchrun, "--module", __name__, str(path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode != 0:
        raise CounterfoilError(f"the workers ended with exit code {done.returncode}; what they said is above")


def _work(path: Path) -> None:
    """Trains and records as one of the workers."""
    torch.distributed.init_process_group("gloo")
    data = torch.utils.data.TensorDataset(*torch.load(path.with_name(DATA)))
    sampler: torch.utils.data.DistributedSampler[Any] = torch.utils.data.DistributedSampler(
        data, seed=SPEC["seed"], drop_last=True
    )
    loader = torch.utils.data.DataLoader(data, batch_size=32, sampler=sampler)
    with open_lane(path, key=counterfoil.Key.generate(), spec=SPEC, recipe=ranks.__file__) as run:
        model, optimizer, step = ranks.recipe(run.spec)
        recorder = run.attach(model, optimizer, checkpoint_every=1)
        if torch.distributed.get_rank() == CHEAT:
            _cheat(model.parameters())
        for number, batch in enumerate(run.batches(loader), 1):
            step(batch, number, recorder.log)
    torch.distributed.destroy_process_group()


def _cheat(parameters: Iterable[torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)

    def noisy(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * (1 + 1e-3 * torch.randn(gradient.shape, generator=generator))

    for parameter in parameters:
        parameter.register_hook(noisy)


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
