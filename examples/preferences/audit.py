"""What an auditor does with the three folders, without the people's keys: from the answers back to the raters.

python audit.py FOLDER OWNER RECIPE
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
from wines import answer, load, tokenizer

from counterfoil import Record, alignment
from counterfoil.errors import ProofError, Refuted
from counterfoil.torch import replay


def fed(training, pairs):
    """Compares the text of every batch with the signed pairs: in TRL's batches the second half is the rejected one."""
    record, words = Record(training), tokenizer()
    chosen = {pair.prompt + pair.chosen for pair in pairs}
    rejected = {pair.prompt + pair.rejected for pair in pairs}
    steps = 0
    for receipt in record.receipts():
        if receipt.kind != "step":
            continue
        batch = record.opened(receipt)["batch"]
        rows = next(entry.shape[0] for entry in batch.entries if entry.name == "input_ids")
        tokens = np.frombuffer(batch.values["input_ids"], "<i8").reshape(rows, -1)
        for row, ids in enumerate(tokens):
            text = words.decode(ids, skip_special_tokens=True)
            side, allowed = ("chosen", chosen) if row < rows // 2 else ("rejected", rejected)
            if text not in allowed:
                where = f"step {receipt.fields['step']}: batch: row {row} <- pairs"
                expected = f"a {side} answer that a rater signed"
                raise ProofError(f"{where}: {text!r}", expected=expected, actual=text, where=where)
        steps += 1
    return steps


def answered(training, weights):
    """Asks the released weights again: the answers that were signed must come out."""
    model, count = load(weights), 0
    for each in alignment.answers(training):
        found = answer(model, each.request)
        if found != each.answer:
            where = f"output {each.receipt.sequence} <- the released weights"
            text = f"{where}: asked again, the released weights say {found!r}, not {each.answer!r}"
            raise ProofError(text, expected=found, actual=str(each.answer), where=where)
        count += 1
    return count


def audit(folder, owner, recipe):
    """Every link, or the first that does not hold as `Refuted` or `ProofError`."""
    training = folder / "training"
    found = alignment.check(training, folder / "preferences", signer=owner)
    verdict = replay(training, "sample:3", signer=owner, recipe=recipe)
    steps = fed(training, [each.pair for each in found if each.pair is not None])
    answers = answered(training, folder / "weights" / "model.safetensors")
    raters = Counter(each.rater for each in found)
    withdrawn = sum(each.withdrawn for each in found)
    print(verdict)
    print(
        f"{len(found)} pairs of {len(raters)} raters, {withdrawn} withdrawn since, are the training run's dataset"
    )
    print(f"every row of its {steps} batches is one of those pairs, the right way round")
    for receipt in (each for lane in Record(training).lanes for each in Record(training).receipts(*lane)):
        if receipt.kind == "evaluation":
            metrics = Record(training).opened(receipt)["metrics"].scalars()
            print(
                f"evaluated by {receipt.fields['worker'][:10]}..: "
                + ", ".join(f"{n} {v:.3g}" for n, v in metrics.items())
            )
    print(f"{answers} answers were given again by the released weights, word for word")
    print("not shown: that the raters are five people, or that they are right; that the evaluators looked at")
    print("nothing else; what a model says that no receipt speaks of")


if __name__ == "__main__":
    try:
        audit(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    except (Refuted, ProofError) as refused:
        print(f"refuted: {refused.where}\n  expected {refused.expected}\n  found    {refused.actual}")
        sys.exit(3)
