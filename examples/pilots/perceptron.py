"""Recipe of the pilots: a perceptron of one hidden layer and one output."""

import torch


def recipe(spec):
    torch.manual_seed(spec["seed"])
    model = torch.nn.Sequential(
        torch.nn.Linear(len(spec["features"]), spec["hidden"]),
        torch.nn.ReLU(),
        torch.nn.Linear(spec["hidden"], 1),
        torch.nn.Flatten(0),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec["learning_rate"])
    criterion = getattr(torch.nn.functional, spec["loss"])

    def step(batch, number, log):
        features, target = batch
        optimizer.zero_grad()
        loss = criterion(model(features), target)
        loss.backward()
        log(loss=loss)
        optimizer.step()

    return model, optimizer, step
