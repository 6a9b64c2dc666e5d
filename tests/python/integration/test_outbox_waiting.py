"""What is kept and said while something waits, and while a folder, a node, a lock or an address is not as it should be."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chains import GALILEO, OnChain, anvil, ask, needs_anvil, networks, payer, record, until
from counterfoil import Chain, Key, errors
from counterfoil.chain import submissions
from galileo import Node, serve
from processes import run_cli, start_cli

pytestmark = needs_anvil
FACTORY = "0x4e59b44847b379578588920cA78FbF26c0B4956C"


@pytest.fixture
def dev(own_home: Path) -> Iterator[str]:
    """A development node with a run ledger."""
    with anvil() as url:
        Chain.deploy(url, payer(own_home / "deployer", url))
        yield url


@pytest.fixture
def key(dev: str, own_home: Path) -> Key:
    """A key in a file, whose account can pay."""
    return payer(own_home / "payer", dev)


@pytest.fixture
def run(key: Key, tmp_path: Path) -> Path:
    """A run that the key recorded."""
    record(tmp_path / "run", 1, 2, key)
    return tmp_path / "run"


# Folders


def test_a_run_folder_that_takes_no_record_stops_nothing(
    dev: str, key: Key, run: Path, own_home: Path, tmp_path: Path
) -> None:
    """One folder on a disk that was taken away blocks the account for ever."""
    record(tmp_path / "other", 1, 1, key)
    (run / "anchors").rmdir()
    (run / "anchors").write_text("No folder.")
    networks(own_home, {"chainId": 31337, "budget": "1"})
    with pytest.raises(errors.Unfinished, match="raise budget"):
        Chain.connect(dev).anchor(run, key)
    networks(own_home)
    resumed = run_cli(own_home, "chain", "resume", "--chain", dev, "--key", own_home / "payer")
    assert resumed.code == 0, resumed.output
    assert "the run folder did not take its record" in resumed.output
    chain = Chain.connect(dev)
    with pytest.raises(errors.StorageError):
        chain.anchor(run, key)
    assert chain.why() == []
    assert chain.anchor(tmp_path / "other", key).index == 0
    (run / "anchors").unlink()
    chain.anchor(run, key)
    on_chain = OnChain(dev, chain.contract)
    assert [on_chain.holds(path) for path in (run, tmp_path / "other")] == [1, 1]
    assert on_chain.sent(key.address) == 4


def test_what_a_desktop_leaves_in_a_folder_stops_nothing(dev: str, key: Key, run: Path) -> None:
    """A file of an editor or a file manager keeps every record out."""
    strangers = ["0.json", ".DS_Store", "notes.txt"]
    for name in strangers:
        (run / "anchors" / name).write_text("no record")
    anchored = Chain.connect(dev).anchor(run, key)
    (stored,) = (file for file in (run / "anchors").iterdir() if file.name not in strangers)
    assert json.loads(stored.read_text())["transactionHash"] == anchored.transaction_hash


# Nodes


class Overloaded(Node):
    """Refuses everything after a while."""

    is_silent = False

    def answer(self, method: str, params: list[Any]) -> dict[str, Any]:
        """The result or the error of a call."""
        if self.is_silent:
            return {"error": {"code": -32603, "message": "internal error"}}
        return super().answer(method, params)


def test_a_silent_node_does_not_hear_it_and_it_is_written_down(dev: str, key: Key, run: Path) -> None:
    """An anchor that is forgotten since nobody could be asked whether it is needed."""
    node = Overloaded(dev, 0, 0)
    with serve(node) as front:
        chain = Chain.connect(front)
        node.is_silent = True
        with pytest.raises(errors.Unfinished, match="internal error"):
            chain.anchor(run, key)
    states = [state for name, _, state in submissions() if key.address.lower() in name]
    assert states == ["written down, not signed yet"] * 2
    assert len(Chain.connect(dev).resume(key)) == 2
    assert OnChain(dev, chain.contract).holds(run) == 1


def test_chains_with_one_id_are_told_apart(own_home: Path, tmp_path: Path) -> None:
    """A test network that begins again is given what another one waited for."""
    for time in ("1700000000", "1700000001"):
        with anvil(GALILEO, "--timestamp", time) as url:
            networks(own_home, {"chainId": GALILEO, "rpc": url, "confirmations": 1})
            Chain.deploy("galileo", payer(tmp_path / f"deployer-{time}", url))
            assert Chain.connect("galileo").why() == []
            record(tmp_path / time, 1, 1, Key.generate(tmp_path / f"poor-{time}"))
            with pytest.raises(errors.Unfinished):
                Chain.connect("galileo").anchor(tmp_path / time, Key.load(tmp_path / f"poor-{time}"))
    assert len({name.rsplit("-", 1)[0] for name, _, _ in submissions()}) == 2


def test_why_answers_while_another_process_submits(dev: str, key: Key, run: Path, own_home: Path) -> None:
    """Whoever waits is told nothing as long as something is going on."""
    ask(dev, "evm_setAutomine", False)
    process, output = start_cli(own_home, "anchor", run, "--chain", dev, "--key", own_home / "payer")
    until(lambda: any(state.startswith("signed") for _, _, state in submissions()))
    told = run_cli(own_home, "chain", "why", "--chain", dev)
    assert told.code == 0, told.output
    assert "registration of the run" in told.output
    assert "signed and sent" in told.output
    assert "another process goes on with it" in told.output
    while process.is_alive():
        ask(dev, "evm_mine")
    assert process.exitcode == 0, output.read_text()


# Advice


def command(told: str) -> list[str]:
    """The command that a message advises."""
    return shlex.split(told[told.rindex("counterfoil ") :])


def test_the_advice_is_a_command_that_works(own_home: Path, tmp_path: Path) -> None:
    """A command that names no key, where one has to be chosen, or another network."""
    with anvil(GALILEO) as url:
        networks(own_home, {"chainId": GALILEO, "rpc": url, "confirmations": 1})
        with pytest.raises(errors.ChainError, match="chain deploy --chain galileo --key FILE, for about"):
            Chain.connect("galileo")
        Chain.deploy("galileo", payer(tmp_path / "deployer", url))
        key = Key.generate(tmp_path / "key")
        record(tmp_path / "run", 1, 1, key)
        with pytest.raises(errors.Unfinished) as caught:
            Chain.connect("galileo").anchor(tmp_path / "run", key)
        ask(url, "anvil_setBalance", key.address, hex(10**18))
        words = [str(tmp_path / "key") if word == "FILE" else word for word in command(str(caught.value))]
        assert words[0] == "counterfoil"
        resumed = run_cli(own_home, *words[1:])
        assert resumed.code == 0, resumed.output
        assert OnChain(url, Chain.connect("galileo").contract).holds(tmp_path / "run") == 1


@pytest.mark.parametrize("name", ["anvil", "mine"])
def test_the_advice_repeats_the_name_that_was_typed(
    dev: str, key: Key, run: Path, own_home: Path, name: str
) -> None:
    """Several networks share the development chains' id; the first of them is not the one that was meant."""
    networks(
        own_home, {"chainId": 31337, "rpc": dev, "budget": "1", **({"name": name} if name != "anvil" else {})}
    )
    with pytest.raises(errors.Unfinished) as caught:
        Chain.connect(name).anchor(run, key)
    assert command(str(caught.value)) == ["counterfoil", "chain", "resume", "--chain", name]


def test_a_gateways_key_is_not_repeated() -> None:
    """Messages are copied into issues; the address of a gateway is a password."""
    with anvil(GALILEO) as url, serve(Node(url, 0, 0)) as front:
        with pytest.raises(errors.ChainError) as caught:
            Chain.connect(f"{front}/v3/SECRET?key=SECRET")
        assert f"counterfoil chain deploy --chain {front}/... --key FILE" in str(caught.value)
        assert "SECRET" not in str(caught.value)


# Deployment


@pytest.fixture
def galileo(own_home: Path) -> Iterator[str]:
    """A node with the chain id of 0G's testnet, known as `galileo`."""
    with anvil(GALILEO) as url:
        networks(own_home, {"chainId": GALILEO, "rpc": url, "confirmations": 1})
        yield url


def test_the_usual_address_is_not_written_down(galileo: str, own_home: Path, tmp_path: Path) -> None:
    """The next version's ledger lies elsewhere, and the user's table still names the old one."""
    key = payer(tmp_path / "key", galileo)
    ledger = Chain.deploy("galileo", key)
    assert "contract" not in (own_home / "networks.json").read_text()
    # Another version lies there: it is told, and nothing is paid for.
    ask(galileo, "anvil_setCode", ledger.contract, "0x00")
    with pytest.raises(errors.ChainError, match=r"no run ledger of this version.*networks\.json and deploy"):
        Chain.deploy("galileo", key)
    assert OnChain(galileo, ledger.contract).sent(key.address) == 1


def test_what_the_user_writes_during_a_deployment_is_kept(
    galileo: str, own_home: Path, tmp_path: Path
) -> None:
    """A table that was read before the wait is written after it."""
    ask(galileo, "anvil_setCode", FACTORY, "0x")
    ask(galileo, "evm_setAutomine", False)
    key = payer(tmp_path / "key", galileo)
    deployed: list[Chain] = []
    thread = threading.Thread(target=lambda: deployed.append(Chain.deploy("galileo", key)))
    thread.start()
    until(lambda: int(ask(galileo, "txpool_status")["pending"], 16) == 1)
    (entry,) = json.loads((own_home / "networks.json").read_text())
    networks(own_home, {**entry, "budget": "7"}, {"chainId": 5, "name": "five"})
    ask(galileo, "evm_mine")
    thread.join()
    own, other = json.loads((own_home / "networks.json").read_text())
    assert (own["budget"], own["contract"].lower()) == ("7", deployed[0].contract.lower())
    assert other == {"chainId": 5, "name": "five"}
