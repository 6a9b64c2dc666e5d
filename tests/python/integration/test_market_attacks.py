"""What strangers send to the market's agents: deliveries that hide something, specifications that are none."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from counterfoil import Key, Record, Run, commit_tensors
from counterfoil.attacks import markets
from counterfoil.attacks.markets import COIN, SPEC, STAKE, Work
from counterfoil.bundle import export
from counterfoil.market import Challenger, Job, Market, State, Terms, Verifier, Worker, find, pin
from counterfoil.market.agents import DELIVERY, SPECIFICATION, Agent, place
from counterfoil.market.client import now
from counterfoil.market.terms import FIELDS
from counterfoil.run import specification
from counterfoil.testing.resign import resign
from counterfoil.torch import collect
from counterfoil.torch.demo import mlp
from counterfoil.torch.demo.market import lying
from counterfoil.torch.market import execute, find_wrong, machine, recipe_digest, train

STEPS, LIE_AT = 4, 3
NOBODY = "0x" + "00" * 20


def deliver(work: Work, board: Path, steps: list[int] | None = None) -> Record:
    """Lays a bundle of the run onto the board."""
    target = place(board, work.job) / DELIVERY
    target.parent.mkdir(parents=True, exist_ok=True)
    export(work.path, target, key=work.worker, steps=steps)
    return Record(target)


@pytest.mark.usefixtures("own_home")
def test_a_challenger_looks_through_what_is_delivered_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A challenger that stumbles over half a delivery, or that looks no more once it has demanded a kilobyte."""
    market, board = markets.opened(tmp_path), tmp_path / "board"
    work, key = markets.submitted(market, tmp_path), markets.party(market)
    looked: list[bytes] = []
    monkeypatch.setattr("counterfoil.market.agents.now", lambda: now() + 1300)
    challenger = Challenger(
        market, key, board, check=lambda job, _: looked.append(job.id), say=lambda _: None
    )
    assert find(work.job, deliver(work, board, steps=[1])) is None
    for _ in range(2):
        challenger.tick()
    assert len(market.challenge.events("Demanded", job=work.job.id, by=key.address)) == 1
    assert not looked
    deliver(work, board)
    challenger.tick()
    assert looked == [work.job.id]


def test_a_pinned_value_that_is_not_stored_hides_no_other_fault(tmp_path: Path) -> None:
    """A search that ends at the first value which the worker withholds, so that no later one is proved."""
    spec = {"pins": [pin(1, "hyperparameters", "lr", 0.5), pin(2, "hyperparameters", "lr", 0.5)]}
    with Run.create(tmp_path / "run", spec=spec) as run:
        run.record_step(1, {"hyperparameters": commit_tensors({"lr": 0.5})})
        run.record_step(2, {"hyperparameters": commit_tensors({"lr": 0.7}, keep=True)})
    fault = find(Job(bytes(32), NOBODY, _terms(specification(spec)), 0), Record(tmp_path / "run"))
    assert fault is not None and fault[0] == "provePin"


@pytest.mark.usefixtures("own_home")
def test_a_challenger_that_is_started_again_does_not_dispute_again(tmp_path: Path) -> None:
    """A second bond, twice as high, for the dispute that the chain has already."""
    market, board = markets.opened(tmp_path), tmp_path / "board"
    work, key = markets.submitted(market, tmp_path), markets.party(market)
    deliver(work, board)
    verifier = markets.party(market, COIN)
    markets.disputed(work, [verifier], key)
    market.enlist(verifier)
    markets.until(int(time.time()) + 1)
    again = Challenger(market, key, board, check=lambda _, record: record.receipts()[1], say=lambda _: None)
    again.tick()
    assert len(market.disputes.events("Disputed", job=work.job.id)) == 1


@pytest.mark.usefixtures("own_home")
def test_a_worker_passes_over_a_specification_that_is_none(tmp_path: Path) -> None:
    """A worker that ends, and loses its running jobs, because somebody posted a job that is no JSON."""
    market, board = markets.opened(tmp_path), tmp_path / "board"
    _post(market, board, b"{")
    good = _post(market, board, specification(SPEC))
    said: list[str] = []
    worker = _worker(market, board, said)
    worker.tick()
    assert [each["fields"]["job"] for each in market.escrow.events("BidMade")] == [good.id]
    assert any("JSONDecodeError" in line for line in said)


@pytest.mark.usefixtures("own_home")
def test_a_worker_does_not_promise_one_stake_twice(tmp_path: Path) -> None:
    """Two sealed bids on one stake, of which the second cannot be revealed and loses its deposit."""
    market, board = markets.opened(tmp_path), tmp_path / "board"
    for _ in range(2):
        _post(market, board, specification(SPEC))
    worker = _worker(market, board, [])
    worker.tick()
    assert len(market.escrow.events("BidMade")) == 1
    market.deposit(STAKE, worker.key)
    worker.tick()
    assert len(market.escrow.events("BidMade")) == 2


@pytest.mark.usefixtures("own_home")
@pytest.mark.parametrize(
    "trap", [{"openable": 1 << FIELDS["gradients"]}, {"pins": bytes([1]) * 32, "pin_count": 1}]
)
def test_a_worker_does_not_bid_for_a_job_that_slashes_it(trap: dict[str, int], tmp_path: Path) -> None:
    """A requester who demands what nobody keeps, or shows a pin that the specification does not list, for half the stake."""
    market, board = markets.opened(tmp_path), tmp_path / "board"
    _post(market, board, specification(SPEC), **trap)
    _worker(market, board, []).tick()
    assert not market.escrow.events("BidMade")


@pytest.mark.usefixtures("own_home")
def test_a_worker_does_not_submit_a_fault_of_its_own(tmp_path: Path) -> None:
    """A recipe that breaks the specification's own pins, so that the chain slashes the honest worker who runs it."""
    market, board = markets.opened(tmp_path), tmp_path / "board"
    spec = SPEC | {"pins": [pin(0, "hyperparameters", "lr", 0.5)]}
    work = markets.accepted(market, tmp_path, spec=spec)
    place(board, work.job).mkdir(parents=True)
    (place(board, work.job) / SPECIFICATION).write_bytes(specification(spec))

    def record(_content: bytes, _recipe: Path, nonce: bytes, path: Path) -> None:
        with Run.create(path, key=work.worker, spec=spec, nonce=nonce) as run:
            for step in range(1, markets.UNITS + 1):
                run.record_step(step, {"hyperparameters": commit_tensors({"lr": 0.7}, keep=True)})
            run.record_checkpoint(markets.UNITS, {"parameters": run.store({"w": np.zeros(4)})})

    said: list[str] = []
    worker = _worker(market, board, said, key=work.worker, train=record)
    worker.tick()
    assert market.state(work.job)["state"] == State.ACCEPTED
    assert "costs the stake, provePin" in said[-1]


@pytest.mark.usefixtures("own_home")
def test_a_delivery_that_is_taken_back_is_still_judged(tmp_path: Path) -> None:
    """A worker who removes its delivery when it is disputed, so that no verifier can vote and the lie is upheld."""
    market, board = markets.opened(tmp_path), tmp_path / "board"
    work, key, verifier = markets.submitted(market, tmp_path), markets.party(market), markets.party(market)
    deliver(work, board)
    Challenger(market, key, board, check=lambda _, record: record.receipts()[1], say=lambda _: None).tick()
    (place(board, work.job) / DELIVERY).unlink()
    found = Verifier(market, verifier, board, execute=lambda *_: None, say=lambda _: None).delivered(work.job)
    assert found is not None
    assert len(found.receipts()) == len(Record(work.path).receipts())


@pytest.mark.usefixtures("own_home")
@pytest.mark.parametrize(("bought", "right"), [(2, 1), (1, 2)])
def test_a_bought_verdict_is_appealed(bought: int, right: int, tmp_path: Path) -> None:
    """A first panel that refutes an honest run or upholds a false one, and nobody who asks a larger one."""
    market, board = markets.opened(tmp_path, vote=5, epoch=6), tmp_path / "board"
    work, keys = markets.submitted(market, board / "runs"), [markets.party(market, COIN) for _ in range(5)]
    deliver(work, board)
    agent: Agent = _worker(market, board, [], key=work.worker)
    challenger = markets.party(market)
    if right == 2:
        looks = {"check": lambda _, record: record.receipts()[1], "say": lambda _: None}
        agent = Challenger(market, challenger, board, **looks)  # type: ignore[arg-type]
    markets.until((now() // 6 + 1) * 6)
    for key in keys:
        market.enlist(key)
    markets.until((now() // 6 + 1) * 6)
    if right == 2:
        agent.tick()
    else:
        market.dispute(work.job, 1, challenger)
    (begun,) = market.disputes.events("Disputed")
    dispute, by_address = begun["fields"]["id"], {key.address.lower(): key for key in keys}
    for number, outcome in enumerate((bought, right)):
        panel = [by_address[each] for each in markets.drawn(market, dispute, number)]
        for key in panel:
            market.vote(dispute, number, outcome, bytes(32), key)
        markets.until(market.disputes.read("roundOf", dispute, number)["commitEnds"])
        for key in panel:
            market.reveal_vote(dispute, number, key)
        markets.until(market.disputes.read("roundOf", dispute, number)["revealEnds"])
        agent.tick()
    (appeal,) = market.disputes.events("Appealed")
    assert appeal["fields"]["by"] == agent.key.address
    assert market.disputes.read("disputeOf", dispute)["verdict"] == right
    assert market.state(work.job)["state"] == (State.SUBMITTED if right == 1 else State.REFUSED)


@pytest.mark.usefixtures("own_home")
def test_an_agent_that_sees_no_board_accuses_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is not mounted: an honest worker is refuted by whoever looks into it."""
    market, nowhere = markets.opened(tmp_path), tmp_path / "nowhere"
    nowhere.mkdir()
    work, key = markets.submitted(market, tmp_path), markets.party(market, COIN)
    dispute, said = markets.disputed(work, [key]), list[str]()
    assert markets.drawn(market, dispute) == [key.address.lower()]
    verifier = Verifier(market, key, nowhere, execute=lambda *_: (2, bytes(32)), say=said.append)
    while now() < market.disputes.read("roundOf", dispute, 0)["commitEnds"]:
        verifier.tick()
    assert any("does not vote" in line for line in said)
    assert not market.disputes.events("Committed")
    monkeypatch.setattr("counterfoil.market.agents.now", lambda: now() + 1300)
    Challenger(market, markets.party(market), nowhere, check=lambda *_: None, say=said.append).tick()
    assert not market.challenge.events("Demanded")


@pytest.fixture(scope="module")
def trained(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Path, Path, Key]:
    """A job, the run of a worker who lies at a step, an honest one, and their key."""
    folder, key = tmp_path_factory.mktemp("trained"), Key.generate()
    spec = {"seed": 1, "hidden": 8, "learning_rate": 0.05, "steps": STEPS, "checkpoint_every": 2}
    spec |= {"recipe": recipe_digest(mlp.__file__), "pins": [pin(0, "hyperparameters", "0/lr", 0.05)]}
    content = specification(spec, {"gradients": 1, "parameters": 1, "checkpoint": 2})
    job = Job(bytes(32), NOBODY, replace(_terms(content), units=STEPS), 0)
    recipe = Path(mlp.__file__)
    train(content, recipe, bytes(32), folder / "liar", key, install=lying(LIE_AT))
    train(content, recipe, bytes([1]) * 32, folder / "honest", key)
    return job, folder / "liar", folder / "honest", key


def test_an_honest_run_is_not_disputed(trained: tuple[Job, Path, Path, Key]) -> None:
    """A rule against withholding that accuses who withholds nothing."""
    job, _, honest, key = trained
    record = Record(honest)
    assert find_wrong(job, record) is None
    assert execute(job, record, record.receipts()[-1], bytes(32), key.address) == (1, bytes(32))


@pytest.mark.parametrize("hidden", ["batch", "parameters", "randomness", "everything"])
def test_a_lie_is_not_hidden_by_what_is_not_shown(
    hidden: str, trained: tuple[Job, Path, Path, Key], tmp_path: Path
) -> None:
    """A lie whose step cannot be executed, so that a challenger finds nothing and a panel does not vote."""
    job, liar, _, key = trained
    record = Record(liar)
    fields = {name for receipt in record.receipts() for name in record.opened(receipt)}
    shown = [] if hidden == "everything" else sorted(fields - {hidden})
    export(liar, tmp_path / "sealed", key=key, tensors=shown)
    sealed = Record(tmp_path / "sealed")
    disputed = find_wrong(job, sealed)
    assert disputed is not None and disputed.kind == "close"
    assert execute(job, sealed, disputed, bytes(32), key.address) == (2, bytes(32))
    assert find(job, sealed) is None


def test_a_delivery_that_is_completed_behind_the_dispute_is_executed(
    trained: tuple[Job, Path, Path, Key],
) -> None:
    """A worker who shows everything when the panel looks, so that the dispute of the whole run finds it complete."""
    job, liar, _, key = trained
    record = Record(liar)
    assert execute(job, record, record.receipts()[-1], bytes(32), key.address) == (2, bytes(32))


def test_a_step_that_says_it_cannot_be_executed_is_disputed(
    trained: tuple[Job, Path, Path, Key], tmp_path: Path
) -> None:
    """A lie behind the flag "not replayable", which its author sets."""
    job, liar, _, _ = trained
    key = Key.generate(tmp_path / "liar.key")
    content = Record(liar).spec
    policy, public = content.pop("policy"), content.pop("public")
    path = tmp_path / "flagged"
    train(
        specification(content, policy, public),
        Path(mlp.__file__),
        bytes(32),
        path,
        key,
        install=lying(LIE_AT),
    )

    def flag(told: dict[str, object]) -> None:
        if told.get("step") == str(LIE_AT) and "flags" in told:
            told["flags"] = "2"

    resign(path, bytes.fromhex((tmp_path / "liar.key").read_text()), flag)
    disputed = find_wrong(job, Record(path))
    assert disputed is not None and disputed.kind == "close"


@pytest.mark.parametrize("named", [True, False])
def test_a_lie_behind_another_machine_is_disputed_where_the_job_names_one(
    named: bool, trained: tuple[Job, Path, Path, Key], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A liar that names a machine which nobody has, so that bits that differ accuse it of nothing."""
    job, liar, _, key = trained
    spec = Record(liar).spec
    policy, public = spec.pop("policy"), spec.pop("public")
    content = specification(spec | ({"machine": machine()} if named else {}), policy, public)
    job = replace(job, terms=replace(job.terms, specification=hashlib.sha256(content).digest()))
    monkeypatch.setattr(collect, "local_environment", lambda: machine() | {"torch": "9.9"})
    train(
        content, Path(mlp.__file__), bytes(32), tmp_path / "elsewhere", Key.generate(), install=lying(LIE_AT)
    )
    monkeypatch.undo()
    record = Record(tmp_path / "elsewhere")
    disputed = find_wrong(job, record)
    if named:
        assert disputed is not None and disputed.kind == "close"
        assert execute(job, record, disputed, bytes(32), key.address) == (2, bytes(32))
    else:
        assert disputed is None


def test_a_stored_state_that_was_changed_is_disputed(
    trained: tuple[Job, Path, Path, Key], tmp_path: Path
) -> None:
    """A look at a run that ends with an error, and no dispute, because a stored state is not what was signed."""
    job, liar, _, _ = trained
    path = shutil.copytree(liar, tmp_path / "changed")
    stored = max((path / "objects").iterdir(), key=lambda each: each.stat().st_size)
    stored.write_bytes(bytes(stored.stat().st_size))
    disputed = find_wrong(job, Record(path))
    assert disputed is not None and disputed.kind == "close"


def _worker(
    market: Market,
    board: Path,
    said: list[str],
    key: Key | None = None,
    train: Callable[[bytes, Path, bytes, Path], None] = lambda *_: None,
) -> Worker:
    return Worker(
        market,
        key or markets.party(market, STAKE),
        board,
        folder=board / "runs",
        price=lambda *_: COIN // 2,
        train=train,
        opens=["checkpoint.parameters"],
        say=said.append,
    )


def _post(market: Market, board: Path, content: bytes, **changes: Any) -> Job:
    terms = replace(_terms(specification(SPEC)), specification=hashlib.sha256(content).digest(), **changes)
    job = market.post(terms, markets.party(market))
    place(board, job).mkdir(parents=True)
    (place(board, job) / SPECIFICATION).write_bytes(content)
    return job


def _terms(content: bytes) -> Terms:
    return Terms.of(
        content,
        now=int(time.time()),
        windows=(60, 60, 60, 60, 60),
        units=1,
        reward=COIN,
        stake=STAKE,
        deposit=COIN // 10,
        fee=COIN // 64,
    )
