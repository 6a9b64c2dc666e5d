"""Trains small models as the first argument says, a list of variants in JSON, and prints digests of the weights.

A variant: `profile` (arguments of `counterfoil.torch.deterministic`), `threads`, `compute` (something is computed
before), `mkldnn`, `micro` (pieces of a batch), and options of the optimiser.
"""

import hashlib
import json
import sys

import torch

import counterfoil

STEPS = 20


class Reader(torch.nn.Module):
    """Two layers of a transformer over the eight rows of an image."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Linear(8, 64)
        layer = torch.nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 2)
        self.head = torch.nn.Linear(64, 10)

    def forward(self, images):
        return self.head(self.encoder(self.embed(images)).mean(dim=1))


def perceptron():
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 256), torch.nn.BatchNorm1d(256), torch.nn.ReLU(),
        torch.nn.Dropout(0.1), torch.nn.Linear(256, 10),
    )  # fmt: skip


def convolution():
    return torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, 8)), torch.nn.Conv2d(1, 16, 3), torch.nn.Flatten(), torch.nn.Linear(576, 10)
    )


def sgd(parameters, **options):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, **options)


def digest(build, optimizer, micro=1, **options):
    """Of the state after some steps on random images."""
    torch.manual_seed(0)
    model = build()
    steps = optimizer(model.parameters(), **options)
    for _ in range(STEPS):
        images, labels = torch.randn(64, 8, 8), torch.randint(0, 10, (64,))
        steps.zero_grad()
        for x, y in zip(images.chunk(micro), labels.chunk(micro), strict=True):
            (torch.nn.functional.cross_entropy(model(x), y) / micro).backward()
        steps.step()
    state = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
    return hashlib.sha256(state).hexdigest()


def trained(compute=False, profile=None, threads=None, mkldnn=True, **options):
    if compute:
        torch.ones(3) + torch.ones(3)
    if profile is not None:
        counterfoil.torch.deterministic(**profile)
    if threads is not None:
        torch.set_num_threads(threads)
    if not mkldnn:
        torch.backends.mkldnn.enabled = False
    return {
        "perceptron, SGD": digest(perceptron, sgd, **options),
        "perceptron, AdamW": digest(perceptron, torch.optim.AdamW, **options),
        "transformer, SGD": digest(Reader, sgd, **options),
        "transformer, AdamW": digest(Reader, torch.optim.AdamW, **options),
        "convolution, SGD": digest(convolution, sgd, **options),
    }


if __name__ == "__main__":
    import counterfoil.torch

    print(json.dumps([trained(**variant) for variant in json.loads(sys.argv[1])]))
