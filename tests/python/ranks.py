"""Ranks that train together, one of which may cheat; spawned by test_distributed.py."""

import os
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn.parallel import DistributedDataParallel

import counterfoil.torch

STEPS = 3
RECIPE = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 20), torch.nn.Tanh(), torch.nn.Linear(20, 10))

def recipe(spec):
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(batch, number, log):
        images, digits = batch
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), digits).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()

    return model, optimizer, step
"""


def build():
    scope = {}
    exec(RECIPE, scope)
    return scope["build"]()


def shard(rank, ranks):
    """The batches of one rank: real digits, another part for each."""
    images, digits = load_digits(return_X_y=True)
    images, digits = images[rank::ranks] / 16, digits[rank::ranks]
    parts = [slice(16 * step, 16 * (step + 1)) for step in range(STEPS)]
    return [(torch.tensor(images[at], dtype=torch.float32), torch.tensor(digits[at])) for at in parts]


def work(rank, ranks, port, folder, scenarios):
    """Trains and records once for each scenario; the last rank is the one that cheats."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks)
    for scenario in scenarios:
        cheats = scenario if rank == ranks - 1 else ""
        train(rank, ranks, Path(folder, scenario), cheats)
    torch.distributed.destroy_process_group()


def train(rank, ranks, folder, cheats):
    model = DistributedDataParallel(build())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    recipe = folder.parent / "recipe.py"
    run = counterfoil.torch.open_lane(folder / "run", key=counterfoil.Key.generate(), recipe=recipe)
    noise = torch.Generator().manual_seed(1)
    applied = []
    if cheats in ("noise", "late"):
        first = 1 if cheats == "late" else 0
        for parameter in model.parameters():
            parameter.register_hook(
                lambda g: (
                    g * (1 + 1e-3 * torch.randn(g.shape, generator=noise)) if len(applied) >= first else g
                )
            )
    with run:
        run.attach(model, optimizer, every=1, checkpoint_every=1)
        for images, digits in run.batches(shard(rank, ranks)):
            optimizer.zero_grad()
            if cheats == "drop":
                images, digits = images[:-1], digits[:-1]
            torch.nn.functional.cross_entropy(model(images), digits).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            if cheats == "alone" and len(applied) == 1:
                model.module[0].weight.grad.mul_(1.001)
            applied.append({name: p.grad.numpy().copy() for name, p in model.module.named_parameters()})
            optimizer.step()
    np.savez(
        folder / f"{rank}.npz", **{f"{n}/{k}": v for n, each in enumerate(applied) for k, v in each.items()}
    )
