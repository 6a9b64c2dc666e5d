"""Recipe: the model, and one step of direct preference optimisation as TRL's `DPOTrainer` takes it.

The reference model is the one that training begins with, made again from the seed.
"""

import copy

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head


def build(vocabulary):
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **shape))


def recipe(spec):
    model = build(spec["vocabulary"])
    reference = copy.deepcopy(model)
    for each in (model, reference):
        add_fused_lm_head(each)
    norms = [parameter for name, parameter in model.named_parameters() if "norm" in name]
    others = [parameter for name, parameter in model.named_parameters() if "norm" not in name]
    groups = [{"params": each, "initial_lr": spec["rate"]} for each in (others, norms)]
    optimizer = torch.optim.AdamW(groups, lr=spec["rate"], weight_decay=0.0, fused=True)

    def step(batch, number, log):
        optimizer.zero_grad()
        chosen, rejected = model(**batch).log_probs.sum(dim=1).chunk(2)
        with torch.no_grad():
            usual = reference(**batch).log_probs.sum(dim=1).chunk(2)
        margin = 0.1 * ((chosen - usual[0]) - (rejected - usual[1]))
        (-torch.nn.functional.logsigmoid(margin).mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return model, optimizer, step
