"""TRL's supervised fine-tuning, recorded: a tiny language model learns a dataset's description, line by line.

pip install counterfoil[torch] trl scikit-learn
python examples/trainers/trl_sft.py
"""

from pathlib import Path

import torch
from datasets import Dataset
from sklearn.datasets import load_wine
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

import counterfoil
from counterfoil.torch.hf import Callback


def build(vocabulary: int) -> LlamaForCausalLM:
    """A Llama with two layers."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **shape))


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    """Knows the words of these texts."""
    words = sorted({word for text in texts for word in text.split()})
    known = {word: number for number, word in enumerate(["<pad>", "<end>", "<unknown>", *words])}
    plain = Tokenizer(models.WordLevel(known, unk_token="<unknown>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<end>", unk_token="<unknown>"
    )


def main() -> None:
    torch.manual_seed(0)
    lines = [line for line in load_wine().DESCR.splitlines() if len(line.split()) > 4]
    tokenizer = tokenizer_of(lines)
    arguments = SFTConfig(
        "out", max_steps=4, per_device_train_batch_size=4, max_length=32, use_cpu=True, bf16=False,
        gradient_checkpointing=False, report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    recipe = Path(__file__).with_name("recipes") / "trl_sft.py"
    with counterfoil.Run.create("runs/sft", spec={"vocabulary": len(tokenizer)}, recipe=recipe) as run:
        SFTTrainer(
            build(len(tokenizer)), arguments, train_dataset=Dataset.from_dict({"text": lines}),
            processing_class=tokenizer, callbacks=[Callback(run, checkpoint_every=1)],
        ).train()  # fmt: skip
    print(counterfoil.verify("runs/sft"))


if __name__ == "__main__":
    main()
