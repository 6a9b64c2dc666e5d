"""One HTML file that shows a run's evidence, and checks it again in the browser that opens it.

The page holds the bundle and the verifier as WebAssembly, and loads nothing. What it shows beside the
verdict is drawn from what this module read: docs/report.md says what that is worth.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterfoil._native import Record
from counterfoil.durable import replace
from counterfoil.errors import Refuted
from counterfoil.report.embedded import EMBEDDED_LIMIT, embed, verifier
from counterfoil.report.environment import settings
from counterfoil.report.ledgers import anchors, lanes
from counterfoil.report.page import render
from counterfoil.report.reading import walk
from counterfoil.report.series import curves, evaluations
from counterfoil.report.tensors import states
from counterfoil.verify import Verdict, judgement, verify

if TYPE_CHECKING:
    from counterfoil.chain import Chain

__all__ = ["EMBEDDED_LIMIT", "verifier", "write_report"]


def write_report(
    run: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    signer: str | None = None,
    recipe: str | None = None,
    require: str | Mapping[str, Any] = "integrity",
    chain: Chain | None = None,
    trusted_blocks: Iterable[str] = (),
) -> Verdict:
    """Writes a report of a run, whatever its verdict is.

    The page checks the bundle that it holds with the same pins. What a chain says it cannot ask again.

    Args:
        run: A run folder, which is exported and signed with the device key as `export` does, or a bundle.
        path: The page; a file that is there is replaced.
        signer: As of `verify`.
        recipe: As of `verify`.
        require: As of `verify`.
        chain: As of `verify`.
        trusted_blocks: As of `verify`.

    Returns:
        The verdict, also when it is `refuted`.

    Raises:
        NotFound: There is no run.
        CorruptJournal: The bundle is damaged and cannot be opened.
        InvalidInput: An argument is refused.
        StorageError: The page cannot be written.

    Example:
        >>> from counterfoil import Run, commit_tensors
        >>> with Run.create("shown") as run:
        ...     _ = run.record_step(1, {"metrics": commit_tensors({"loss": 0.5}, keep=True)})
        >>> write_report("shown", "shown.html").status
        'verified'
    """
    record, blocks = Record(run), list(trusted_blocks)
    question = judgement(signer=signer, recipe=recipe, require=require, trusted_blocks=blocks)
    try:
        verdict = verify(
            record, signer=signer, recipe=recipe, require=require, chain=chain, trusted_blocks=blocks
        )
    except Refuted as refuted:
        verdict = refuted.verdict
    embedded = embed(record, question)
    walked = walk(record, verdict)
    made = datetime.now(UTC)
    document = {
        "name": Path(run).resolve().name,
        "made": f"{made:%Y-%m-%d %H:%M} UTC",
        "run": record.run,
        "judgement": question,
        "recorded": {"headline": str(verdict).splitlines()[0], "verdict": json.loads(verdict.to_json())},
        "offline": embedded.verdict,
        "chain": None if chain is None else f"chain {chain.chain_id}",
        "withoutBundle": embedded.reason,
        "bundleSize": None if embedded.bundle is None else len(embedded.bundle),
        "lanes": lanes(record, walked),
        "anchors": anchors(record),
        "curves": curves(record, walked),
        "evaluations": evaluations(record, walked),
        "states": states(record, walked),
        "settings": settings(record, walked),
    }
    replace(Path(path), render(document, embedded.bundle, verifier()))
    return verdict
