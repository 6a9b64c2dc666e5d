"""A market on a development chain, its parties, and runs whose numbers nobody trained."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from counterfoil import Key, Run, commit_tensors
from counterfoil.market import Job, Market, Parameters, Terms, pin
from counterfoil.market.client import NOBODY, now
from counterfoil.run import specification

COIN = 10**18
PARAMETERS = Parameters(3, 2, 1, 3600, COIN, COIN // 1000, COIN)
STEPS, RATE = 3, 0.05
SPEC = specification({"seed": 1, "pins": [pin(0, "hyperparameters", "0/lr", RATE)]}, {"parameters": 1})
OPENABLE = ("hyperparameters", "parameters", "checkpoint.parameters")
Parties = dict[str, Key]


def secret_of(tmp_path: Path) -> bytes:
    return bytes.fromhex((tmp_path / "worker").read_text())


def until(moment: int) -> None:
    while time.time() < moment:
        time.sleep(0.05)


def post(market: Market, parties: Parties, **changes: Any) -> Job:
    options: dict[str, Any] = {
        "now": now(),
        "windows": (3, 2, 60, 60, 2),
        "units": STEPS,
        "reward": COIN,
        "stake": COIN,
        "deposit": COIN // 10,
        "fee": COIN // 64,
        "openable": OPENABLE,
    }
    return market.post(Terms.of(SPEC, **options | changes), parties["requester"])


def record(
    path: Path,
    nonce: bytes,
    key: Key,
    *,
    spec: bytes = SPEC,
    rate: float = RATE,
    steps: int = STEPS,
    at: int = 2,
) -> Path:
    """A run whose numbers nobody trained; at step `at` the learning rate is `rate`."""
    document = json.loads(spec)
    policy, public = document.pop("policy"), document.pop("public")
    with Run.create(path, key=key, spec=document, policy=policy, public=public, nonce=nonce) as run:
        for step in range(1, steps + 1):
            # Three tensors: none of them empty, one longer than a chunk, one a scalar.
            state = {"a": np.full(700, step, np.float32), "b": np.float64(step), "c": np.arange(step)}
            parameters = run.store(state)
            told = {"0/lr": rate if step == at else RATE, "0/momentum": 0.9}
            hyperparameters = commit_tensors(told, keep=True)
            run.record_step(step, {"parameters": parameters, "hyperparameters": hyperparameters})
        run.record_checkpoint(steps, {"parameters": parameters})
    return path


def accepted(market: Market, parties: Parties, **changes: Any) -> tuple[Job, bytes]:
    job = post(market, parties, **changes)
    market.bid(job, COIN // 2, parties["worker"])
    until(job.terms.bidding_ends)
    market.reveal(job, parties["worker"])
    until(job.terms.reveal_ends)
    return job, market.accept(job, parties["worker"])


def submitted(market: Market, parties: Parties, path: Path, **changes: Any) -> tuple[Job, Path]:
    told = {name: changes.pop(name) for name in ("rate", "at", "steps") if name in changes}
    job, nonce = accepted(market, parties, **changes)
    run = record(path, nonce, parties["worker"], **told)
    market.submit(job, run, parties["worker"])
    return job, run


def held(market: Market) -> dict[str, int]:
    """What each contract has beyond what it owes, wei."""
    contracts = {
        "vault": market.vault,
        "escrow": market.escrow,
        "challenge": market.challenge,
        "disputes": market.disputes,
    }
    return {
        name: int(market.chain.rpc("eth_getBalance", [each.address, "latest"]), 16)
        - each.read("owed", NOBODY)
        for name, each in contracts.items()
    }


def twin(tmp_path: Path, market: Market, job: Job, key: Key, **options: Any) -> Path:
    """Another run of one nonce: on one machine the lane's key file refuses it."""
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setenv("COUNTERFOIL_HOME", str(tmp_path / "elsewhere"))
        return record(tmp_path / "twin", market.nonce(job), key, **options)


def play(agents: dict[str, Any], is_over: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_over():
        assert time.monotonic() < end, "the agents do not come to an end"
        for agent in agents.values():
            agent.tick()
        time.sleep(0.05)
