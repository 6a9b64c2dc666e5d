"""Blocks that held an anchor are taken back; it must be anchored again, and once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from eth_account import Account
from web3 import Web3

import counterfoil
from chains import OnChain, anvil, ask, needs_anvil, networks, payer, record, until
from counterfoil import Chain, Key
from counterfoil.chain import submissions
from galileo import BadTiming, serve
from processes import run_cli, start_cli

pytestmark = needs_anvil


class World(NamedTuple):
    """A run on a node with a run ledger."""

    home: Path
    url: str
    key: Key
    path: Path
    chain: OnChain

    def cli(self, *command: str | Path) -> None:
        ended = run_cli(self.home, *command, *self.to)
        assert ended.code == 0, ended.output

    @property
    def to(self) -> tuple[str | Path, ...]:
        return ("--chain", self.url, "--key", self.home / "payer")

    def reorganise(self, depth: int, *transactions: tuple[str, int]) -> None:
        """Replaces so many blocks by others that hold these transactions only."""
        ask(self.url, "anvil_reorg", depth, list(transactions))


@pytest.fixture
def world(own_home: Path, tmp_path: Path) -> Iterator[World]:
    with anvil() as url:
        contract = Chain.deploy(url, payer(own_home / "deployer", url)).contract
        key = payer(own_home / "payer", url)
        record(tmp_path / "run", 1, 2, key)
        yield World(own_home, url, key, tmp_path / "run", OnChain(url, contract))


# Both ways on: what waits, and the same call again.
GO_ON: list[Callable[[World], None]] = [
    lambda world: world.cli("chain", "resume"),
    lambda world: world.cli("anchor", world.path),
]


@pytest.mark.parametrize("go_on", GO_ON, ids=["resume", "anchor"])
@pytest.mark.parametrize("depth", [1, 2], ids=["anchor", "registration and anchor"])
def test_a_final_anchor_that_vanishes_is_sent_again(
    world: World, depth: int, go_on: Callable[[World], None]
) -> None:
    """A reorganisation deeper than the confirmations that leaves the run unanchored for ever."""
    world.cli("anchor", world.path)
    assert world.chain.holds(world.path) == 1
    before = counterfoil.Record(world.path).anchors
    world.reorganise(depth)
    assert world.chain.events("Anchored", world.path) == []
    go_on(world)
    assert world.chain.holds(world.path) == 1
    assert counterfoil.Record(world.path).anchors != before
    assert world.chain.sent(world.key.address) == 2


def test_all_anchors_of_a_run_vanish(world: World) -> None:
    """Re-sending the newest one only, or in an order that the contract refuses."""
    for step in (2, 3, 4):
        if step > 2:
            record(world.path, step, step, world.key)
        world.cli("anchor", world.path)
    assert world.chain.holds(world.path) == 3
    world.reorganise(4)
    world.cli("chain", "resume")
    assert world.chain.holds(world.path) == 3
    assert world.chain.sent(world.key.address) == 4


def test_a_foreign_transaction_takes_the_nonce_of_a_final_anchor(world: World) -> None:
    """Bytes that can never be mined again are sent for ever.

    The record of the block that is gone stays in the folder, a hint where nothing lies.
    """
    world.cli("anchor", world.path)
    foreign = Account.from_key((world.home / "payer").read_text().strip()).sign_transaction(
        {
            "nonce": 1, "to": world.key.address, "value": 0, "gas": 21_000, "chainId": 31337,
            "maxFeePerGas": 10**10, "maxPriorityFeePerGas": 1,
        }
    )  # fmt: skip
    world.reorganise(1, (Web3.to_hex(foreign.raw_transaction), 0))
    assert world.chain.events("Anchored", world.path) == []
    world.cli("chain", "resume")
    assert world.chain.holds(world.path, stale=1) == 1
    assert world.chain.sent(world.key.address) == 3


def test_a_block_is_taken_back_before_it_is_deep_enough(world: World) -> None:
    """Counting blocks from the first sight of a transaction that is no longer on the chain."""
    world.cli("anchor", world.path)
    record(world.path, 3, 3, world.key)
    networks(world.home, {"chainId": 31337, "confirmations": 3})
    ask(world.url, "evm_setAutomine", False)
    process, output = start_cli(world.home, "anchor", world.path, *world.to)
    until(lambda: int(ask(world.url, "txpool_status")["pending"], 16) == 1)
    ask(world.url, "evm_mine")
    until(lambda: state().startswith("in block"))
    first = state()
    world.reorganise(1)
    ask(world.url, "evm_mine")
    until(lambda: state().startswith("signed"))
    until(lambda: int(ask(world.url, "txpool_status")["pending"], 16) == 1)
    assert len(world.chain.events("Anchored", world.path)) == 1
    ask(world.url, "evm_mine")
    until(lambda: state().startswith("in block") and state() != first)
    time.sleep(0.5)
    assert process.is_alive(), output.read_text()
    for _ in range(2):
        ask(world.url, "evm_mine")
    process.join()
    assert process.exitcode == 0, output.read_text()
    assert world.chain.holds(world.path) == 2


def test_an_anchor_that_is_mined_between_two_looks_is_known_as_ours(world: World) -> None:
    """An own transaction is taken for a foreign one, so that nobody sends it again when it vanishes."""
    world.cli("anchor", world.path)
    record(world.path, 3, 3, world.key)
    with serve(BadTiming(world.url)) as front:
        Chain.connect(front, world.chain.contract).anchor(world.path, world.key)
    told = state()
    world.reorganise(1)
    world.cli("chain", "resume")
    assert len(world.chain.events("Anchored", world.path)) == 2, told
    assert told.startswith("final in block")


def test_a_deployment_that_is_mined_between_two_looks_is_paid_for_once(
    own_home: Path, tmp_path: Path
) -> None:
    """An own transaction is taken for a foreign one, and done again."""
    with anvil() as url:
        ask(url, "anvil_setCode", "0x4e59b44847b379578588920cA78FbF26c0B4956C", "0x")
        key = payer(tmp_path / "key", url)
        with serve(BadTiming(url)) as front:
            ledger = Chain.deploy(front, key)
        assert OnChain(url, ledger.contract).sent(key.address) == 1


def state() -> str:
    """Where the newest anchor stands by the outbox."""
    return [state for _, task, state in submissions() if task.startswith("anchor of")][-1]
