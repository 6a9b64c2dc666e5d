"""Recipe: a small transformer that reads an 8x8 image as eight tokens, trained with AdamW and a warm-up."""

from typing import Any

import torch


class Reader(torch.nn.Module):
    """Classifies the eight rows of an image."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(8, width)
        self.position = torch.nn.Parameter(torch.randn(8, width) * 0.02)
        layer = torch.nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1, batch_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, layers)
        self.head = torch.nn.Linear(width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Class scores (batch, 10) of images (batch, 8, 8)."""
        scores: torch.Tensor = self.head(self.encoder(self.embed(images) + self.position).mean(dim=1))
        return scores


def recipe(spec: dict[str, Any]) -> Any:
    """The model, its optimiser and its step function; weights from the spec's seed."""
    torch.manual_seed(spec["seed"])
    model = Reader(spec["width"], spec["layers"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec["learning_rate"])

    def step(batch: Any, number: int, log: Any) -> None:
        images, labels = batch
        for group in optimizer.param_groups:
            group["lr"] = spec["learning_rate"] * min(1.0, number / spec["warm_up"])
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        log(loss=loss)
        optimizer.step()

    return model, optimizer, step


def batches(spec: dict[str, Any]) -> Any:
    """Scikit-learn's digits, shuffled by torch's generator in each epoch."""
    from counterfoil.torch.demo import digits

    return torch.utils.data.DataLoader(digits(), batch_size=32, shuffle=True, drop_last=True)
