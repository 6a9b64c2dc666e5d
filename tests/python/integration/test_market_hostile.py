"""Agents of the market among strangers who mean them ill: specifications and runs that are made to hurt."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from counterfoil import Key, Record, export
from counterfoil.errors import ChainError
from counterfoil.market import Challenger, Job, Market, State, Verifier, Worker, why
from counterfoil.market.agents import DELIVERY, SPECIFICATION, place, publish
from counterfoil.market.client import now
from counterfoil.market.terms import is_flat
from markets import COIN, OPENABLE, RATE, SPEC, Parties, accepted, play, post, submitted, until


def nobody_trains(*_: object) -> None:
    raise AssertionError("nothing is to be trained")


def worker(market: Market, key: Key, board: Path, folder: Path, said: list[str], **changes: Any) -> Worker:
    options: dict[str, Any] = {"price": lambda *_: COIN // 2, "train": nobody_trains, "say": said.append}
    options |= {"opens": OPENABLE}
    return Worker(market, key, board, folder=folder, **options | changes)


def test_brackets_are_counted_before_they_are_parsed() -> None:
    """Brackets in texts that count, or deep ones that do not: the parser recurses and ends the process."""
    assert is_flat(b'{"a": "' + b"[" * 1000 + b'", "b": "\\"[", "c": ' + b"[" * 127 + b"]" * 127 + b"}")
    assert is_flat(b"[]" * 1000)
    assert not is_flat(b"[" * 129)
    assert not is_flat(b'{"a":' * 129)
    assert not is_flat(b"1" * ((1 << 20) + 1))


@pytest.mark.parametrize(
    "content", [b"\xff\xfe{", b"{", b"[" * 100_000, b"[]", b'{"pins": [{"name": "\\ud800"}]}']
)
def test_a_specification_that_is_none_stops_no_worker(
    market: Market, parties: Parties, tmp_path: Path, board: Path, content: bytes
) -> None:
    """One posted job whose specification cannot be read ended every worker, or kept it from all later jobs."""
    terms = post(market, parties).terms
    job = market.post(replace(terms, specification=hashlib.sha256(content).digest()), parties["requester"])
    place(board, job).mkdir(parents=True)
    (place(board, job) / SPECIFICATION).write_bytes(content)
    (tmp_path / "recipe.py").write_text("")
    other = post(market, parties)
    publish(board, other, SPEC, tmp_path / "recipe.py")
    said: list[str] = []
    worker(market, parties["worker"], board, tmp_path / "runs", said).tick()
    assert [each["fields"]["job"] for each in market.escrow.events("BidMade")] == [other.id], said


def test_one_job_that_fails_keeps_no_worker_from_the_others(
    market: Market, parties: Parties, tmp_path: Path, board: Path
) -> None:
    """A recipe that is missing at the first job, and a demand at the second that nobody answers: a lost stake."""
    folder = tmp_path / "runs"
    first, _ = accepted(market, parties)
    second, _ = submitted(market, parties, tmp_path / "run", stake=COIN)
    folder.mkdir()
    (tmp_path / "run").rename(folder / second.id.hex())
    place(board, first).mkdir(parents=True)
    (place(board, first) / SPECIFICATION).write_bytes(SPEC)
    place(board, second).mkdir(parents=True)
    demand = market.demand(second, (5, "checkpoint.parameters", 0, 0), parties["challenger"])

    def train(content: bytes, recipe: Path, nonce: bytes, path: Path) -> None:
        recipe.read_bytes()

    said: list[str] = []
    worker(market, parties["worker"], board, folder, said, train=train).tick()
    assert market.challenge.read("demandOf", demand)["isSettled"], said
    assert any("FileNotFoundError" in line for line in said)


def test_one_run_that_cannot_be_examined_hides_no_other(
    market: Market, parties: Parties, tmp_path: Path, board: Path
) -> None:
    """A run that makes the search raise, submitted before a false one: the false one was paid."""
    jobs: list[Job] = []
    for number, rate in enumerate((RATE, RATE * 2)):
        job, run = submitted(market, parties, tmp_path / f"run{number}", rate=rate, stake=COIN // 2)
        place(board, job).mkdir(parents=True)
        export(run, place(board, job) / DELIVERY, key=parties["worker"])
        jobs.append(job)

    def check(job: Job, delivered: Record) -> None:
        raise RecursionError("a run that is made to hurt")

    said: list[str] = []
    Challenger(market, parties["challenger"], board, check=check, say=said.append).tick()
    assert market.state(jobs[1])["state"] == State.REFUSED, said


def test_a_run_that_is_delivered_late_is_examined(
    market: Market, parties: Parties, tmp_path: Path, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker who delivers its lie after the demand that it answers: nobody looked at it any more."""
    job, run = submitted(market, parties, tmp_path / "run", rate=RATE * 2, windows=(3, 2, 60, 60, 60))
    place(board, job).mkdir(parents=True)
    said: list[str] = []
    monkeypatch.setattr("counterfoil.market.agents.now", lambda: now() + 25)

    def challenger() -> Challenger:
        return Challenger(market, parties["challenger"], board, check=lambda *_: None, say=said.append)

    agent = challenger()
    for each in (agent, agent, challenger(), challenger()):
        each.tick()
    agent.tick()
    (demanded,) = market.challenge.events("Demanded")
    market.answer(job, demanded["fields"]["id"], Record(run), parties["worker"])
    export(run, place(board, job) / DELIVERY, key=parties["worker"])
    agent.tick()
    assert market.state(job)["state"] == State.REFUSED, said


@pytest.mark.slow
@pytest.mark.parametrize("is_there", [True, False])
def test_a_run_that_nobody_is_given_is_not_paid(
    market: Market, parties: Parties, tmp_path: Path, board: Path, is_there: bool
) -> None:
    """A worker who answers each demand and keeps the run to itself is paid; or one whose delivery somebody spoils is not."""
    until((now() // 2 + 1) * 2)
    job, run = submitted(market, parties, tmp_path / "run", windows=(3, 2, 60, 60, 15))
    folder, said = tmp_path / "runs", list[str]()
    folder.mkdir()
    run.rename(folder / job.id.hex())
    run = folder / job.id.hex()
    place(board, job).mkdir(parents=True)
    (place(board, job) / DELIVERY).write_bytes(b"something else")
    options: dict[str, Any] = {"say": said.append}
    agents: dict[str, Any] = {
        "verifier": Verifier(
            market, parties["verifier"], board, execute=lambda *_: (1, bytes(32)), **options
        ),
        "challenger": Challenger(market, parties["challenger"], board, check=lambda *_: None, **options),
    }

    def is_disputed() -> bool:
        demands = market.challenge.events("Demanded", job=job.id)
        return bool(demands and market.disputes.events("Disputed", job=job.id))

    play(agents, is_disputed)
    (demand,) = market.challenge.events("Demanded", job=job.id)
    market.answer(job, demand["fields"]["id"], Record(run), parties["worker"])
    if is_there:
        agents["worker"] = worker(market, parties["worker"], board, folder, said)
    play(agents, lambda: market.state(job)["state"] in (State.PAID, State.REFUSED))
    assert market.state(job)["state"] == (State.PAID if is_there else State.REFUSED), said
    assert market.stake(parties["worker"].address)["free"] == 2 * COIN
    assert any("otherwise, or not delivered" in line for line in why(market, job)) != is_there


def test_why_tells_a_bid_that_is_too_dear(market: Market, parties: Parties) -> None:
    """The only bid, above the reward, was called no better than the cheapest so far."""
    job = post(market, parties)
    market.bid(job, 2 * COIN, parties["worker"])
    until(job.terms.bidding_ends)
    market.reveal(job, parties["worker"])
    assert any(line.endswith("more than the reward") for line in why(market, job))


def test_two_processes_of_one_account_lose_no_salt(
    market: Market, parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process put its salt over that of a bid on its way, which could not be opened: a lost deposit."""
    job, key, kept = post(market, parties), parties["worker"], market._path
    raced: list[bool] = []

    def race(*arguments: Any) -> Path:
        """The other process bids where the first one has looked for the file and not written it yet."""
        path = kept(*arguments)
        if not raced:
            raced.append(True)
            return Raced(path)
        return path

    class Raced(type(Path())):  # type: ignore[misc]
        def exists(self, **options: Any) -> bool:
            if len(raced) > 1:
                return super().exists(**options)
            raced.append(True)
            market.bid(job, COIN // 2, key)
            return False

    monkeypatch.setattr(market, "_path", race)
    with pytest.raises(ChainError, match="WrongBid"):
        market.bid(job, COIN // 2, key)
    until(job.terms.bidding_ends)
    market.reveal(job, key)


@pytest.mark.slow
def test_a_vote_that_the_node_did_not_take_is_promised_again(
    market: Market, parties: Parties, tmp_path: Path, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that does not answer once: the verifier never voted, and the false step was upheld."""
    until((now() // 2 + 1) * 2)
    market.enlist(parties["verifier"])
    job, run = submitted(market, parties, tmp_path / "run", windows=(3, 2, 60, 60, 60))
    place(board, job).mkdir(parents=True)
    export(run, place(board, job) / DELIVERY, key=parties["worker"])
    told: list[str] = []
    agent = Verifier(market, parties["verifier"], board, execute=lambda *_: (2, bytes(32)), say=told.append)
    agent.tick()
    until((now() // 2 + 1) * 2)
    market.dispute(job, 3, parties["challenger"])
    vote, failed = market.vote, []

    def once(*arguments: Any) -> Any:
        if not failed:
            failed.append(True)
            raise ChainError("the node does not answer")
        return vote(*arguments)

    monkeypatch.setattr(market, "vote", once)
    play({"verifier": agent}, lambda: bool(market.disputes.events("Committed")), 20)
    assert failed


def test_a_clock_that_is_ahead_costs_no_stake(
    market: Market, parties: Parties, tmp_path: Path, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose clock said that it was too late did not answer a demand that the chain would have taken."""
    job, run = submitted(market, parties, tmp_path / "run", windows=(3, 2, 60, 60, 60))
    folder = tmp_path / "runs"
    folder.mkdir()
    run.rename(folder / job.id.hex())
    place(board, job).mkdir(parents=True)
    demand = market.demand(job, (5, "checkpoint.parameters", 0, 0), parties["challenger"])
    monkeypatch.setattr("counterfoil.market.agents.now", lambda: now() + 3600)
    said: list[str] = []
    worker(market, parties["worker"], board, folder, said).tick()
    assert market.challenge.read("demandOf", demand)["isSettled"], said


def test_a_state_that_there_is_not_is_the_nodes_fault(
    market: Market, parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that answers with a state of its own ended whoever asked, with a ValueError."""
    job = post(market, parties)
    answer = market.escrow.read("jobOf", job.id) | {"state": 9}
    monkeypatch.setattr(market.escrow, "read", lambda *_: answer)
    with pytest.raises(ChainError, match="answer is none"):
        market.state(job)
