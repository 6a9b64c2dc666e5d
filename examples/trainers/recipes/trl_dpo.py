"""Recipe of trl_dpo.py: what `DPOTrainer` does by default with `max_steps=4`.

The reference model is the one that training begins with, made again from the seed and the vocabulary's size.
"""

import copy

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head


def recipe(spec):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=spec["vocabulary"], **shape))
    reference = copy.deepcopy(model)
    for each in (model, reference):
        add_fused_lm_head(each)
    norms = [parameter for name, parameter in model.named_parameters() if "norm" in name]
    others = [parameter for name, parameter in model.named_parameters() if "norm" not in name]
    groups = [{"params": others, "initial_lr": 1e-6}, {"params": norms, "initial_lr": 1e-6}]
    optimizer = torch.optim.AdamW(groups, lr=1e-6, weight_decay=0.0, fused=True)

    def step(batch, number, log):
        for group in optimizer.param_groups:
            group["lr"] = 1e-6 * ((5 - number) / 4)
        optimizer.zero_grad()
        chosen, rejected = model(**batch).log_probs.sum(dim=1).chunk(2)
        with torch.no_grad():
            usual = reference(**batch).log_probs.sum(dim=1).chunk(2)
        margin = 0.1 * ((chosen - usual[0]) - (rejected - usual[1]))
        (-torch.nn.functional.logsigmoid(margin).mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return model, optimizer, step
