"""The owner of a dataset turns a tenth of its labels before pinning it, and trains on it as signed.

Defence: none. The dataset's root, the batches and every step are what they say.

Not caught: evidence shows what a model was trained on, and never whether that is right.
"""

from pathlib import Path

import torch

from counterfoil.attacks.judging import by_replay, by_signatures
from counterfoil.attacks.training import train
from counterfoil.torch import commit_dataset
from counterfoil.torch.demo import digits

LAYER = "none"
undefended, defended = by_signatures, by_replay


def mount(folder: Path, *, honest: bool) -> Path:
    """Records a training on digits of which every tenth is called another one."""
    images, labels = digits().tensors
    if not honest:
        labels = labels.clone()
        labels[::10] = 9 - labels[::10]
    data = torch.utils.data.TensorDataset(images, labels)
    loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True, drop_last=True)
    return train(folder, loader=loader, dataset=commit_dataset(list(zip(images, labels, strict=True))))
