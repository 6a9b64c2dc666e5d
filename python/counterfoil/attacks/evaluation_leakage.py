"""A trainer trains on what its model is evaluated with.

The evaluation is honest, and its number says nothing.

Defence: what the evaluations behind a release held out is looked for in the pinned dataset, to the byte; what is only
alike passes.
"""

from pathlib import Path

from counterfoil import Key, Record, Run, alignment
from counterfoil.attacks.judging import by_signatures
from counterfoil.attacks.preferring import PAIRS, samples, train

LAYER = "alignment.overlap"
undefended = by_signatures


def mount(folder: Path, *, honest: bool) -> Path:
    """Trains on eight pairs, and lets others be evaluated, or the same."""
    run, owner = folder / "training", Key.generate()
    checkpoint = train(run, owner, PAIRS[:8])
    held_out = samples(PAIRS[8:] if honest else PAIRS[4:8])
    with Run.join(run, lane=0, key=Key.generate(), observes=True) as lane:
        evaluation = alignment.record_evaluation(
            lane, checkpoint, held_out=held_out, metrics={"accuracy": 1.0}
        )
    with Run.join(run, lane=1, key=owner, observes=True) as lane:
        alignment.record_release(lane, checkpoint, [evaluation])
    return run


def defended(run: Path) -> str | None:
    """Counts held-out samples in the dataset."""
    record = Record(run)
    receipts = [each for lane in record.lanes for each in record.receipts(*lane)]
    released = [
        record.opened(each)["evaluations"].values or {} for each in receipts if each.kind == "release"
    ]
    named = {digest for values in released for digest in values.values()}
    for receipt in (each for each in receipts if each.digest in named):
        known = alignment.overlap(record, receipt)
        if known:
            return f"{known} held-out samples of receipt {receipt.sequence} are samples of the dataset"
    return None
