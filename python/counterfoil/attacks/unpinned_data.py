"""A trainer pins one dataset in the first receipt and trains on another one, in which each fiftieth sample is different.

The places that its receipts list are those of the pinned samples, the batches are the others': executing the steps
again with these batches shows nothing.

Defence: every row of each batch is looked up by its content; `uses` must find it at that step.
"""

from pathlib import Path

import torch

import counterfoil
from counterfoil.attacks.judging import by_replay
from counterfoil.attacks.shown import tensors
from counterfoil.attacks.training import train
from counterfoil.torch import commit_dataset, sample_digest
from counterfoil.torch.collect import unflatten
from counterfoil.torch.demo import digits

LAYER = "uses"
undefended = by_replay


def mount(folder: Path, *, honest: bool) -> Path:
    """Records a training on digits of which some are mirrored, as one on the digits."""
    images, labels = digits().tensors
    shown = images.clone()
    if not honest:
        shown[::50] = shown[::50].flip(2)
    fed = torch.utils.data.TensorDataset(shown, labels)
    loader = torch.utils.data.DataLoader(fed, batch_size=32, shuffle=True, drop_last=True)
    return train(folder, loader=loader, dataset=commit_dataset(list(zip(images, labels, strict=True))))


def defended(path: Path) -> str | None:
    """Looks up each row of each step's batch in the pinned dataset."""
    record = counterfoil.Record(path)
    for receipt in record.receipts():
        if receipt.kind != "step":
            continue
        batch, step = tensors(record, record.opened(receipt)["batch"]), receipt.fields["step"]
        for at in range(len(next(iter(batch.values())))):
            row = unflatten({name: each[at] for name, each in batch.items()})
            used = counterfoil.uses(record, sample_digest(row))
            if step not in [number for _, _, number in used.steps]:
                return f"step {step}: its batch holds a sample, row {at}, that is not among those it lists"
    return None
