"""Paid jobs on a development chain: every way that a job's money can go, with real receipts and real contracts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from counterfoil import Record, export
from counterfoil.contracts import Contract
from counterfoil.errors import ChainError, InvalidInput, NotFound
from counterfoil.market import Challenger, Job, Market, State, Terms, Verifier, Worker, find, pin, why
from counterfoil.market.agents import DELIVERY, place, publish
from counterfoil.market.client import NOBODY
from counterfoil.market.terms import is_consistent
from counterfoil.run import specification
from counterfoil.testing.resign import resign
from markets import (
    COIN,
    OPENABLE,
    PARAMETERS,
    RATE,
    SPEC,
    STEPS,
    Parties,
    accepted,
    held,
    play,
    post,
    record,
    secret_of,
    submitted,
    twin,
    until,
)


def test_an_honest_worker_is_paid_what_the_next_bid_asks_for(
    market: Market, parties: Parties, tmp_path: Path
) -> None:
    """A requester who can refuse, a price that the cheapest bid sets itself, or money that stays behind."""
    job = post(market, parties)
    for name, price in (("worker", COIN // 2), ("other", COIN * 7 // 10)):
        market.bid(job, price, parties[name])
    with pytest.raises(ChainError, match="TooEarly"):
        market.reveal(job, parties["worker"])
    until(job.terms.bidding_ends)
    for name in ("worker", "other"):
        market.reveal(job, parties[name])
    until(job.terms.reveal_ends)
    with pytest.raises(ChainError, match="NotAllowed"):
        market.accept(job, parties["other"])
    nonce = market.accept(job, parties["worker"])
    run = record(tmp_path / "run", nonce, parties["worker"])
    market.submit(job, run, parties["worker"])
    assert find(job, Record(run)) is None
    state = market.state(job)
    assert (state["state"], state["price"], state["next"]) == (State.SUBMITTED, COIN // 2, COIN * 7 // 10)
    with pytest.raises(ChainError, match="TooEarly"):
        market.finalise(job, parties["challenger"])
    until(state["challengeEnds"])
    market.finalise(job, parties["challenger"])
    assert market.claim(parties["worker"]) == COIN * 7 // 10 + COIN // 10
    assert market.claim(parties["other"]) == COIN // 10
    assert market.claim(parties["requester"]) == COIN * 3 // 10
    assert market.owed(NOBODY) == STEPS * PARAMETERS.fee_per_unit
    assert market.stake(parties["worker"].address)["free"] == 2 * COIN
    assert held(market) == {"vault": 6 * COIN, "escrow": 0, "challenge": 0, "disputes": 0}
    lines = why(market, job)
    assert lines[-1].startswith(f"paid: {COIN * 7 // 10} wei to {parties['worker'].address}")
    epoch = market.sortition.read("epoch")
    assert (
        market.sortition.read("unitsOf", epoch + 1) == STEPS
        or market.sortition.read("unitsOf", epoch) == STEPS
    )


def test_every_place_that_can_be_demanded_is_answered(
    market: Market, parties: Parties, tmp_path: Path
) -> None:
    """A demand that no honest worker can answer costs them their stake: numbers of any size at any receipt."""
    job, run = submitted(market, parties, tmp_path / "run", windows=(3, 2, 60, 60, 600))
    whole, fields = Record(run), ("hyperparameters", "parameters", "checkpoint.parameters")
    size = len(whole.receipts())
    generator = np.random.default_rng(1)
    places = [(index, field) for index in range(size) for field in fields]
    for index, field in places:
        numbers = [int(each) for each in generator.integers(0, 1 << 63, 2)]
        place = (index + size * int(generator.integers(0, 1 << 40)), field, *numbers)
        # Each next one costs twice as much.
        if market.challenge.read("bondOf", job.id, job.terms.encoded()) > 100 * COIN:
            break
        demand = market.demand(job, place, parties["challenger"])
        market.answer(job, demand, whole, parties["worker"])
    assert market.state(job)["open"] == 0
    assert market.owed(parties["worker"].address) >= 10 * job.terms.fee
    assert market.stake(parties["worker"].address)["locked"] == COIN


def test_a_worker_who_does_not_answer_is_slashed(market: Market, parties: Parties, tmp_path: Path) -> None:
    """A result that nobody gets to see, and is paid all the same."""
    job, run = submitted(market, parties, tmp_path / "run")
    size = market.escrow.events("Submitted", job.block, job=job.id)[0]["fields"]["size"]
    demand = market.demand(job, (size - 2, "checkpoint.parameters", 0, 1), parties["challenger"])
    with pytest.raises(ChainError, match="TooEarly"):
        market.expire(job, demand, parties["challenger"])
    until(market.challenge.read("demandOf", demand)["answerEnds"])
    with pytest.raises(ChainError, match="TooLate"):
        market.answer(job, demand, Record(run), parties["worker"])
    with pytest.raises(ChainError, match="StillOpen"):
        market.finalise(job, parties["worker"])
    market.expire(job, demand, parties["challenger"])
    assert market.state(job)["state"] == State.REFUSED
    assert market.stake(parties["worker"].address) == {"free": COIN, "locked": 0, "leaving": 0, "release": 0}
    assert market.claim(parties["challenger"]) == COIN // 2 + job.terms.fee
    assert market.claim(parties["requester"]) == COIN + STEPS * PARAMETERS.fee_per_unit
    assert market.owed(NOBODY) == COIN // 2
    assert any("did not answer a demand in time" in line for line in why(market, job))


def test_another_learning_rate_is_shown_to_the_chain(
    market: Market, parties: Parties, tmp_path: Path
) -> None:
    """A rate that is off by one part in ten thousand, and that the worker even recorded."""
    job, run = submitted(market, parties, tmp_path / "run", rate=RATE * 1.0001)
    fault = find(job, Record(run))
    assert fault is not None
    assert fault[0] == "provePin"
    market.prove(job, fault, parties["challenger"])
    assert market.state(job)["state"] == State.REFUSED
    assert market.owed(parties["challenger"].address) == COIN // 2
    assert any("another value than the job pins" in line for line in why(market, job))


CHANGES = {
    "a link": ("proveMisplaced", {"previous": "0x" + "11" * 32}),
    "a lane": ("proveMisplaced", {"lane": 1}),
    "a run": ("proveMisplaced", {"run": "0x" + "22" * 32}),
    "a sequence": ("proveMisplaced", {"sequence": "9"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", CHANGES)
def test_a_log_that_is_not_whole_is_shown_to_the_chain(
    market: Market, parties: Parties, tmp_path: Path, what: str
) -> None:
    """A worker who signs a step that is another run's, lane's or place's, or hangs on nothing."""
    function, changes = CHANGES[what]
    job, nonce = accepted(market, parties)
    run = record(tmp_path / "run", nonce, parties["worker"])

    def change(message: dict[str, Any]) -> None:
        if message.get("step") == "2" and "flags" in message:
            message.update(changes)

    resign(run, secret_of(tmp_path), change)
    market.submit(job, run, parties["worker"])
    fault = find(job, Record(run))
    assert fault is not None
    assert fault[0] == function
    market.prove(job, fault, parties["challenger"])
    assert market.state(job)["state"] == State.REFUSED


def test_another_history_is_shown_to_the_chain(market: Market, parties: Parties, tmp_path: Path) -> None:
    """A worker who signs two runs under one nonce, and shows each to somebody else."""
    job, run = submitted(market, parties, tmp_path / "run")
    other = twin(tmp_path, market, job, parties["worker"])
    assert Record(other).run == Record(run).run
    assert find(job, Record(run)) is None
    fault = find(job, Record(run), Record(other))
    assert fault is not None
    assert fault[0] == "proveContradiction"
    market.prove(job, fault, parties["challenger"])
    assert market.state(job)["state"] == State.REFUSED


def test_stake_is_slashed_after_the_pay_and_while_it_leaves(
    market: Market, parties: Parties, tmp_path: Path
) -> None:
    """A worker who is paid, begins to leave, and is found out before it has."""
    job, run = submitted(market, parties, tmp_path / "run")
    other = twin(tmp_path, market, job, parties["worker"])
    until(market.state(job)["challengeEnds"])
    market.finalise(job, parties["worker"])
    market.begin_exit(2 * COIN, parties["worker"])
    fault = find(job, Record(run), Record(other))
    assert fault is not None
    market.prove(job, fault, parties["challenger"])
    assert market.state(job)["state"] == State.PAID
    assert market.stake(parties["worker"].address)["leaving"] == COIN
    with pytest.raises(ChainError, match="TooEarly"):
        market.exit(parties["worker"])


def test_a_run_that_is_not_the_jobs_is_not_taken(market: Market, parties: Parties, tmp_path: Path) -> None:
    """A run of another nonce, one with too few steps, or one that is not closed."""
    job, nonce = accepted(market, parties)
    foreign = record(tmp_path / "foreign", bytes(32), parties["worker"])
    with pytest.raises(ChainError, match="WrongClose"):
        market.submit(job, foreign, parties["worker"])
    short = record(tmp_path / "short", nonce, parties["worker"], steps=STEPS - 1)
    with pytest.raises(ChainError, match=r"WrongClose\(word: 9\)"):
        market.submit(job, short, parties["worker"])


def test_nobody_who_is_late_keeps_others_money(market: Market, parties: Parties) -> None:
    """A job without bids, and a leader who never accepts: everybody's way out."""
    job = post(market, parties, windows=(1, 1, 1, 1, 1))
    other = post(market, parties, windows=(2, 2, 1, 1, 1))
    market.bid(other, COIN, parties["worker"])
    market.bid(other, COIN, parties["other"])
    until(other.terms.bidding_ends)
    market.reveal(other, parties["worker"])
    until(other.terms.accept_ends)
    market.reclaim(job, parties["challenger"])
    market.reclaim(other, parties["challenger"])
    burn = STEPS * PARAMETERS.fee_per_unit
    # The leader's deposit is the requester's, the other one, which nobody revealed, is burned.
    assert market.claim(parties["requester"]) == 2 * (COIN + burn) + COIN // 10
    assert market.owed(NOBODY) == COIN // 10
    assert market.stake(parties["worker"].address)["free"] == 2 * COIN
    assert "cancelled" in why(market, job)[-1]


def test_a_promise_is_made_once(market: Market, parties: Parties) -> None:
    """A second price for one job would overwrite the salt that opens the first one."""
    job = post(market, parties)
    market.bid(job, COIN // 2, parties["worker"])
    with pytest.raises(InvalidInput, match="promised otherwise"):
        market.bid(job, COIN // 3, parties["worker"])
    with pytest.raises(NotFound, match="was not made here"):
        market.reveal(job, parties["other"])
    with pytest.raises(ChainError, match="WrongBid"):
        market.bid(job, COIN // 2, parties["worker"])
    until(job.terms.bidding_ends)
    market.reveal(job, parties["worker"])


@pytest.mark.slow
@pytest.mark.parametrize(("lies", "outcome"), [(False, State.PAID), (True, State.REFUSED)])
def test_agents_bring_a_job_to_its_end(
    market: Market, parties: Parties, tmp_path: Path, board: Path, lies: bool, outcome: State
) -> None:
    """Agents that wait for each other, vote twice, forget a salt, or refuse an honest worker."""
    said: list[str] = []

    def train(content: bytes, recipe: Path, nonce: bytes, path: Path) -> None:
        record(path, nonce, parties["worker"], spec=content)

    def execute(job: Job, delivered: Record, receipt: Any, beacon: bytes) -> tuple[int, bytes]:
        return (2, beacon) if lies else (1, beacon)

    def check(job: Job, delivered: Record) -> Any:
        return delivered.receipts()[3] if lies else None

    job = post(market, parties, windows=(3, 2, 60, 60, 6))
    (tmp_path / "recipe.py").write_text("")
    publish(board, job, SPEC, tmp_path / "recipe.py")
    options: dict[str, Any] = {"say": said.append}
    agents = {
        "worker": Worker(
            market,
            parties["worker"],
            board,
            folder=tmp_path / "runs",
            price=lambda *_: COIN // 2,
            train=train,
            opens=OPENABLE,
            **options,
        ),
        "verifier": Verifier(market, parties["verifier"], board, execute=execute, **options),
        "challenger": Challenger(market, parties["challenger"], board, check=check, **options),
    }

    def is_over() -> bool:
        state = market.state(job)
        is_left = any(market.owed(parties[name].address) for name in agents)
        return state["state"] in (State.PAID, State.REFUSED) and not state["open"] and not is_left

    play(agents, is_over)
    assert market.state(job)["state"] == outcome, said
    market.claim(parties["requester"])
    assert {name: rest for name, rest in held(market).items() if name != "vault"} == {
        "escrow": 0,
        "challenge": 0,
        "disputes": 0,
    }
    assert (place(board, job) / DELIVERY).exists()
    if lies:
        assert any("attested: refuted" in line for line in why(market, job))
        assert market.stake(parties["worker"].address)["free"] == 2 * COIN


@pytest.mark.slow
def test_a_run_that_is_not_delivered_is_demanded(
    market: Market, parties: Parties, tmp_path: Path, board: Path
) -> None:
    """A worker who is paid for weights that nobody gets, or who delivers another run than it submitted."""
    job, _ = submitted(market, parties, tmp_path / "run", windows=(3, 2, 60, 60, 15))
    said: list[str] = []
    challenger = Challenger(market, parties["challenger"], board, check=lambda *_: None, say=said.append)
    folder = place(board, job)
    folder.mkdir(parents=True)
    other = twin(tmp_path, market, job, parties["worker"], rate=0.1, at=1)
    export(other, folder / DELIVERY, key=parties["worker"])
    play({"challenger": challenger}, lambda: market.state(job)["state"] == State.REFUSED)
    assert any("demands a kilobyte of its result" in line for line in said)
    assert any("did not answer" in line for line in said)


def test_a_market_of_another_ledger_is_refused(market: Market, tmp_path: Path) -> None:
    """Receipts that are looked for on a ledger which the market never asks."""
    other = Contract.deploy(market.chain, "RunLedger")
    names = ("vote", "epoch", "shortestWindow", "longestWindow", "seat", "feePerUnit", "issuance")
    foreign = Contract.deploy(market.chain, "Market", other.address, dict.fromkeys(names, 1))
    with pytest.raises(InvalidInput, match="another run ledger"):
        Market(market.chain, foreign.address)


def test_terms_that_no_job_can_have_are_refused(market: Market, parties: Parties) -> None:
    """Fees that price challengers out, windows that end before they begin, fields that cannot be opened."""
    for changes, complaint in (
        ({"fee": COIN // 16}, r"WrongTerms\(place: 5\)"),
        ({"fee": COIN // 2048}, r"WrongTerms\(place: 8\)"),
        ({"windows": (2, 0, 60, 60, 2)}, r"WrongTerms\(place: 10\)"),
        ({"windows": (2, 2, 60, 60, 7200)}, r"WrongTerms\(place: 13\)"),
    ):
        with pytest.raises(ChainError, match=complaint):
            post(market, parties, **changes)
    with pytest.raises(InvalidInput, match="workUnits"):
        post(market, parties, openable=("workUnits",))
    with pytest.raises(InvalidInput, match="no state field"):
        pin(0, "checkpoint.parameters", "w", 1.0)


def test_a_worker_trains_for_no_pins_that_it_cannot_keep() -> None:
    """Two values for one place, or pins that the specification does not show: whoever trains loses its stake."""
    one, other = pin(0, "hyperparameters", "0/lr", 0.1), pin(2, "hyperparameters", "0/lr", 0.2)
    options = {
        "now": 0,
        "windows": (1, 1, 1, 1, 1),
        "units": 1,
        "reward": 64,
        "stake": 1,
        "deposit": 1,
        "fee": 1,
    }

    def made(*pins: dict[str, Any]) -> tuple[Terms, dict[str, Any]]:
        content = specification({"pins": list(pins)})
        return Terms.of(content, **options), json.loads(content)  # type: ignore[arg-type]

    assert is_consistent(*made())
    assert is_consistent(*made(one, one))
    assert is_consistent(*made(other, pin(1, "hyperparameters", "0/lr", 0.1)))
    assert not is_consistent(*made(one, other))
    assert not is_consistent(made(one)[0], {})
    assert not is_consistent(made()[0], {"pins": [one]})
    assert not is_consistent(made()[0], {"pins": [{"step": -1}]})
