"""TRL's direct preference optimisation, recorded: of two cultivars, the one that a wine's measurements are of is preferred.

pip install counterfoil[torch] trl scikit-learn
python examples/trainers/trl_dpo.py
"""

from pathlib import Path

import torch
from datasets import Dataset
from sklearn.datasets import load_wine
from trl import DPOConfig, DPOTrainer
from trl_sft import build, tokenizer_of

import counterfoil
from counterfoil.torch.hf import Callback


def preferences() -> list[dict[str, str]]:
    """Three measurements of each wine, rounded, as words; the right cultivar and the next one."""
    wine = load_wine()
    names = [name.replace(" ", "_") for name in wine.feature_names[:3]]
    return [
        {
            "prompt": " ".join(f"{name} {value:.0f}" for name, value in zip(names, row, strict=False)),
            "chosen": f" cultivar {label}",
            "rejected": f" cultivar {(label + 1) % 3}",
        }
        for row, label in zip(wine.data, wine.target, strict=True)
    ]


def main() -> None:
    torch.manual_seed(0)
    pairs = preferences()
    tokenizer = tokenizer_of([text for pair in pairs for text in pair.values()])
    model, reference = build(len(tokenizer)), build(len(tokenizer))
    reference.load_state_dict(model.state_dict())
    arguments = DPOConfig(
        "out", max_steps=4, per_device_train_batch_size=4, use_cpu=True, bf16=False,
        gradient_checkpointing=False, report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    recipe = Path(__file__).with_name("recipes") / "trl_dpo.py"
    with counterfoil.Run.create("runs/dpo", spec={"vocabulary": len(tokenizer)}, recipe=recipe) as run:
        DPOTrainer(
            model, reference, arguments, train_dataset=Dataset.from_list(pairs),
            processing_class=tokenizer, callbacks=[Callback(run, checkpoint_every=1)],
        ).train()  # fmt: skip
    print(counterfoil.verify("runs/dpo"))


if __name__ == "__main__":
    main()
