"""Recipe of trl_sft.py: what `SFTTrainer` does by default with `max_steps=4`; the spec has the vocabulary's size."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head


def recipe(spec):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=spec["vocabulary"], **shape))
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    norms = [parameter for name, parameter in model.named_parameters() if "norm" in name]
    others = [parameter for name, parameter in model.named_parameters() if "norm" not in name]
    groups = [{"params": others, "initial_lr": 2e-5}, {"params": norms, "initial_lr": 2e-5}]
    optimizer = torch.optim.AdamW(groups, lr=2e-5, weight_decay=0.0, fused=True)

    def step(batch, number, log):
        for group in optimizer.param_groups:
            group["lr"] = 2e-5 * ((5 - number) / 4)
        optimizer.zero_grad()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return model, optimizer, step
