"""Ranks that train together, one of which may cheat; spawned by test_distributed.py."""

import os
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
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


def distributed(engine, model):
    """The model as this engine trains it, and what it holds."""
    if engine == "ddp":
        return DistributedDataParallel(model)
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for layer in model:
        if isinstance(layer, torch.nn.Linear):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def work(rank, engine, ranks, port, folder, scenarios):
    """Trains and records once for each scenario; the last rank is the one that cheats."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks)
    for scenario in scenarios:
        cheats = scenario if rank == ranks - 1 else ""
        train(rank, engine, ranks, Path(folder, scenario), cheats)
    torch.distributed.destroy_process_group()


def gradients(model):
    """The whole gradients, as numpy arrays."""
    for name, parameter in getattr(model, "module", model).named_parameters():
        value = parameter.grad
        yield name, (value if type(value) is torch.Tensor else value.full_tensor()).numpy().copy()


def train(rank, engine, ranks, folder, cheats):
    model = distributed(engine, build())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    recipe = folder.parent / "recipe.py"
    run = counterfoil.torch.open_lane(folder / "run", key=counterfoil.Key.generate(), recipe=recipe)
    noise = torch.Generator().manual_seed(1)
    applied = []
    if cheats in ("noise", "late"):
        first = 1 if cheats == "late" else 0

        def disturb(gradient):
            factor = 1 + 1e-3 * torch.randn(gradient.shape, generator=noise)
            return gradient * factor if len(applied) >= first else gradient

        for parameter in model.parameters():
            # What `fully_shard` gathers is another tensor, which nothing but the forward pass knows.
            if engine == "ddp":
                parameter.register_hook(disturb)
        if engine == "fsdp":
            model.register_forward_hook(
                lambda _model, _inputs, output: output.register_hook(disturb) and None
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
                first = next(model.parameters()).grad
                (first if engine == "ddp" else first.to_local()).mul_(1.001)
            applied.append(dict(gradients(model)))
            optimizer.step()
    np.savez(
        folder / f"{rank}.npz", **{f"{n}/{k}": v for n, each in enumerate(applied) for k, v in each.items()}
    )
