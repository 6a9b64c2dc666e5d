"""Recipe: a perceptron with batch normalisation and dropout, trained with SGD and momentum."""

from typing import Any

import torch


def recipe(spec: dict[str, Any]) -> Any:
    """The model, its optimiser and its step function; weights from the spec's seed."""
    torch.manual_seed(spec["seed"])
    model = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, spec["hidden"]),
        torch.nn.BatchNorm1d(spec["hidden"]),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(spec["hidden"], 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=spec["learning_rate"], momentum=0.9, nesterov=True)

    def step(batch: Any, number: int, log: Any) -> None:
        images, labels = batch
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        log(loss=loss)
        optimizer.step()

    return model, optimizer, step


def batches(spec: dict[str, Any]) -> Any:
    """Scikit-learn's digits, shuffled by torch's generator in each epoch."""
    from counterfoil.torch.demo import digits

    return torch.utils.data.DataLoader(digits(), batch_size=32, shuffle=True, drop_last=True)
