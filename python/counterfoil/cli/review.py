"""`counterfoil review`: what a reviewer asks of a training."""

from __future__ import annotations

import json as json_format
import sys

import typer

import counterfoil
from counterfoil.cli.chain import Contract
from counterfoil.cli.options import (
    CODES,
    Json,
    Recipe,
    Require,
    Requirement,
    RunFolder,
    Signer,
    TrustedBlock,
    TrustedChain,
    pins,
)
from counterfoil.errors import Refuted
from counterfoil.review import review as answer
from counterfoil.review import table


def review(
    run: RunFolder,
    signer: Signer = None,
    recipe: Recipe = None,
    require: Requirement = Require.INTEGRITY,
    chain: TrustedChain = None,
    contract: Contract = None,
    trusted_block: TrustedBlock = None,
    json: Json = False,
) -> None:
    """Answer what a reviewer asks of a training, each with the receipt that evidences it."""
    record = counterfoil.Record(run)
    try:
        verdict = counterfoil.verify(record, **pins(signer, recipe, require, chain, contract, trusted_block))
    except Refuted as refuted:
        verdict = refuted.verdict
    facts = answer(record, verdict)
    if json:
        told = [{"name": each.name, "value": each.value, "evidence": each.evidence} for each in facts]
        typer.echo(
            json_format.dumps({"verdict": json_format.loads(verdict.to_json()), "facts": told}, indent=2)
        )
    else:
        typer.echo(f"{verdict}\n\n{table(facts)}")
    sys.exit(CODES[verdict.status])
