"""Lightning's Trainer, recorded: a perceptron learns handwritten digits.

pip install counterfoil[torch] lightning scikit-learn
python examples/trainers/lightning_module.py
"""

from pathlib import Path

import lightning
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

import counterfoil
from counterfoil.torch.lightning import Callback


class Perceptron(lightning.LightningModule):
    """For images of 8 by 8."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _index: int) -> torch.Tensor:
        """The loss of a batch."""
        images, digits = batch
        return torch.nn.functional.cross_entropy(self.layers(images), digits)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main() -> None:
    torch.manual_seed(0)
    images, digits = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits))
    loader = DataLoader(data, batch_size=64, shuffle=True)
    recipe = Path(__file__).with_name("recipes") / "lightning_module.py"
    with counterfoil.Run.create("runs/lightning", recipe=recipe) as run:
        trainer = lightning.Trainer(
            max_steps=8, accelerator="cpu", gradient_clip_val=1.0, accumulate_grad_batches=2, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, callbacks=[Callback(run, checkpoint_every=1)],
        )  # fmt: skip
        trainer.fit(Perceptron(), loader)
    print(counterfoil.verify("runs/lightning"))


if __name__ == "__main__":
    main()
