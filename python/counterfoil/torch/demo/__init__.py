"""The main job in miniature: two real trainings recorded, anchored and verified, and lies about them refuted.

The stored evidence is tampered with in six ways, which verification refutes by itself. Then a
trainer with a valid signature applies another learning rate than it records: every signature
holds, and only executing the steps again shows it.
"""

from __future__ import annotations

import functools
import itertools
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import counterfoil
from counterfoil.errors import CounterfoilError, NotFound, Refuted
from counterfoil.testing.tamper import TAMPERINGS
from counterfoil.torch import replay
from counterfoil.torch.demo import mlp, transformer

SPECS: dict[ModuleType, dict[str, Any]] = {
    transformer: {"seed": 1, "width": 32, "layers": 2, "learning_rate": 0.003, "warm_up": 20},
    mlp: {"seed": 1, "hidden": 64, "learning_rate": 0.05},
}
STEPS, LIE_AT = 120, 77


def main(folder: str | Path = "runs") -> int:
    """Runs the demo below `folder`, in `demo`, or in `demo-2` and so on when that exists.

    Returns:
        0 when everything came out as it should.

    Raises:
        NotFound: scikit-learn, which brings the data, is not installed.
        CounterfoilError: A lie was not refuted, or an honest run was.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small layers: a second thread costs more than it brings
    try:
        print("\n".join(_tell(fresh(Path(folder), "demo"))))
    finally:
        torch.set_num_threads(threads)
    return 0


def record(
    path: Path,
    recipe: ModuleType,
    *,
    steps: int = STEPS,
    lie: Callable[[torch.optim.Optimizer], None] | None = None,
    **options: Any,
) -> list[float]:
    """Trains with a recipe on scikit-learn's digits, records each step, with options of `attach`; returns the losses."""
    losses: list[float] = []
    with counterfoil.Run.create(path, spec=SPECS[recipe], recipe=recipe.__file__) as run:
        model, optimizer, step = recipe.recipe(run.spec)
        recorder = run.attach(model, optimizer, **{"every": 1, "checkpoint_every": 20} | options)
        if lie is not None:
            lie(optimizer)

        def log(**metrics: Any) -> None:
            losses.append(metrics["loss"].item())
            recorder.log(**metrics)

        epochs = itertools.repeat(run.batches(recipe.batches(run.spec)))
        batches = itertools.chain.from_iterable(epochs)
        for number, batch in zip(range(1, steps + 1), batches, strict=False):
            step(batch, number, log)
    return losses


def lying(at: int) -> Callable[[torch.optim.Optimizer], None]:
    """A lie for a trainer: at step `at` the optimiser applies 1.0001 times the recorded learning rate."""

    def install(optimizer: torch.optim.Optimizer) -> None:
        honest: list[float] = []
        steps = [0]

        def inflate(*_: object) -> None:
            steps[0] += 1
            honest[:] = [group["lr"] for group in optimizer.param_groups]
            for group in optimizer.param_groups if steps[0] == at else ():
                group["lr"] *= 1.0001

        def cover_up(*_: object) -> None:
            for group, rate in zip(optimizer.param_groups, honest, strict=True):
                group["lr"] = rate

        optimizer.register_step_pre_hook(inflate)
        handle = optimizer.register_step_post_hook(cover_up)
        optimizer._optimizer_step_post_hooks.move_to_end(handle.id, last=False)  # type: ignore[attr-defined]

    return install


def digits() -> torch.utils.data.TensorDataset:
    """Scikit-learn's 1,797 images of digits, and what they show.

    Raises:
        NotFound: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise NotFound("the demo's data come with scikit-learn: pip install 'counterfoil[demo]'") from None
    loaded = load_digits()
    images = torch.tensor(loaded.images / 16, dtype=torch.float32)
    return torch.utils.data.TensorDataset(images, torch.tensor(loaded.target))


def fresh(parent: Path, name: str) -> Path:
    """Makes a folder `name` below `parent`, or `name-2` and so on when that exists."""
    parent.mkdir(parents=True, exist_ok=True)
    folder, number = parent / name, 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    folder.mkdir()
    return folder


def say(text: str) -> None:
    """Says what is done now, beside what the demo prints."""
    print(f"... {text}", file=sys.stderr, flush=True)


def _tell(folder: Path) -> list[str]:
    """Does it all; returns the last screen."""
    honest = {module: folder / module.__name__.rpartition(".")[2] for module in SPECS}
    story = []
    for module, path in honest.items():
        say(f"training {path.name} for {STEPS} steps")
        losses = record(path, module)
        story.append(f"{path.name} {STEPS} steps, loss {losses[0]:.2f} to {losses[-1]:.2f}")
    count = sum(len(counterfoil.Record(path).receipts()) for path in honest.values())
    lines = [f"recorded   {'; '.join(story)}: {count} signed receipts"]

    say("anchoring on a development chain")
    chain = counterfoil.Chain.dev(folder / "chain")
    anchors = [chain.anchor(path) for path in honest.values()]
    lines.append(
        f"anchored   {len(anchors)} tree heads, the last over {anchors[-1].size} receipts, on a development chain"
    )

    me, pins = (
        counterfoil.Key.device().address,
        {m: counterfoil.Record(p).recipe_digest for m, p in honest.items()},
    )
    say("verifying, and executing every step again")
    replay(honest[mlp], "all", recipe=pins[mlp], signer=me, chain=chain)
    verdict = replay(honest[transformer], "all", recipe=pins[transformer], signer=me, chain=chain)
    whole = (verdict.integrity, verdict.signer, verdict.time, verdict.transition)
    names = ("Integrity", "Signer", "Time", "Transition")
    lines += [f"  {name:<10} {line}" for name, line in zip(names, whole, strict=True)]

    say("tampering with copies of the mlp's evidence")
    edges = []
    for name, tamper in TAMPERINGS.items():
        copy = folder / "tampered" / name.replace(" ", "-")
        shutil.copytree(honest[mlp], copy)
        tamper(copy)
        edges.append(
            f"{name} [{_refuted(functools.partial(counterfoil.verify, copy, signer=me, chain=chain), name)}]"
        )
    lines.append(f"refuted    {'; '.join(edges[:2])}")
    lines += [f"           {'; '.join(edges[at : at + 2])}" for at in range(2, len(edges), 2)]

    liar = folder / "liar"
    say(f"training a liar, who applies learning rate x 1.0001 at step {LIE_AT}")
    record(liar, mlp, lie=lying(LIE_AT))
    chain.anchor(liar)
    before = counterfoil.verify(liar, signer=me, recipe=pins[mlp], chain=chain)
    say("executing ten of the liar's steps again")
    steps = f"{LIE_AT - 5}:{LIE_AT + 4}"
    edge = _refuted(lambda: replay(liar, steps, recipe=pins[mlp], signer=me, chain=chain), "the signed lie")
    lines.append(f"signed lie {before.status} by signatures; refuted by replay of {steps} [{edge}]")
    lines.append(f"try        counterfoil verify {honest[mlp]} | counterfoil inspect {liar}")
    lines.append(f"           counterfoil replay {liar} --steps {steps} --recipe {pins[mlp]}")
    return lines


def _refuted(attempt: Callable[[], object], what: str) -> str:
    try:
        attempt()
    except Refuted as refuted:
        return refuted.verdict.broken[0].edge
    raise CounterfoilError(f"{what} was not refuted")
