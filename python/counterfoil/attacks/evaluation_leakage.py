"""A trainer trains on what its model is evaluated with.

The evaluation is honest, and its number says nothing.

Defence: the samples that were held out are looked for in the pinned dataset, to the byte; what is only alike passes.
"""

from pathlib import Path

from counterfoil import Key, Record, Run, alignment
from counterfoil.attacks.judging import by_signatures
from counterfoil.attacks.preferring import PAIRS, samples, train

LAYER = "alignment.overlap"
undefended = by_signatures


def mount(folder: Path, *, honest: bool) -> Path:
    """Trains on eight pairs, and lets others be evaluated, or the same."""
    run = folder / "training"
    checkpoint = train(run, Key.generate(), PAIRS[:8])
    held_out = PAIRS[8:] if honest else PAIRS[4:8]
    with Run.join(run, lane=0, key=Key.generate(), observes=True) as lane:
        alignment.record_evaluation(lane, checkpoint, held_out=samples(held_out), metrics={"accuracy": 1.0})
    return run


def defended(run: Path) -> str | None:
    """Counts held-out samples in the dataset."""
    record = Record(run)
    for receipt in (each for lane in record.lanes for each in record.receipts(*lane)):
        if receipt.kind == "evaluation":
            known = alignment.overlap(record, receipt)
            if known:
                return f"{known} held-out samples of receipt {receipt.sequence} are samples of the dataset"
    return None
