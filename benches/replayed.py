"""Recipe of benches/replay.py: a perceptron, or a transformer that predicts the next token."""

from typing import Any

import torch


class Transformer(torch.nn.Module):
    """Predicts the next token."""

    def __init__(self, width: int, layers: int, vocabulary: int) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(vocabulary, width)
        layer = torch.nn.TransformerEncoderLayer(width, width // 64, 4 * width, dropout=0.0, batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = torch.nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores (batch, tokens, vocabulary)."""
        mask = torch.nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        scores: torch.Tensor = self.head(self.layers(self.embed(tokens), mask=mask, is_causal=True))
        return scores


def recipe(spec: dict[str, Any]) -> Any:
    """The model, its optimiser and its step function."""
    torch.manual_seed(1)
    if spec["model"] == "mlp":
        layers = [torch.nn.Linear(784, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512), torch.nn.ReLU()]
        model: torch.nn.Module = torch.nn.Sequential(*layers, torch.nn.Linear(512, 10))
    else:
        model = Transformer(256, 10, 8192)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(batch: Any, number: int, log: Any) -> None:
        inputs, targets = batch
        optimizer.zero_grad()
        scores = model(inputs)
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, -2), targets.flatten())
        loss.backward()
        log(loss=loss)
        optimizer.step()

    return model, optimizer, step


def batches(spec: dict[str, Any], steps: int) -> Any:
    """Random images, or texts and their next tokens."""
    for _ in range(steps):
        if spec["model"] == "mlp":
            yield torch.rand(spec["batch"], 784), torch.randint(0, 10, (spec["batch"],))
        else:
            text = torch.randint(0, 8192, (spec["batch"], spec["length"] + 1))
            yield text[:, :-1].contiguous(), text[:, 1:].contiguous()
