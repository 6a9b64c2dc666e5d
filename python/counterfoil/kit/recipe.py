"""The model, its optimiser and one step of training: what whoever checks the run executes again."""

import random
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

SPEC = {"seed": 1, "hidden": 64, "learning_rate": 0.05}


def recipe(spec: dict[str, Any]) -> Any:
    """The model, its optimiser and its step, which depend on the specification alone."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(spec["seed"])
    model = torch.nn.Sequential(
        torch.nn.Linear(64, spec["hidden"]), torch.nn.ReLU(), torch.nn.Linear(spec["hidden"], 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=spec["learning_rate"], momentum=0.9)

    def step(batch: Any, number: int, log: Any) -> None:
        images, labels = batch
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        log(loss=loss)
        optimizer.step()

    return model, optimizer, step


def batches(spec: dict[str, Any]) -> Any:
    """One epoch of scikit-learn's 1,797 images of digits, in an order that torch's generator draws."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images / 16, dtype=torch.float32)
    data = torch.utils.data.TensorDataset(pixels, torch.tensor(labels))
    return torch.utils.data.DataLoader(data, batch_size=32, shuffle=True, drop_last=True)
