"""A market on a development chain with windows of seconds, and the people in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from counterfoil import Chain, Key, Run, commit_tensors
from counterfoil.errors import ChainError
from counterfoil.market import Job, Market, Parameters, Terms
from counterfoil.run import specification

COIN = 10**18
PARAMETERS = Parameters(
    vote=2,
    epoch=1,
    shortest_window=1,
    longest_window=3600,
    seat=COIN,
    fee_per_unit=COIN // 100,
    issuance=COIN,
)
SPEC: dict[str, Any] = {"steps": 3}
UNITS, REWARD, STAKE, DEPOSIT, FEE = 3, COIN, 2 * COIN, COIN // 10, COIN // 64
PRICE = REWARD // 2
UPHELD, REFUTED = 1, 2
_GIVEN = 100 * COIN
_SOON = 0.4
_PATIENCE = (1, 2, 4, 8)


@dataclass(frozen=True)
class Work:
    """A job that a worker accepted.

    Attributes:
        market: Where.
        job: The job.
        requester, worker: Their keys.
        path: The folder of the worker's run for it, once there is one.
    """

    market: Market
    job: Job
    requester: Key
    worker: Key
    path: Path


def opened(folder: Path, **changes: int) -> Market:
    """A market on a chain in this folder, with other parameters where they are named."""
    return Market.deploy(Chain.dev(folder / "chain"), replace(PARAMETERS, **changes))


def party(market: Market, stake: int = 0) -> Key:
    """Somebody with coins, and some of them staked."""
    key = Key.generate()
    market.chain.rpc("anvil_setBalance", [key.address, hex(_GIVEN)])
    if stake:
        market.deposit(stake, key)
    return key


def accepted(
    market: Market,
    folder: Path,
    *,
    window: int = 3600,
    requester: Key | None = None,
    worker: Key | None = None,
    spec: dict[str, Any] = SPEC,
) -> Work:
    """Posts a job, whose only bidder accepts it; nothing is recorded yet.

    Args:
        market: Where.
        folder: Below it the run will lie.
        window: Seconds in which it can be challenged.
        requester, worker: Theirs; somebody new by default.
        spec: What is to be trained.
    """
    requester, worker = requester or party(market), worker or party(market, STAKE)
    # A machine that is too slow for a deadline begins anew, with longer ones.
    for seconds in _PATIENCE:
        try:
            job = _accepted(market, requester, worker, seconds, window, spec)
        except ChainError:
            if seconds == _PATIENCE[-1]:
                raise
        else:
            return Work(market, job, requester, worker, folder / job.id.hex())
    raise AssertionError("the last one returns or raises")


def submitted(market: Market, folder: Path, *, window: int = 3600, **parties: Any) -> Work:
    """As `accepted`, with an honest run that was submitted."""
    work = accepted(market, folder, window=window, **parties)
    record(work, work.path)
    market.submit(work.job, work.path, work.worker)
    return work


def record(work: Work, path: Path, scale: float = 1.0, *, nonce: bytes | None = None) -> Path:
    """Records a run for a job: so many steps of numbers, the result, and the end."""
    weights = np.zeros(4, np.float32)
    nonce = work.market.nonce(work.job) if nonce is None else nonce
    with Run.create(path, key=work.worker, spec=SPEC, nonce=nonce) as run:
        for step in range(1, UNITS + 1):
            weights = weights + np.float32(scale)
            fields = {"gradients": {"w": np.full(4, scale, np.float32)}, "parameters": {"w": weights}}
            kept = {name: commit_tensors(tensors, keep=True) for name, tensors in fields.items()}
            run.record_step(step, kept, work_units=1)
        run.record_checkpoint(UNITS, {"parameters": run.store({"w": weights})})
    return path


def finalised(work: Work) -> None:
    """Has a job paid when its window is over."""
    until(work.market.state(work.job)["challengeEnds"])
    work.market.finalise(work.job, work.worker)


def disputed(work: Work, verifiers: list[Key], by: Key | None = None) -> bytes:
    """Enlists verifiers and, in the epoch of their roll, disputes the run's first step. Returns the dispute's name."""
    market, by = work.market, by or party(work.market)
    for _ in _PATIENCE:
        _wait_for_room()
        sent = [market.enlist(key) for key in verifiers]
        epochs = {each.events[0]["fields"]["epoch"] for each in sent}
        if len(epochs) > 1:
            continue
        until(epochs.pop() * PARAMETERS.epoch)
        try:
            return market.dispute(work.job, 1, by)
        except ChainError:
            continue
    raise AssertionError("an epoch is over before a transaction is made: this machine is too slow")


def drawn(market: Market, dispute: bytes, number: int = 0) -> list[str]:
    """Draws a panel; returns its members' addresses in lower case."""
    party(market, stake=1)  # the block whose hash decides
    market.disputes.send("draw", dispute)
    return [each.lower() for each in market.disputes.read("roundOf", dispute, number)["panel"]]


def judged(work: Work, votes: dict[Key, int], by: Key) -> bytes:
    """Disputes a run's first step and has its verifiers vote, until nobody can appeal. Returns the dispute's name."""
    market, dispute = work.market, disputed(work, list(votes), by)
    drawn(market, dispute)
    for key, outcome in votes.items():
        market.vote(dispute, 0, outcome, bytes(32), key)
    # Both phases end when all have acted.
    until(market.disputes.read("roundOf", dispute, 0)["commitEnds"])
    for key in votes:
        market.reveal_vote(dispute, 0, key)
    until(market.disputes.read("roundOf", dispute, 0)["revealEnds"] + PARAMETERS.vote)
    market.settle(work.job, dispute, work.requester)
    return dispute


def wealth(market: Market, key: Key) -> int:
    """What somebody has in the wallet, as stake and owed, wei."""
    stake = market.stake(key.address)
    wallet = int(market.chain.rpc("eth_getBalance", [key.address, "latest"]), 16)
    return wallet + stake["free"] + stake["locked"] + stake["leaving"] + market.owed(key.address)


def refused(call: Callable[[], object]) -> str | None:
    """Why a chain refuses a call; None when it takes it."""
    try:
        call()
    except ChainError as told:
        return str(told)
    return None


def until(moment: int) -> None:
    """Waits for a time of the chain, which is the machine's, in Unix seconds."""
    time.sleep(max(0.0, moment - time.time()) + 0.01)


def _wait_for_room() -> None:
    """Returns when enough of a second is left for some transactions."""
    begin = time.time()
    if begin % 1 > _SOON:
        until(int(begin) + 1)


def _accepted(
    market: Market, requester: Key, worker: Key, seconds: int, window: int, spec: dict[str, Any]
) -> Job:
    _wait_for_room()
    content = specification(spec)
    terms = Terms.of(
        content,
        now=int(time.time()),
        windows=(seconds, seconds, 8, 3600, window),
        units=UNITS,
        reward=REWARD,
        stake=STAKE,
        deposit=DEPOSIT,
        fee=FEE,
        openable=("checkpoint.parameters",),
    )
    job = market.post(terms, requester)
    market.bid(job, PRICE, worker)
    until(terms.bidding_ends)
    market.reveal(job, worker)
    until(terms.reveal_ends)
    market.accept(job, worker)
    return job
