"""A run that is anchored while it is recorded, by a thread that never gets in the way."""

from __future__ import annotations

import gc
import math
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from chains import GALILEO, OnChain, anvil, ask, gradients, needs_anvil, networks, payer, until
from counterfoil import Chain, Key, Record, Run, errors
from counterfoil.run import Session

pytestmark = needs_anvil


@pytest.fixture
def dev(own_home: Path) -> Iterator[str]:
    """A development node with a run ledger."""
    with anvil() as url:
        Chain.deploy(url)
        yield url


def anchors(chain: Chain, path: Path) -> int:
    return (chain.head(path) or (0, 0))[0]


def test_steps_are_anchored_while_more_are_recorded(dev: str, tmp_path: Path) -> None:
    """Anchoring only at the end, every step, or without the receipt that closes the run."""
    chain = Chain.connect(dev)
    with Run.create(tmp_path / "run") as run:
        run.anchor_to(chain, steps=10)
        for step in range(1, 10):
            run.record_step(step, gradients(step))
        time.sleep(1.2)
        assert anchors(chain, run.path) == 0, "nine steps are not ten"
        for step in range(10, 16):
            run.record_step(step, gradients(step))
        until(lambda: anchors(chain, run.path) == 1)
        for step in range(16, 31):
            run.record_step(step, gradients(step))
        until(lambda: anchors(chain, run.path) == 2)
        time.sleep(1.2)
    head = chain.head(tmp_path / "run")
    assert head == (3, len(Record(tmp_path / "run").receipts())), "the last receipt says that it is closed"
    assert OnChain(dev, chain.contract).holds(tmp_path / "run") == 3


def test_what_is_late_is_anchored_without_more_steps(dev: str, tmp_path: Path) -> None:
    """A slow training whose steps wait for others; a run without news that is paid for again."""
    chain = Chain.connect(dev)
    with Run.create(tmp_path / "run") as run:
        run.anchor_to(chain, minutes=0.02)
        run.record_step(1, gradients(1))
        until(lambda: anchors(chain, run.path) == 1)
        time.sleep(2.5)
        assert anchors(chain, run.path) == 1, "nothing is new"
    assert chain.head(tmp_path / "run") == (2, len(Record(tmp_path / "run").receipts()))


def test_a_chain_that_is_down_is_a_warning(own_home: Path, tmp_path: Path) -> None:
    """Days of training that end because a node does not answer, or a failure that nobody sees."""
    with anvil() as url:
        Chain.deploy(url)
        chain = Chain.connect(url)

    def train() -> None:
        with Run.create(tmp_path / "run") as run:
            run.anchor_to(chain, steps=1)
            for step in range(1, 6):
                begin = time.monotonic()
                run.record_step(step, gradients(step))
                assert time.monotonic() - begin < 0.5, "recording waits for the chain"
                time.sleep(0.2)

    with pytest.warns(UserWarning, match="the run was not anchored") as warned:
        train()
    assert all("cannot be reached" in str(each.message) for each in warned)
    receipts = Record(tmp_path / "run").receipts()
    assert receipts[-1].kind == "close"
    assert receipts[-2].fields["step"] == 5


def test_an_account_that_is_filled_up_is_used_again(own_home: Path, tmp_path: Path) -> None:
    """A thread that gives up after its first failure; a warning that does not say what to do."""
    with anvil(GALILEO) as url:
        networks(own_home, {"chainId": GALILEO, "rpc": url, "confirmations": 1})
        chain = Chain.deploy("galileo", payer(tmp_path / "deployer", url))
        key = Key.generate()
        with Run.create(tmp_path / "run", key=key) as run:
            with pytest.warns(UserWarning, match=f"not anchored.*{key.address} has 0 0G.*faucet"):  # noqa: PT031
                run.anchor_to(chain, key, steps=1)
                run.record_step(1, gradients(1))
                time.sleep(1.2)
            ask(url, "anvil_setBalance", key.address, hex(10**18))
            run.record_step(2, gradients(2))
            until(lambda: anchors(chain, run.path) > 0)
        assert (chain.head(tmp_path / "run") or (0, 0))[1] == len(Record(tmp_path / "run").receipts())
        OnChain(url, chain.contract).holds(tmp_path / "run")


def test_an_exception_does_not_wait_for_the_chain(dev: str, tmp_path: Path) -> None:
    """A debugger, a scheduler or a person waits minutes for a traceback while a node is silent."""
    chain = Chain.connect(dev)
    # Nothing is mined, so that an anchor takes for ever.
    ask(dev, "evm_setAutomine", False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        begin = time.monotonic()
        with pytest.raises(ZeroDivisionError), Run.create(tmp_path / "run") as run:
            run.anchor_to(chain, steps=1)
            run.record_step(1, gradients(1))
            until(lambda: int(ask(dev, "txpool_status")["pending"], 16) == 1)
            begin = time.monotonic()
            raise ZeroDivisionError
        assert time.monotonic() - begin < 1
        # What was begun is finished in the background.
        ask(dev, "evm_setAutomine", True)
        ask(dev, "evm_mine")
        until(lambda: anchors(chain, tmp_path / "run") == 1)
    assert Record(tmp_path / "run").receipts()[-1].fields["reason"] == 1
    assert chain.anchor(tmp_path / "run").size == len(Record(tmp_path / "run").receipts())


def test_a_run_is_anchored_to_one_chain_and_while_it_is_open(dev: str, tmp_path: Path) -> None:
    """Two threads that anchor one lane, or one that waits for steps which never come."""
    chain = Chain.connect(dev)
    with Run.create(tmp_path / "run") as run:
        run.anchor_to(chain)
        with pytest.raises(errors.InvalidInput):
            run.anchor_to(chain)
    with pytest.raises(errors.InvalidInput):
        run.anchor_to(chain)
    assert not threads()


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "counterfoil-anchoring"]


def test_a_run_that_is_dropped_is_anchored_no_more(dev: str, tmp_path: Path) -> None:
    """A thread holds a run that nobody else has, and its lock, as long as the program lives."""
    chain = Chain.connect(dev)
    run = Run.create(tmp_path / "run")
    run.anchor_to(chain, steps=1000)
    run.record_step(1, gradients(1))
    run.flush()
    del run
    gc.collect()
    with Run.open(tmp_path / "run") as again:
        assert again.step == 1
    until(lambda: not threads())
    assert anchors(chain, tmp_path / "run") == 0


def test_a_run_that_is_dropped_while_it_is_anchored_is_free(dev: str, tmp_path: Path) -> None:
    """Who waits for a block keeps the run's lock."""
    chain = Chain.connect(dev)
    ask(dev, "evm_setAutomine", False)
    run = Run.create(tmp_path / "run")
    run.anchor_to(chain, steps=1)
    run.record_step(1, gradients(1))
    until(lambda: int(ask(dev, "txpool_status")["pending"], 16) == 1)
    del run
    gc.collect()
    Run.open(tmp_path / "run").close()
    ask(dev, "evm_setAutomine", True)
    ask(dev, "evm_mine")
    until(lambda: not threads())
    assert anchors(chain, tmp_path / "run") == 1


@pytest.mark.parametrize(
    "when", [{"steps": 0}, {"steps": -1}, {"minutes": 0}, {"minutes": -1}, {"minutes": math.nan}], ids=str
)
def test_what_is_no_time_to_anchor_is_refused(dev: str, tmp_path: Path, when: dict[str, float]) -> None:
    """An anchor in every tick of the clock, or never."""
    with Run.create(tmp_path / "run") as run, pytest.raises(errors.InvalidInput):
        run.anchor_to(Chain.connect(dev), **when)  # type: ignore[arg-type]
    assert Chain.connect(dev).head(tmp_path / "run") is None


def test_a_sessions_key_does_not_pay(dev: str, tmp_path: Path) -> None:
    """A run of days whose every anchor the contract refuses."""
    chain, worker = Chain.connect(dev), Key.generate()
    with Run.create(tmp_path / "run", key=worker, session=Session(Key.generate())) as run:
        with pytest.raises(errors.InvalidInput, match="pass the worker's key") as caught:
            run.anchor_to(chain)
        assert caught.value.expected == worker.address
        run.anchor_to(chain, worker)
    assert anchors(chain, tmp_path / "run") == 1
