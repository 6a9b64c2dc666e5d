"""Recipe of benches/tolerance.py: three small classifiers of scikit-learn's digits, in several precisions."""

import contextlib
from typing import Any

import torch

from counterfoil.torch.demo.transformer import Reader


def built(name: str) -> torch.nn.Module:
    """A model that has not been trained."""
    if name == "transformer":
        return Reader(32, 2)
    if name == "mlp":
        return torch.nn.Sequential(
            torch.nn.Flatten(),
            torch.nn.Linear(64, 128),
            torch.nn.BatchNorm1d(128),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.1),
            torch.nn.Linear(128, 10),
        )
    return torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, 8)),
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(512, 10),
    )


def stepped(spec: dict[str, Any], model: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimiser that a specification names."""
    if spec["optimizer"] == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    if spec["optimizer"] == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=0.002, weight_decay=0.01)
    return torch.optim.Adam(model.parameters(), lr=0.002, weight_decay=1e-3)


def backward(spec: dict[str, Any], model: torch.nn.Module, batch: Any) -> torch.Tensor:
    """Adds the gradient of a batch, in two parts; returns the loss of the second."""
    images, labels = batch
    loss = torch.zeros(())
    for some, shown in zip(images.chunk(2), labels.chunk(2), strict=True):
        coarse = (
            torch.autocast("cpu", torch.bfloat16) if spec["dtype"] == "bf16" else contextlib.nullcontext()
        )
        with coarse:
            scores = model(some.double() if spec["dtype"] == "fp64" else some)
            loss = torch.nn.functional.cross_entropy(scores, shown) / 2
        loss.backward()
    return loss


def recipe(spec: dict[str, Any]) -> Any:
    """The model, its optimiser and its step function."""
    torch.manual_seed(spec["seed"])
    model = built(spec["model"]).to(torch.float64 if spec["dtype"] == "fp64" else torch.float32)
    optimizer = stepped(spec, model)

    def step(batch: Any, number: int, log: Any) -> None:
        optimizer.zero_grad()
        log(loss=backward(spec, model, batch))
        optimizer.step()

    return model, optimizer, step
