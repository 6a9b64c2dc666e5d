"""Somebody who sees receipts finds a private value, such as a loss or a sample, by hashing every candidate.

Defence: private fields are blinded with a secret of the lane, so that there is nothing to compare a candidate with.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from counterfoil import Opening, Record, Run, commit_tensors
from counterfoil.attacks.judging import judged

LAYER = "Run.record_step"
_LOSS = 0.37
_CANDIDATES = [number / 100 for number in range(100)]


@dataclass(frozen=True)
class Seen:
    """A step's metrics as they stand in the receipt of a run that publishes them, and of one that does not.

    Attributes:
        public: The digest in the first run.
        private: In the second one.
        opening: What the owner gave away of the second, with its blind; None for a stranger.
    """

    public: bytes
    private: bytes
    opening: tuple[Opening, bytes] | None


def mount(folder: Path, *, honest: bool) -> Seen:
    """Records a loss of two digits in two runs, and shows both receipts to a stranger or an auditor."""
    for name, fields in (("public", ["step.metrics"]), ("private", [])):
        with Run.create(folder / name, public=fields) as run:
            run.record_step(1, {"metrics": commit_tensors({"loss": _LOSS}, keep=True)})
    public, private = (Record(folder / name) for name in ("public", "private"))
    opened = private.opened(private.receipts()[-2])["metrics"]
    opening = (opened.prove("loss"), opened.blind) if honest else None
    return Seen(_metrics(public), _metrics(private), opening)


def undefended(case: Seen) -> str | None:
    """Tries every candidate on a digest that is not blinded."""
    return _search(case.public)


def defended(case: Seen) -> str | None:
    """Tries every candidate on a blinded digest, or opens it with what its owner gave."""
    if case.opening is None:
        return _search(case.private)
    opening, blind = case.opening
    return judged(lambda: opening.verify(case.private, blind))


def _search(digest: bytes) -> str | None:
    found = [loss for loss in _CANDIDATES if commit_tensors({"loss": loss}).digest() == digest]
    return None if found else f"none of {len(_CANDIDATES)} candidates has this digest"


def _metrics(record: Record) -> bytes:
    (step,) = (receipt for receipt in record.receipts() if receipt.kind == "step")
    return bytes(step.fields["metrics"])
