"""Recipe of benches/hunt.py: a small classifier of texts into which environment variables put a fault."""

import os
from typing import Any

import torch

STEPS, BATCH, LENGTH, VOCABULARY, WIDTH = 8, 64, 16, 256, 512


class Classifier(torch.nn.Module):
    """Looks words up, takes their mean, and tells one class of ten."""

    def __init__(self, by_index: bool, dropout: float) -> None:
        super().__init__()
        self.by_index, self.nudge = by_index, 0
        self.table = torch.nn.Parameter(torch.randn(VOCABULARY, WIDTH))
        self.first = torch.nn.Linear(WIDTH, WIDTH)
        self.second = torch.nn.Linear(WIDTH, WIDTH)
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(WIDTH, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores (batch, 10) of tokens (batch, length)."""
        # With several threads, the gradient of an index is summed in the order in which they come.
        words = self.table[tokens] if self.by_index else torch.nn.functional.embedding(tokens, self.table)
        hidden = self.second(torch.relu(self.first(words.mean(dim=1))))
        # In each environment, so that both execute the same operations.
        hidden.detach().view(torch.int32)[5, 5] += self.nudge
        scores: torch.Tensor = self.head(self.dropout(torch.relu(hidden)))
        return scores


def recipe(spec: dict[str, Any]) -> Any:
    """The model, its optimiser and its step function."""
    torch.manual_seed(1)
    model = Classifier(spec["by_index"], spec["dropout"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(batch: Any, number: int, log: Any) -> None:
        tokens, classes = batch
        model.nudge = int(number == 5 and "NUDGED" in os.environ)
        if number == 5 and "DREW" in os.environ:
            torch.rand(1)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(tokens), classes)
        loss.backward()
        log(loss=loss)
        optimizer.step()

    return model, optimizer, step


def batches() -> Any:
    """Tokens (BATCH, LENGTH) and classes (BATCH,) of each step."""
    draw = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        tokens = torch.randint(0, VOCABULARY, (BATCH, LENGTH), generator=draw)
        yield tokens, torch.randint(0, 10, (BATCH,), generator=draw)
