"""Ranks under torchrun, one of which is killed; run by test_elastic.py.

python elastic.py FOLDER ENGINE KILL_AFTER [--own-folders]
"""

import os
import signal
import sys
from pathlib import Path

import torch

import counterfoil.torch
from ranks import RECIPE, build, distributed, shard

STEPS = 6  # two epochs
ADAM = RECIPE.replace("SGD(model.parameters(), lr=0.1, momentum=0.9)", "AdamW(model.parameters(), lr=0.01)")


def main(folder, engine, kill_after, *options):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    is_first_life = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    model = distributed(engine, build())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    place = folder / f"machine{rank}" if "--own-folders" in options else folder / "run"
    # Each life signs with a key of its own, which the worker's key allows.
    session = counterfoil.Session(counterfoil.Key.generate())
    with counterfoil.torch.open_lane(place, session=session, recipe=folder / "recipe.py") as run:
        run.attach(model, optimizer, every=1, checkpoint_every=2, restore=True)
        while run.step < STEPS:
            for images, digits in run.batches(shard(rank, ranks)):
                if run.step == kill_after and rank == ranks - 1 and is_first_life:
                    run.flush()
                    os.kill(os.getpid(), signal.SIGKILL)
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(images), digits).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
