"""From preferences to answers, and six lies about them.

pip install counterfoil[torch,interop] trl scikit-learn
python examples/preferences
"""

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from audit import audit, receipts_of
from safetensors.torch import load_file, save_file
from story import load, make, release, train

from counterfoil import Record, Run, alignment
from counterfoil.errors import ProofError, Refuted
from counterfoil.run import place
from counterfoil.torch import commit_parameters


def lists(folder, kind, field):
    """The files of the lists that receipts of this kind sign."""
    record = Record(folder)
    roots = [record.opened(each)[field].commitment.root for each in receipts_of(record, kind)]
    return [folder / "records" / root.hex() for root in roots]


def edit(path, line, change):
    lines = path.read_text().splitlines()
    salt, content = lines[line].split()
    lines[line] = f"{salt} {change(bytes.fromhex(content)).hex()}"
    path.write_text("\n".join(lines) + "\n")


def flip(record):
    pair = json.loads(record)
    pair["chosen"], pair["rejected"] = pair["rejected"], pair["chosen"]
    return json.dumps(pair, sort_keys=True, separators=(",", ":")).encode()


def flipped_record(folder, owner):
    """Whoever keeps the raters' records flips one of those that were collected."""
    edit(
        max(lists(folder / "preferences", "preference-set", "pairs"), key=lambda path: path.stat().st_size),
        17,
        flip,
    )


def with_a_flipped_pair(folder):
    """Everything that `train` takes but the owner, and the pairs with number 17 flipped."""
    preferences = folder / "preferences"
    collection = bytes.fromhex(Record(folder / "training").spec["preferences"]["receipt"][2:])
    pairs = [each.pair for each in alignment.collected(preferences, collection)]
    pairs[17] = replace(pairs[17], chosen=pairs[17].rejected, rejected=pairs[17].chosen)
    shutil.rmtree(folder / "training")
    return (preferences, collection), pairs


def flipped_sample(folder, owner):
    """The trainer flips one pair in the dataset, and signs everything anew."""
    named, pairs = with_a_flipped_pair(folder)
    train(folder / "training", owner, *named, pairs=pairs)


def flipped_batch(folder, owner):
    """The trainer names the honest dataset, and trains on another one in which a pair is flipped."""
    named, pairs = with_a_flipped_pair(folder)
    train(folder / "training", owner, *named, fed=pairs)


def changed_weight(folder, owner):
    """The owner releases one model and serves another, of which one weight differs."""
    training = folder / "training"
    again = release_again(folder, owner)
    model = load(folder / "weights" / "model.safetensors")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] += 0.5
    with Run.join(training, lane=4, key=owner, observes=True) as lane:
        # `alignment.record_output` compares what was loaded before it signs.
        fields = {
            "parameters": commit_parameters(model),
            "exchange": lane.commit_records(["asked", "answered"]),
        }
        lane.record("output", place("release", again), fields)


def release_again(folder, owner):
    training = folder / "training"
    return release(training, owner, receipts_of(Record(training), "evaluation"), lane=3)


def other_weights(folder, owner):
    """The owner signs the released weights, answers with others, and hands those over."""
    path = folder / "weights" / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors["lm_head.weight"].flip(0).contiguous()
    save_file(tensors, path)


def edited_answer(folder, owner):
    """Somebody edits an answer in the log."""
    edit(lists(folder / "training", "output", "exchange")[6], 1, lambda _: b"cultivar D")


LIES = (flipped_record, flipped_sample, flipped_batch, changed_weight, other_weights, edited_answer)


def main():
    with tempfile.TemporaryDirectory() as scratch:
        honest = Path(scratch, "honest")
        owner, recipe = make(honest)
        audit(honest, owner.address, recipe)
        passed = []
        for lie in LIES:
            folder = Path(scratch, lie.__name__)
            shutil.copytree(honest, folder)
            lie(folder, owner)
            print(f"\n{lie.__doc__}")
            try:
                audit(folder, owner.address, recipe)
                passed.append(lie.__name__)
            except (Refuted, ProofError) as refused:
                print(
                    f"  refuted: {refused.where}\n    expected {refused.expected}\n    found    {refused.actual}"
                )
        if passed:
            sys.exit(f"not noticed: {', '.join(passed)}")


if __name__ == "__main__":
    main()
