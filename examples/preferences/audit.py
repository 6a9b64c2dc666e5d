"""What an auditor does with the three folders, without the people's keys: from the answers back to the raters.

python audit.py FOLDER OWNER RECIPE
"""

import sys
from pathlib import Path

import numpy as np
from wines import answer, load, tokenizer

from counterfoil import Record, alignment
from counterfoil.errors import ProofError, Refuted
from counterfoil.torch import commit_parameters, replay


def receipts_of(record, kind):
    """All receipts of a kind, of every lane."""
    return [each for lane in record.lanes for each in record.receipts(*lane) if each.kind == kind]


def rows_of(pair):
    """The tokens and labels that TRL makes of a pair: the chosen answer's, and the rejected one's."""
    words = tokenizer()
    prompt = len(words(pair.prompt)["input_ids"])
    rows = []
    for text in (pair.chosen, pair.rejected):
        tokens = [*words(pair.prompt + text)["input_ids"], words.eos_token_id]
        rows.append((tuple(tokens), tuple([-100] * prompt + tokens[prompt:])))
    return tuple(rows)


def fed(record, pairs):
    """Compares each batch of each lane with the signed pairs: a chosen answer in the first half, its rejected one behind.

    Returns how many steps and pairs were fed, and how many rows belong to no pair that is still here.
    """
    known = {rows_of(pair): pair for pair in pairs if pair is not None}
    steps, seen, unknown = 0, set(), 0
    for receipt in receipts_of(record, "step"):
        values = record.opened(receipt)["batch"].values
        names = ("input_ids", "labels", "attention_mask")
        # Rows are as long as the mask says.
        rows = next(
            each.shape[0] for each in record.opened(receipt)["batch"].entries if each.name == names[0]
        )
        tokens, labels, mask = (np.frombuffer(values[name], "<i8").reshape(rows, -1) for name in names)
        each = [
            (tuple(ids[seen_by == 1].tolist()), tuple(label[seen_by == 1].tolist()))
            for ids, label, seen_by in zip(tokens, labels, mask, strict=True)
        ]
        for row, pair in enumerate(zip(each[: rows // 2], each[rows // 2 :], strict=True)):
            if pair in known:
                seen.add(known[pair])
            elif None in pairs:
                unknown += 1
            else:
                text = " / ".join(tokenizer().decode(ids, skip_special_tokens=True) for ids, _ in pair)
                where = f"step {receipt.fields['step']}: batch: row {row} <- pairs"
                expected = "a chosen answer and the rejected one of the same pair, that a rater signed"
                raise ProofError(f"{where}: {text!r}", expected=expected, actual=text, where=where)
        steps += 1
    return steps, len(seen), unknown


def released(record, owner):
    """The last release of the owner, and the checkpoint that it gives away."""
    own = [each for each in receipts_of(record, "release") if each.fields["worker"] == owner]
    if not own:
        raise ProofError("the owner released nothing", where="release")
    release, at = own[-1], own[-1].fields
    return release, record.receipts(at["releasedWorker"], at["releasedLane"])[at["releasedSequence"]]


def answered(training, model):
    """Asks the model again: the answers that were signed must come out. Returns how many, and how many are erased."""
    count = erased = 0
    for each in alignment.answers(training):
        if each.request is None or each.answer is None:
            erased += 1
            continue
        found = answer(model, each.request)
        if found != each.answer:
            where = f"output {each.receipt.sequence} <- the released weights"
            text = f"{where}: asked again, they say {found!r}, not {each.answer!r}"
            raise ProofError(text, expected=found, actual=each.answer, where=where)
        count += 1
    return count, erased


def audit(folder, owner, recipe):
    """Every link, or the first that does not hold as `Refuted` or `ProofError`."""
    training, weights = folder / "training", folder / "weights" / "model.safetensors"
    found = alignment.check(training, folder / "preferences", signer=owner)
    verdict = replay(training, "sample:3", signer=owner, recipe=recipe)
    record = Record(training)
    steps, different, unknown = fed(record, [each.pair for each in found])
    release, checkpoint = released(record, owner)
    model = load(weights)
    ours, theirs = commit_parameters(model), record.opened(checkpoint)["parameters"].commitment
    if ours.root != theirs.root:
        where = f"{weights.name} <- the released checkpoint"
        raise ProofError(where, expected="0x" + theirs.root.hex(), actual="0x" + ours.root.hex(), where=where)
    answers, erased = answered(training, model)
    print(verdict)
    raters, withdrawn = {each.rater for each in found}, sum(each.withdrawn for each in found)
    print(
        f"{len(found)} pairs of {len(raters)} raters, {withdrawn} withdrawn since, are the training run's dataset"
    )
    print(
        f"{steps} steps were fed {different} of them, each the right way round ({unknown} rows are of erased ones)"
    )
    named = record.opened(release)["evaluations"].values
    for receipt in receipts_of(record, "evaluation"):
        if receipt.digest in named.values():
            metrics = record.opened(receipt)["metrics"].scalars()
            told = ", ".join(f"{name} {value:.3g}" for name, value in metrics.items())
            known = alignment.overlap(record, receipt)
            print(
                f"evaluated by {receipt.fields['worker'][:10]}..: {told}; {known} of the samples were trained on"
            )
    print(f"{answers} answers were given again by the released weights, word for word ({erased} were erased)")
    print("not shown: that the raters are five people, or that they are right; that the evaluators looked at")
    print("nothing else; what a model says that no receipt speaks of")


def refusal(refused):
    """Where, expected and found; what comes from evidence must not steer a terminal."""
    told = [str(each) for each in (refused.where, refused.expected, refused.actual)]
    where, expected, actual = (each if each.isprintable() else ascii(each) for each in told)
    return f"refuted: {where}\n    expected {expected}\n    found    {actual}"


if __name__ == "__main__":
    try:
        audit(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    except (Refuted, ProofError) as refused:
        print(refusal(refused))
        sys.exit(3)
