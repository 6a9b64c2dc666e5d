"""Small runs of the demo's recipes, as replays need them."""

import torch
from torch.utils.data import DataLoader, TensorDataset

import counterfoil
from counterfoil.torch.demo import mlp

MLP = {"seed": 1, "hidden": 8, "learning_rate": 0.05}
TRANSFORMER = {"seed": 1, "width": 8, "layers": 1, "learning_rate": 0.003, "warm_up": 4}
STEPS = 7


def data():
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(40, 8, 8, generator=generator)
    return TensorDataset(images, torch.randint(0, 10, (40,), generator=generator))


def record(path, module=mlp, spec=None, *, recipe=None, lie=None, every=1, steps=STEPS, told=1, **options):
    """Trains with a recipe's own step function, `lie(optimizer)` before the first step; the loss is told times `told`."""
    spec = spec or MLP
    with counterfoil.Run.create(path, spec=spec, recipe=recipe or module.__file__) as run:
        model, optimizer, step = module.recipe(spec)
        recorder = run.attach(model, optimizer, **{"every": every, "checkpoint_every": 3} | options)
        if lie is not None:
            lie(optimizer)
        number = 0
        while number < steps:
            for batch in run.batches(DataLoader(data(), batch_size=8, shuffle=True)):
                number += 1
                step(batch, number, lambda **logged: recorder.log(loss=logged["loss"] * told))
                if number == steps:
                    break
    return run.path
