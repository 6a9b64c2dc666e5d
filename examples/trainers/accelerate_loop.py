"""A loop of Accelerate's, recorded: a perceptron learns handwritten digits.

pip install counterfoil[torch] accelerate scikit-learn
python examples/trainers/accelerate_loop.py
"""

from pathlib import Path

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

import counterfoil


def build() -> torch.nn.Module:
    """A perceptron for images of 8 by 8."""
    return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))


def main() -> None:
    torch.manual_seed(0)
    images, digits = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits))
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer, loader = accelerator.prepare(
        model, optimizer, DataLoader(data, batch_size=64, shuffle=True)
    )
    recipe = Path(__file__).with_name("recipes") / "accelerate_loop.py"
    with counterfoil.Run.create("runs/accelerate", recipe=recipe) as run:
        run.attach(model, optimizer, checkpoint_every=1)
        for image, digit in run.batches(loader):
            with accelerator.accumulate(model):
                loss = torch.nn.functional.cross_entropy(model(image), digit)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
    print(counterfoil.verify("runs/accelerate"))


if __name__ == "__main__":
    main()
