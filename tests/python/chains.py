"""Nodes of other people, and what they hold, read without Counterfoil."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from web3 import HTTPProvider, Web3

import counterfoil
from counterfoil import Key, Run
from counterfoil.chain import submissions

ROOT = Path(__file__).parents[2]
ARTIFACT = json.loads((ROOT / "contracts/artifacts/RunLedger.json").read_text())
ANVIL = ROOT / "contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
GALILEO = 16602
needs_anvil = pytest.mark.skipif(
    not ANVIL.exists(), reason="there is no anvil: run `npm ci` in contracts on x86-64 Linux"
)


@contextmanager
def anvil(chain_id: int = 31337, *options: str) -> Iterator[str]:
    """A node, as long as the block lasts; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--port", str(port), "--hardfork", "cancun", "--chain-id", str(chain_id), "--silent"]
    process = subprocess.Popen([ANVIL, *arguments, "--accounts", "0", *options])
    try:
        url = f"http://127.0.0.1:{port}"
        web3 = Web3(HTTPProvider(url))
        until = time.monotonic() + 20
        while not web3.is_connected():
            assert process.poll() is None, "anvil ended"
            assert time.monotonic() < until, "anvil does not answer"
            time.sleep(0.05)
        yield url
    finally:
        # Asked to end, it would wait a minute for connections that somebody keeps.
        process.kill()
        process.wait()


def answer(url: str, method: str, params: list[Any]) -> dict[str, Any]:
    """Calls a method of a node; its answer has a `result` or an `error`."""
    told = Web3(HTTPProvider(url)).provider.make_request(method, params)  # type: ignore[arg-type]
    return {name: told[name] for name in ("result", "error") if name in told}


def ask(url: str, method: str, *params: Any) -> Any:
    """Calls a method of a node, which must not refuse."""
    told = answer(url, method, list(params))
    assert "error" not in told, told
    return told["result"]


def until(holds: Callable[[], bool]) -> None:
    """Waits until that is so."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, submissions()[-2:]
        time.sleep(0.02)


def networks(home: Path, *entries: dict[str, Any]) -> None:
    """Writes the user's table of networks."""
    (home / "networks.json").write_text(json.dumps(entries))


def payer(path: Path, url: str, wei: int = 10**18) -> Key:
    """A new key in a file, whose account has so much."""
    key = Key.generate(path)
    ask(url, "anvil_setBalance", key.address, hex(wei))
    return key


def record(path: Path, first: int, last: int, key: Key | None = None) -> None:
    """Records these steps into a new or an existing run and closes it."""
    with Run.create(path, key=key) if first == 1 else Run.open(path, key=key) as run:
        for step in range(first, last + 1):
            run.record_step(step, gradients(step))


def gradients(step: int) -> dict[str, counterfoil.Commitment]:
    """Fields of a step that says something."""
    return {"gradients": counterfoil.commit_tensors({"weights": np.full(3, float(step))})}


@dataclass(frozen=True)
class OnChain:
    """What a node holds of a run ledger, as web3.py reads it."""

    url: str
    contract: str

    def events(self, name: str, path: Path) -> list[Any]:
        """The events of this name of a run, by time."""
        web3 = Web3(HTTPProvider(self.url))
        ledger = web3.eth.contract(address=web3.to_checksum_address(self.contract), abi=ARTIFACT["abi"])
        run = {"run": bytes.fromhex(str(counterfoil.Record(path).run)[2:])}
        return list(ledger.events[name]().get_logs(from_block=0, argument_filters=run))

    def sent(self, account: str) -> int:
        """Transactions of an account in blocks; nothing else of it is pending."""
        known, pending = (
            int(ask(self.url, "eth_getTransactionCount", account, tag), 16) for tag in ("latest", "pending")
        )
        assert known == pending, "something is still pending"
        return known

    def holds(self, path: Path, stale: int = 0) -> int:
        """Checks that the run was registered once and each anchor exists once, stored in the folder
        where the chain has it and confirmed by `verify`; returns how many there are. The folder may
        have so many stale records of blocks that are gone."""
        assert len(self.events("Registered", path)) == 1
        events = self.events("Anchored", path)
        assert [event.args.index for event in events] == list(range(len(events)))
        sizes = [event.args.size for event in events]
        assert sizes == sorted(set(sizes))
        stored = [json.loads(file.read_text()) for file in (path / "anchors").glob("*.json")]
        places = {(int(anchor["index"]), anchor["transactionHash"], anchor["blockHash"]) for anchor in stored}
        found = {
            (event.args.index, Web3.to_hex(event.transactionHash), Web3.to_hex(event.blockHash))
            for event in events
        }
        assert len(stored) == len(places) == len(found) + stale
        assert places >= found
        # On a public chain time is established, on a development chain only self-anchored.
        verdict = counterfoil.verify(path, chain=counterfoil.Chain.connect(self.url, self.contract))
        assert verdict.status == "verified", str(verdict)
        assert f"all {len(counterfoil.Record(path).receipts())} receipts" in verdict.time, str(verdict)
        return len(events)
