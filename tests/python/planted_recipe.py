"""Recipe of the planted changes: small models of scikit-learn's digits, each with one of four optimisers."""

import torch

OPTIMISERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.003),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.003),
}


class Reader(torch.nn.Module):
    """A transformer that reads an image as eight tokens; where each of them stands is a buffer."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Linear(8, 16)
        self.register_buffer("position", torch.sin(torch.arange(1, 129) / 7).reshape(8, 16))
        self.layer = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.head = torch.nn.Linear(16, 10)

    def forward(self, images):
        return self.head(self.layer(self.embed(images) + self.position).mean(dim=1))


def perceptron():
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, 24),
        torch.nn.BatchNorm1d(24),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(24, 10),
    )


def convolution():
    return torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, 8)),
        torch.nn.Conv2d(1, 6, 3),
        torch.nn.BatchNorm2d(6),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(216, 10),
    )


MODELS = {"perceptron": perceptron, "convolution": convolution, "transformer": Reader}


def recipe(spec):
    torch.manual_seed(spec["seed"])
    model = MODELS[spec["model"]]()
    optimizer = OPTIMISERS[spec["optimiser"]](model.parameters())
    rate = optimizer.param_groups[0]["lr"]

    def step(batch, number, log):
        images, labels = batch
        optimizer.param_groups[0]["lr"] = rate * (1 - number / 40)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        log(loss=loss)
        optimizer.step()

    return model, optimizer, step
