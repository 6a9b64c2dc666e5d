"""Hugging Face's Trainer on several processes; run under torchrun by test_trainers.py."""

import sys

import torch
from sklearn.datasets import load_breast_cancer
from transformers import Trainer, TrainingArguments

import counterfoil.torch
from counterfoil.torch.hf import Callback


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(30, 2)

    def forward(self, features, labels):
        logits = self.layer(features)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def main(folder):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    features, labels = load_breast_cancer(return_X_y=True)
    features = torch.tensor(features / features.max(0), dtype=torch.float32)
    samples = [{"features": x, "labels": int(y)} for x, y in zip(features, labels, strict=True)]
    arguments = TrainingArguments(
        f"{folder}/out", max_steps=4, per_device_train_batch_size=16, gradient_accumulation_steps=2, use_cpu=True,
        ddp_backend="gloo", save_strategy="no", report_to=[], disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(Classifier(), arguments, train_dataset=samples)
    with counterfoil.torch.open_lane(f"{folder}/run") as run:
        trainer.add_callback(Callback(run, checkpoint_every=2))
        trainer.train()


if __name__ == "__main__":
    main(sys.argv[1])
