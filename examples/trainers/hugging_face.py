"""Hugging Face's Trainer, recorded: a language model of bytes learns the description of a dataset.

pip install counterfoil[torch] transformers accelerate scikit-learn
python examples/trainers/hugging_face.py
"""

from pathlib import Path

import torch
from sklearn.datasets import load_breast_cancer
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import counterfoil
from counterfoil.torch.hf import Callback

LENGTH = 32


def build() -> LlamaForCausalLM:
    """A Llama of 22,000 parameters."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=256, **shape))


def texts() -> list[dict[str, torch.Tensor]]:
    """The description's bytes, in pieces."""
    tokens = torch.frombuffer(bytearray(load_breast_cancer().DESCR.encode()), dtype=torch.uint8).long()
    return [{"input_ids": piece, "labels": piece} for piece in tokens.split(LENGTH) if len(piece) == LENGTH]


def main() -> None:
    torch.manual_seed(0)
    arguments = TrainingArguments(
        "out", max_steps=6, per_device_train_batch_size=4, gradient_accumulation_steps=2, logging_steps=2,
        save_steps=6, report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    recipe = Path(__file__).with_name("recipes") / "hugging_face.py"
    with counterfoil.Run.create("runs/hugging_face", recipe=recipe) as run:
        callback = Callback(run, checkpoint_every=1)
        Trainer(build(), arguments, train_dataset=texts(), callbacks=[callback]).train()
    print(counterfoil.verify("runs/hugging_face"))
    print(counterfoil.saved_at("runs/hugging_face", "out/checkpoint-6"))


if __name__ == "__main__":
    main()
