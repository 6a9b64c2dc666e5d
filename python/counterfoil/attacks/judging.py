"""How attacks are judged: by a verdict, by another call that refuses, or as a tool without the defence would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import counterfoil
from counterfoil import _native
from counterfoil.attacks.ledgers import Dated
from counterfoil.errors import CounterfoilError, ProofError, Refuted
from counterfoil.torch import calibrate, replay


def judged(call: Callable[[], object]) -> str | None:
    """What a call refuses with: the first broken edge of a verdict, a pin, or an error; None when it accepts.

    A verdict that is undecided is no acceptance.
    """
    try:
        result = call()
    except Refuted as refuted:
        verdict = refuted.verdict
        return verdict.broken[0].edge if verdict.broken else f"{verdict.signer}; {verdict.transition}"
    except CounterfoilError as refused:
        return str(refused)
    if isinstance(result, counterfoil.Verdict) and result.status != "verified":
        return f"{result.status}: {'; '.join(result.missing)}"
    return None


def by_signatures(path: Path, **pins: Any) -> str | None:
    """Judges a run by its signatures and links alone."""
    return judged(lambda: counterfoil.verify(path, **pins))


def without_a_chain(case: Dated) -> str | None:
    """Judges a run by its signatures and links alone, though there is a chain."""
    return by_signatures(case.path)


def by_chain(case: Dated) -> str | None:
    """Judges a run by a chain as well: it dates every receipt, and holds no other history."""

    def excluding() -> counterfoil.Verdict:
        verdict = counterfoil.verify(case.path, chain=case.chain, require={"time": True})
        if verdict.status == "verified" and "split view: excluded" not in verdict.integrity:
            raise ProofError(verdict.integrity)
        return verdict

    return judged(excluding)


def by_replay(path: Path, steps: str = "all") -> str | None:
    """Judges a run by executing steps of it again with its recipe, which is pinned as in the folder.

    A step that was not executed, or whose differences could not be judged, is no acceptance.
    """

    def executed() -> counterfoil.Verdict:
        verdict = replay(path, steps, recipe=counterfoil.Record(path).recipe_digest)
        for note in verdict.notes:
            if "not replayed" in note or "not judged" in note:
                raise ProofError(note)
        return verdict

    return judged(executed)


def by_tolerance(path: Path) -> str | None:
    """Judges a run by executing steps of it again where bits differ, within what honest executions differ by there."""
    pin, elsewhere = counterfoil.Record(path).recipe_digest, {"threads": 2, "mkldnn": False}
    thresholds = calibrate(path, recipe=pin, environment=elsewhere)
    return judged(lambda: replay(path, "1:3", recipe=pin, environment=elsewhere, tolerance=thresholds))


def by_each_receipt(path: Path) -> str | None:
    """Judges each receipt alone, as a wallet's tool does: a key of the lane's worker signed what it says."""

    def signed() -> None:
        record = counterfoil.Record(path)
        for worker, lane in record.lanes:
            known = {key for owner, key in record.keys if owner == worker}
            for receipt in record.receipts(worker, lane):
                document = json.dumps(receipt.typed_data())
                _, signer, _ = _native.check_typed_data(document, receipt.signature)
                if signer not in known:
                    raise ProofError(
                        f"receipt {receipt.sequence} is signed by {signer}, which is no key of {worker}",
                        expected=", ".join(sorted(known)),
                        actual=signer,
                    )

    return judged(signed)
