"""Logistic regression on breast_cancer: 455 samples in equal parts, and 114 that no client has."""

import numpy as np
from flwr.serverapp import strategy
from sklearn.datasets import load_breast_cancer

ROBUST = {
    "FedTrimmedAvg": {"beta": 0.34},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 2},
}


def load(part=None, parts=3):
    """The samples of one client, or those of the server's test."""
    features, labels = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(0)) / features.std(0)
    shuffled = np.random.default_rng(0).permutation(len(labels))
    chosen = shuffled[:114] if part is None else np.array_split(shuffled[114:], parts)[part]
    return features[chosen].astype(np.float32), labels[chosen].astype(np.float32)


def initial():
    return {"weight": np.zeros(30, np.float32), "bias": np.zeros((), np.float32)}


def train(model, features, labels, epochs=20, rate=0.5):
    """The model after some steps of gradient descent, and its loss."""
    weight, bias = model["weight"], model["bias"]
    for _ in range(epochs):
        error = 1 / (1 + np.exp(-(features @ weight + bias))) - labels
        weight, bias = weight - rate * (features.T @ error) / len(labels), bias - rate * error.mean()
    scores = features @ weight + bias
    loss = float(np.mean(np.logaddexp(0, scores) - labels * scores))
    return {"weight": weight, "bias": np.asarray(bias, np.float32)}, loss


def accuracy(model, features, labels):
    return float(np.mean((features @ model["weight"] + model["bias"] > 0) == labels))


def make_strategy(name):
    """A strategy of Flower by its name, for three clients."""
    options = {"fraction_evaluate": 0.0, "min_train_nodes": 3, "min_available_nodes": 3}
    return getattr(strategy, name)(**options, **ROBUST.get(name, {}))
