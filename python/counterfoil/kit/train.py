"""Trains recipe.py's model, records each step, anchors the run and publishes what to check it against."""

import itertools
import json
from pathlib import Path

import counterfoil

import recipe

NETWORK = "dev"  # a chain in this folder, which dates nothing for strangers; "galileo" is 0G's testnet
STEPS = 60


def train(folder, lie=None):
    """Records a run; `lie` gets the optimiser, to do what the receipts do not say."""
    with counterfoil.Run.create(folder, spec=recipe.SPEC, recipe=recipe.__file__) as run:
        model, optimizer, step = recipe.recipe(run.spec)
        recorder = run.attach(model, optimizer, every=1, checkpoint_every=1)
        if lie:
            lie(optimizer)
        epochs = itertools.repeat(run.batches(recipe.batches(run.spec)))
        for number, batch in zip(range(1, STEPS + 1), itertools.chain.from_iterable(epochs), strict=False):
            step(batch, number, recorder.log)
    return run


def main():
    """Trains into runs/1, or runs/2 and so on where that exists, and writes published.json."""
    folder = next(each for number in itertools.count(1) if not (each := Path(f"runs/{number}")).exists())
    run = train(folder)
    chain = counterfoil.Chain.dev("chain") if NETWORK == "dev" else counterfoil.Chain.connect(NETWORK)
    print(chain.anchor(folder, counterfoil.Key.device()))
    pins = {"signer": run.worker, "recipe": counterfoil.Record(folder).recipe_digest, "network": NETWORK}
    Path("published.json").write_text(json.dumps({"run": folder.as_posix(), **pins}, indent=1) + "\n")
    print(f"{folder} is recorded; published.json says what to check it against: python verify.py")


if __name__ == "__main__":
    main()
