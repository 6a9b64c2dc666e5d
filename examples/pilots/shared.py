"""What the pilots have in common: a recorded training, and what is shown to a reviewer."""

import tempfile
from pathlib import Path

import torch

import counterfoil
import perceptron
from counterfoil import alignment
from counterfoil.review import review, table
from counterfoil.torch import commit_dataset, replay


def fresh(name):
    """A folder that is not there yet, below `runs`."""
    Path("runs").mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir="runs"))


def standardised(features, reference):
    """Features by the mean and the deviation of the reference, which is the training part alone."""
    return (features - reference.mean(0)) / reference.std(0).clamp(min=1e-6)


def train(path, data, spec, *, before=None, **options):
    """Records a training of the recipe's model on all of `data`; returns the model.

    `before(run, model)` is called ahead of the first step; `options` are those of `Run.create`.
    """
    with counterfoil.Run.create(path, spec=spec, recipe=perceptron.__file__, **options) as run:
        model, optimizer, step = perceptron.recipe(run.spec)
        if before is not None:
            before(run, model)
        recorder = run.attach(model, optimizer, checkpoint_every=50)
        loader = torch.utils.data.DataLoader(data, batch_size=spec["batch"], shuffle=True)
        epochs = (batch for _ in range(spec["epochs"]) for batch in run.batches(loader))
        for number, batch in enumerate(epochs, 1):
            step(batch, number, recorder.log)
    return model.eval()


def release(path, held_out, metrics, owner, evaluator):
    """The evaluator signs what was measured of the last checkpoint, and the owner releases it after that."""
    checkpoint = [each for each in counterfoil.Record(path).receipts() if each.kind == "checkpoint"][-1]
    with counterfoil.Run.join(path, lane=0, key=evaluator, observes=True) as lane:
        evaluation = alignment.record_evaluation(
            lane, checkpoint, held_out=commit_dataset(held_out), metrics=metrics
        )
    with counterfoil.Run.join(path, lane=1, key=owner, observes=True) as lane:
        alignment.record_release(lane, checkpoint, [evaluation])


def show(path, signer, title):
    """Verifies with pins, executes five steps again, and prints what a reviewer asks."""
    # A reviewer reads the recipe and learns both pins from the owner by another way than the folder.
    digest = counterfoil.Record(path).recipe_digest
    verdict = replay(path, "sample:5", recipe=digest, signer=signer)
    assert verdict.status == "verified", verdict
    print(f"\n{title}\n{verdict}\n")
    print(table(review(path, verdict)))


def calibration_error(probabilities, outcomes, bins=5):
    """How far stated probabilities are from what happened, over bins of equal size: expected calibration error."""
    order = probabilities.argsort()
    pieces = zip(probabilities[order].chunk(bins), outcomes[order].chunk(bins), strict=True)
    gaps = [(stated.mean() - happened.mean()).abs() * len(stated) for stated, happened in pieces]
    return (sum(gaps) / len(outcomes)).item()
