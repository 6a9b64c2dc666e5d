"""A small real training without torch: least squares by gradient descent, recorded step by step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

import counterfoil
import oracle
from counterfoil import Commitment, Key, Run

STEPS = 12
POLICY = {
    "batch": 1, "gradients": 1, "parameters": 4, "hyperparameters": 1, "metrics": 1, "checkpoint": 6
}  # fmt: skip
RECIPE = 'def step(state, batch):\n    """One step of least squares."""\n'


class LeastSquares:
    """The training itself, so that tests can record it, interrupt it and continue it."""

    def __init__(self, rate: float = 0.01) -> None:
        chosen = np.random.default_rng(7)
        self.weights = np.zeros((40, 8))
        self.inputs = chosen.normal(size=(STEPS * 4, 16, 40))
        self.truth = chosen.normal(size=(40, 8))
        self.rate = rate

    def step(self, number: int) -> dict[str, Commitment]:
        """Trains one step and commits to what a step receipt holds."""
        x = self.inputs[number - 1]
        error = x @ self.weights - x @ self.truth
        gradient = x.T @ error / len(x)
        self.weights -= self.rate * gradient
        fields = {
            "batch": counterfoil.commit_tensors({"x": x}),
            "gradients": counterfoil.commit_tensors({"weights": gradient}),
            "hyperparameters": counterfoil.commit_tensors({"lr": self.rate}, keep=True),
            "metrics": counterfoil.commit_tensors({"loss": float((error**2).mean())}, keep=True),
        }
        if number % POLICY["parameters"] == 0:
            fields["parameters"] = counterfoil.commit_tensors(self.state())
        return fields

    def state(self) -> dict[str, np.ndarray]:
        return {"weights": self.weights.copy(), "scale": np.float32(1)}

    def record(self, run: Run, first: int, last: int) -> None:
        for number in range(first, last + 1):
            run.record_step(number, self.step(number))
            if number % POLICY["checkpoint"] == 0:
                state = run.store(self.state())
                rate = counterfoil.commit_tensors({"lr": self.rate}, keep=True)
                run.record_checkpoint(number, {"parameters": state, "hyperparameters": rate})


def create(path: Path, *, key: Key | None = None, public: tuple[str, ...] = ()) -> Run:
    recipe = path.parent / "least_squares.py"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(RECIPE)
    spec: Mapping[str, object] = {"model": "least squares", "seed": 7}
    return Run.create(path, key=key, spec=spec, recipe=recipe, policy=POLICY, public=public)


def record(path: Path, steps: int = STEPS, *, key: Key | None = None) -> None:
    """Records a run of so many steps and closes it."""
    with create(path, key=key) as run:
        LeastSquares().record(run, 1, steps)


def journal(path: Path) -> Path:
    """The journal of a run folder that has one lane."""
    (found,) = path.glob("workers/*/*/journal")
    return found


def device_key(home: Path) -> bytes:
    """The private key of these tests, for what a liar would do with it."""
    return bytes.fromhex((home / "device.key").read_text())


def lane_secret(home: Path, ledger: oracle.Ledger) -> bytes:
    """The secret of the lane in which this ledger was written."""
    genesis = ledger.receipts[0]
    run, worker = (genesis.kind.word(genesis.body, name) for name in ("run", "worker"))
    name = f"0x{oracle.log_id(run, worker[12:], 0).hex()}"
    return bytes.fromhex((home / "lanes" / name).read_text())
