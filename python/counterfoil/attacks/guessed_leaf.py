"""Somebody who sees receipts finds a private value, such as a loss or a sample, by hashing every candidate.

Defence: private fields are blinded with a secret of the lane, which no receipt shows. The same search, with all that a
reader has in hand as blind, as key or as that secret, finds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import counterfoil
from counterfoil import Opening, Receipt, Record, Run, commit_tensors
from counterfoil.attacks.judging import judged
from counterfoil.testing import blinds

LAYER = "Run.record_step"
_LOSS = 0.37
_CANDIDATES = [number / 100 for number in range(100)]


@dataclass(frozen=True)
class Seen:
    """What a reader has of two runs, of which the first publishes its metrics; neither bundle opens anything.

    Attributes:
        public: The receipts of the first run.
        private: Of the second one.
        opening: What the owner gave away of the second, with its blind; None for a stranger.
    """

    public: Sequence[Receipt]
    private: Sequence[Receipt]
    opening: tuple[Opening, bytes] | None


def mount(folder: Path, *, honest: bool) -> Seen:
    """Records a loss of two digits in two runs, and shows both in bundles to a stranger or an auditor."""
    seen = []
    for name, fields in (("public", ["step.metrics"]), ("private", [])):
        with Run.create(folder / name, public=fields) as run:
            run.record_step(1, {"metrics": commit_tensors({"loss": _LOSS}, keep=True)})
        counterfoil.export(folder / name, folder / f"{name}.counterfoil", tensors={})
        seen.append(Record(folder / f"{name}.counterfoil").receipts())
    public, private = seen
    owned = Record(folder / "private")
    opened = owned.opened(step_of(owned.receipts()))["metrics"]
    return Seen(public, private, (opened.prove("loss"), opened.blind) if honest else None)


def undefended(case: Seen) -> str | None:
    """Searches a run that does not blind its metrics."""
    return search(case.public, words(case.public))


def defended(case: Seen) -> str | None:
    """Searches a run that does, or opens it with what its owner gave."""
    if case.opening is None:
        return search(case.private, words(case.private))
    opening, blind = case.opening
    return judged(lambda: opening.verify(step_of(case.private).fields["metrics"], blind))


def words(receipts: Sequence[Receipt]) -> list[bytes]:
    """All words of receipts that could be mistaken for a blind, a key or a secret, and zero."""
    values = [value for receipt in receipts for value in receipt.fields.values()]
    return sorted({bytes(32), *(value for value in values if isinstance(value, bytes))})


def search(receipts: Sequence[Receipt], known: Sequence[bytes]) -> str | None:
    """Hashes each candidate with each form that the known words give; None when one is the step's metrics."""
    step = step_of(receipts)
    forms = list(_forms(step, known))
    for loss in _CANDIDATES:
        value = commit_tensors({"loss": loss})
        if any(blinds.digest(value, blind, key) == step.fields["metrics"] for blind, key in forms):
            return None
    return f"none of {len(_CANDIDATES)} candidates in {len(forms)} forms has this digest"


def step_of(receipts: Sequence[Receipt]) -> Receipt:
    """The receipt of the only step."""
    (step,) = (receipt for receipt in receipts if receipt.kind == "step")
    return step


def _forms(step: Receipt, known: Sequence[bytes]) -> Iterator[tuple[bytes, bytes | None]]:
    for word in known:
        yield word, None
        yield word, word
        yield bytes(32), word
        yield blinds.derived(step, "metrics", word)
