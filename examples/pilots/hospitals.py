"""Healthcare: three hospitals train one model in turn; patients' records stay where they are.

pip install counterfoil[pilots] && python examples/pilots/hospitals.py

Each hospital has a key and a run of its own, begins with the weights that the one before left, and commits to its patients
one by one under random bytes of its own. What leaves it is a bundle without batches: weights, settings, measurements.

Data: `breast_cancer` of scikit-learn, which is Wisconsin Diagnostic Breast Cancer by W.H. Wolberg, W.N. Street and O.L.
Mangasarian (1995), UCI Machine Learning Repository, CC BY 4.0: 569 tumours, here dealt to three hospitals.
"""

import torch
from sklearn.datasets import load_breast_cancer

import counterfoil
from counterfoil import alignment
from counterfoil.review import review, table
from counterfoil.torch import replay
from shared import calibration_error, fresh, standardised, train

HOSPITALS = ("north", "centre", "south")
LEAVES = ["parameters", "hyperparameters", "environment", "extensions", "metrics"]
MEASURED = ["heldOut", "evaluations"]
"""What a bundle opens, and what that of the last hospital opens beside it: no batch, no gradient."""
BRIEF = ("trained by", "trained when", "data size", "data commitment", "steps", "model weights")
"""What is printed of the first two hospitals; of the last one all is."""


def load():
    """Features, and whether a tumour is malignant, of each hospital: patients to train with, and held-out ones."""
    loaded = load_breast_cancer()
    features = torch.tensor(loaded.data, dtype=torch.float32)
    malignant = torch.tensor(loaded.target == 0, dtype=torch.float32)
    dealt = torch.randperm(len(malignant), generator=torch.Generator().manual_seed(0))
    parts = {}
    for name, chosen in zip(HOSPITALS, dealt.chunk(len(HOSPITALS)), strict=True):
        held_out = torch.arange(len(chosen)) % 4 == 0
        parts[name] = {
            "train": (features[chosen[~held_out]], malignant[chosen[~held_out]]),
            "test": (features[chosen[held_out]], malignant[chosen[held_out]]),
        }
    # The scale is agreed upon beforehand, as the first hospital knows it.
    reference = parts[HOSPITALS[0]]["train"][0]
    for part in parts.values():
        for which, (measured, outcome) in part.items():
            part[which] = (standardised(measured, reference), outcome)
    return list(loaded.feature_names), parts


def records(patients):
    """Each patient as bytes, to be salted and committed to."""
    return [row.numpy().tobytes() + outcome.numpy().tobytes() for row, outcome in zip(*patients, strict=True)]


def visit(path, name, key, part, state, spec):
    """One hospital trains, at home; returns the weights that it passes on, and salted commitments to its patients."""
    lists = {}

    def commit(run, model):
        if state is not None:
            model.load_state_dict(state)
        lists.update({which: run.commit_records(records(patients)) for which, patients in part.items()})
        run.record_checkpoint(0, {"extensions": lists["train"]})

    told = f"patients of hospital {name}; here a third of scikit-learn's breast_cancer"
    data = torch.utils.data.TensorDataset(*part["train"])
    model = train(path, data, spec | {"data": told, "begins": root_of(state)}, before=commit, key=key)
    return model, lists


def root_of(state):
    """The root of the weights with which a hospital begins."""
    return (
        "as the recipe makes them" if state is None else "0x" + counterfoil.commit_tensors(state).root.hex()
    )


def measure(model, features, malignant):
    """What a hospital finds on its own held-out patients."""
    with torch.no_grad():
        probabilities = model(features).sigmoid()
    found = probabilities > 0.5
    return {
        "accuracy": (found == malignant.bool()).float().mean().item(),
        "malignant found": found[malignant.bool()].float().mean().item(),
        "calibration error": calibration_error(probabilities, malignant),
    }


def begins_and_ends(record):
    """Roots of the first and the last weights that a run opens."""
    opened = [
        record.opened(receipt).get("parameters")
        for receipt in record.receipts()
        if receipt.kind == "checkpoint"
    ]
    roots = ["0x" + each.commitment.root.hex() for each in opened if each is not None and each.entries]
    return roots[0], roots[-1]


def main():
    names, parts = load()
    spec = {
        "seed": 1, "features": names, "hidden": 16, "loss": "binary_cross_entropy_with_logits",
        "learning_rate": 5e-3, "batch": 16, "epochs": 4,
    }  # fmt: skip
    keys = {name: counterfoil.Key.generate() for name in HOSPITALS}
    auditor = counterfoil.Key.generate()
    folder, state, lists = fresh("hospitals"), None, {}
    for name in HOSPITALS:
        model, lists[name] = visit(folder / name, name, keys[name], parts[name], state, spec)
        state = {tensor: value.detach().clone() for tensor, value in model.named_parameters()}

    last = folder / HOSPITALS[-1]
    checkpoint = [each for each in counterfoil.Record(last).receipts() if each.kind == "checkpoint"][-1]
    print("Each hospital measures the model on its own held-out patients, and signs it")
    evaluations = []
    for number, name in enumerate(HOSPITALS):
        metrics = measure(model, *parts[name]["test"])
        print(f"  {name:<7}", ", ".join(f"{what} {value:.3f}" for what, value in metrics.items()))
        with counterfoil.Run.join(last, lane=1 + number, key=keys[name], observes=True) as lane:
            held_out = lists[name]["test"]
            evaluations.append(
                alignment.record_evaluation(lane, checkpoint, held_out=held_out, metrics=metrics)
            )
    with counterfoil.Run.join(last, lane=9, key=keys[HOSPITALS[-1]], observes=True) as lane:
        alignment.record_release(lane, checkpoint, evaluations)

    ends = None
    for name in HOSPITALS:
        # At home, where the batches are: an auditor comes, executes five steps again and signs what came of them.
        recipe = counterfoil.Record(folder / name).recipe_digest
        home = replay(folder / name, "sample:5", recipe=recipe, signer=keys[name].address, attest=auditor)
        print(f"\nat {name}: {home.transition}")
        bundle = folder / f"{name}.counterfoil"
        opens = LEAVES + (MEASURED if name == HOSPITALS[-1] else [])
        counterfoil.export(folder / name, bundle, key=keys[name], tensors=opens)

        # Elsewhere, with the bundle alone: a reviewer.
        record = counterfoil.Record(bundle)
        verdict = counterfoil.verify(record, signer=keys[name].address, recipe=recipe)
        assert verdict.status == "verified", verdict
        first, then = begins_and_ends(record)
        assert ends is None or record.spec["begins"] == first == ends
        ends = then
        print(verdict)
        facts = review(record, verdict)
        if name != HOSPITALS[-1]:
            facts = [fact for fact in facts if fact.name in BRIEF]
        print(table(facts))

    # One patient's record is shown to the reviewer: by its hospital, and without another one.
    patient = counterfoil.read_records(folder / "north", lists["north"]["train"].root)[7]
    north = counterfoil.Record(folder / "north.counterfoil")
    listed = next(north.opened(each)["extensions"] for each in north.receipts() if each.kind == "checkpoint")
    assert listed.values["7"] == patient.digest
    print("\npatient 7 of north is in the committed list; the hospital showed this record, and no other")
    print("the weights went from hand to hand: each hospital began with what the one before signed last")
    print("not shown: that batches are made of the listed patients, and what the weights tell about them")


if __name__ == "__main__":
    main()
