"""Processes that hold parts of one model; spawned by test_sharded.py."""

import os
from pathlib import Path

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

import counterfoil.torch


def build():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.LayerNorm(33), torch.nn.Linear(33, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10)
    )
    # A weight that two layers share, and rows that no number of processes divides.
    model.append(torch.nn.Linear(10, 10, bias=False))
    model.append(torch.nn.Linear(10, 10, bias=False))
    model[5].weight = model[4].weight
    return model


def divided(layout, model):
    """The model as these processes hold it."""
    if layout == "columns":
        mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
        rows = ColwiseParallel(input_layouts=Shard(1))
        return parallelize_module(model, mesh, {"0": SequenceParallel(), "1": rows, "3": RowwiseParallel()})
    if layout == "replicas":
        return fully_shard(model, mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("rows", "columns"))
    parallelize_module(model, mesh["columns"], {"1": ColwiseParallel(), "3": RowwiseParallel()})
    return fully_shard(model, mesh=mesh["rows"])


def whole(value):
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def work(rank, layout, ranks, port, folder):
    """Records two steps, and saves what the optimiser had when they ended."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks)
    model = divided(layout, build())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with torch.no_grad():
        model(torch.ones(8, 6, 33))  # leaves the parameters of `fully_shard` gathered
    with counterfoil.torch.open_lane(folder / "run", key=counterfoil.Key.generate()) as run:
        run.attach(model, optimizer, every=1, checkpoint_every=1)
        for step in range(2):
            # Processes that divide a tensor among them compute with one batch.
            torch.manual_seed(step if layout == "columns" else 100 * (rank // 2) + step)
            images = torch.randn(8, 6, 33)
            with torch.no_grad():
                model(images)
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
    held = {
        "gradients": {name: whole(value.grad).clone() for name, value in model.named_parameters()},
        "parameters": {name: whole(value.detach()).clone() for name, value in model.named_parameters()},
    }
    if rank == 0:
        torch.save(held, Path(folder, "held.pt"))
    torch.distributed.destroy_process_group()
    # A thread of torch's that still ends when the process does would abort it ("terminate called without an active
    # exception", seen once on a busy machine): what is tested is on the disk.
    os._exit(0)
