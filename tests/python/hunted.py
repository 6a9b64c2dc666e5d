"""Recipe of a perceptron that can be made to go wrong, and a plain training with it; used by test_live.py.

As a program, `python hunted.py BEGIN FOLDER NAME...`, it trains from the state and the batches in BEGIN, an `.npz` file,
once in each way of that name, and writes what each step gave into FOLDER: what the library's own processes are
compared with.
"""

import os
import sys
from typing import Any

import numpy as np
import torch

STEPS, WIDTH, CLASSES = 6, 512, 10


def recipe(spec: dict[str, Any]) -> Any:
    """The model, its optimiser and its step function.

    Environment variables put in a fault: `NUDGED` makes one number before the activation larger by one unit in the
    last place at step 3, `DREW` draws a random number before the dropout of step 2, `URANDOM` asks the machine for one
    at step 4. `MARKED` is a fault of a thousand such units, wherever a batch holds a number above 50.
    """
    torch.manual_seed(spec["seed"])
    model = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, WIDTH),
        torch.nn.Tanh(),
        torch.nn.Dropout(spec["dropout"]),
        torch.nn.Linear(WIDTH, CLASSES),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def step(batch: Any, number: int, log: Any) -> None:
        x, y = batch[:2]
        optimizer.zero_grad()
        hidden = model[0](x)
        faults = {"NUDGED": int(number == 3), "MARKED": 1000 * int(x.amax() > 50)}
        hidden.detach().view(torch.int32)[5, 7] += sum(faults[name] for name in faults if name in os.environ)
        if number == 4 and spec["urandom"]:
            with torch.no_grad():
                hidden += int.from_bytes(os.urandom(4), "big") / 2**32
        if number == 2 and "DREW" in os.environ:
            torch.rand(1)
        loss = (model[3](model[2](model[1](hidden))) - y).square().mean()
        loss.backward()
        log(loss=loss)
        optimizer.step()

    return model, optimizer, step


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs (64, WIDTH) and targets (64, CLASSES) of each step."""
    draw = torch.Generator().manual_seed(3)
    inputs = [torch.randn(64, WIDTH, generator=draw) for _ in range(STEPS)]
    return [(x, x[:, :CLASSES].sin()) for x in inputs]


def main(begin: str, folder: str, *names: str) -> None:
    """Trains plainly: no hooks, no recorder, no library of this project."""
    for name in names:
        torch.set_num_threads(2 if name == "two" else 1)
        if name == "nudged":
            os.environ["NUDGED"] = "1"
        np.savez(os.path.join(folder, name), **train(dict(np.load(begin))))


def train(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What each step gives, as `STEP/FIELD/TENSOR`."""
    model, _, step = recipe({"seed": 1, "dropout": 0.0, "urandom": False})
    model.load_state_dict({name: torch.from_numpy(given[name]) for name in model.state_dict()})
    came: dict[str, np.ndarray] = {}

    def log(loss: torch.Tensor) -> None:
        came[f"{number}/metrics/loss"] = loss.detach().numpy().copy()

    for number in range(1, STEPS + 1):
        step((torch.from_numpy(given[f"x{number}"]), torch.from_numpy(given[f"y{number}"])), number, log)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            came[f"{number}/gradients/{name}"] = parameter.grad.numpy().copy()
            came[f"{number}/parameters/{name}"] = parameter.detach().numpy().copy()
    return came


if __name__ == "__main__":
    main(*sys.argv[1:])
