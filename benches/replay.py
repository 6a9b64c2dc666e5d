"""Measures replaying recorded steps against training them plainly; `make bench-replay` runs it.

The same steps of one model, from one state and with the same batches: a plain loop in a process of its own, and
the confined child of a replay, whose every gradient and, now and then, state is compared. Writes
benches/results/replay.json and prints the table.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import HERE, machine

import counterfoil
from counterfoil.torch import replay

RECIPE = Path(__file__).with_name("replayed.py")
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "MLP, 0.7 M parameters, 64 images": ({"model": "mlp", "batch": 64}, 300),
    "transformer, 10 M, 8 x 32 tokens": ({"model": "transformer", "batch": 8, "length": 32}, 40),
    "transformer, 10 M, 8 x 128 tokens": ({"model": "transformer", "batch": 8, "length": 128}, 24),
}
EVERY = 20
"""Steps between commitments to the state, and between checkpoints."""


def load() -> Any:
    """The recipe's module."""
    found = importlib.util.spec_from_file_location("replayed", RECIPE)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def plain(spec: dict[str, Any], steps: int) -> float:
    """Seconds of the steps in a plain loop, without the first two."""
    module = load()
    _, _, step = module.recipe(spec)
    batches, begin = module.batches(spec, steps), 0.0
    for number, batch in enumerate(batches, 1):
        if number == 3:
            begin = time.perf_counter()
        step(batch, number, lambda **_: None)
    return time.perf_counter() - begin


def measure(name: str, spec: dict[str, Any], steps: int) -> dict[str, Any]:
    """One model: each kind of execution once before the other, so that both see the same machine."""
    module = load()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COUNTERFOIL_HOME"] = f"{folder}/home"
        path = Path(folder) / "run"
        with counterfoil.Run.create(path, spec=spec, recipe=RECIPE) as run:
            model, optimizer, step = module.recipe(spec)
            recorder = run.attach(model, optimizer, every={"gradients": 1, "hyperparameters": 1, "randomness": 1,
                "parameters": EVERY, "optimizer": EVERY, "buffers": EVERY}, checkpoint_every=EVERY)  # fmt: skip
            for number, batch in enumerate(run.batches(module.batches(spec, steps)), 1):
                step(batch, number, recorder.log)
        del model, optimizer, step, recorder
        bare, again, whole = [], [], []
        for _ in range(3):
            told = subprocess.run(
                [sys.executable, __file__, "--plain", name], check=True, capture_output=True, text=True
            )
            bare.append(float(told.stdout))
            at: list[float] = []
            begin = time.perf_counter()
            verdict = replay(path, f"1:{steps}", run_untrusted=True, progress=functools.partial(_note, at))
            whole.append(time.perf_counter() - begin)
            assert json.loads(verdict.to_json())["transition"]["replayed"] == steps
            again.append(at[-1] - at[1])
    count = steps - 2
    return {
        "plain, ms a step": round(1000 * min(bare) / count, 2),
        "replayed, ms a step": round(1000 * min(again) / count, 2),
        "ratio": round(min(again) / min(bare), 3),
        "ratios": [round(one / other, 3) for one, other in zip(again, bare, strict=True)],
        "replay, s with start and verification": round(min(whole), 1),
        "steps": steps,
    }


def _note(at: list[float], *_: int) -> None:
    at.append(time.perf_counter())


def main() -> None:
    """Measures all models."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--plain")
    chosen = arguments.parse_args()
    if chosen.plain:
        print(plain(*MODELS[chosen.plain]))
        return
    results = {"machine": machine(), "models": {name: measure(name, *each) for name, each in MODELS.items()}}
    (HERE / "results" / "replay.json").write_text(json.dumps(results, indent=1) + "\n")
    for name, found in results["models"].items():
        print(f"| {name} | {found['plain, ms a step']} | {found['replayed, ms a step']} | {found['ratio']} |")


if __name__ == "__main__":
    main()
