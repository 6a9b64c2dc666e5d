"""Recipe: a perceptron that several ranks train together, each on batches of its own."""

from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel


def recipe(spec: dict[str, Any]) -> Any:
    """The model, its optimiser and its step function; weights from the spec's seed."""
    torch.manual_seed(spec["seed"])
    model: torch.nn.Module = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, spec["hidden"]),
        torch.nn.ReLU(),
        torch.nn.Linear(spec["hidden"], 10),
    )
    # Where a step is executed again there is no other rank: what this one contributed is computed alone.
    if torch.distributed.is_initialized():
        model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=spec["learning_rate"], momentum=0.9)

    def step(batch: Any, number: int, log: Any) -> None:
        images, labels = batch
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        log(loss=loss)
        optimizer.step()

    return model, optimizer, step
