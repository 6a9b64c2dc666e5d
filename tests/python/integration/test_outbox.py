"""Deploying, paying and submitting side by side, on a node of other people."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_account import Account

from chains import GALILEO, OnChain, anvil, ask, needs_anvil, networks, payer, record
from counterfoil import Chain, Key, errors
from counterfoil.chain import submissions
from processes import run_cli, start_cli

pytestmark = needs_anvil
FACTORY = "0x4e59b44847b379578588920cA78FbF26c0B4956C"
FAUCET = "https://faucet.0g.ai"


@pytest.fixture
def galileo(own_home: Path) -> Iterator[str]:
    """A node with the chain id of 0G's testnet, known as `galileo`."""
    with anvil(GALILEO) as url:
        networks(own_home, {"chainId": GALILEO, "rpc": url, "confirmations": 1})
        yield url


@pytest.fixture
def dev() -> Iterator[str]:
    """A development node."""
    with anvil() as url:
        yield url


def change(home: Path, **values: object) -> None:
    """Changes what the user's table says of galileo; None takes it out."""
    (entry,) = json.loads((home / "networks.json").read_text())
    networks(home, {name: value for name, value in {**entry, **values}.items() if value is not None})


# Deployment


def test_the_factory_gives_every_chain_the_address_of_the_development_chain(
    galileo: str, own_home: Path, tmp_path: Path
) -> None:
    """An address that depends on who deploys; a second deployment that is paid for."""
    key = payer(tmp_path / "key", galileo)
    first = Chain.deploy("galileo", key)
    assert first.contract == Chain.dev(tmp_path / "dev").contract
    sent = OnChain(galileo, first.contract).sent(key.address)
    told = run_cli(own_home, "chain", "deploy", "--chain", "galileo", "--key", tmp_path / "key")
    assert first.contract in told.output, told.output
    # Another account finds it too, without money.
    Key.generate(tmp_path / "poor")
    told = run_cli(own_home, "chain", "deploy", "--chain", "galileo", "--key", tmp_path / "poor")
    assert first.contract in told.output, told.output
    assert OnChain(galileo, first.contract).sent(key.address) == sent == 1


def test_without_the_factory_the_address_is_written_down(
    galileo: str, own_home: Path, tmp_path: Path
) -> None:
    """A contract that was paid for and that nobody finds again."""
    ask(galileo, "anvil_setCode", FACTORY, "0x")
    key = payer(tmp_path / "key", galileo)
    ledger = Chain.deploy("galileo", key)
    assert ledger.contract != Chain.dev(tmp_path / "dev").contract
    (entry,) = json.loads((own_home / "networks.json").read_text())
    assert entry["contract"].lower() == ledger.contract.lower()
    assert entry["rpc"] == galileo, "the rest of the user's table is kept"
    record(tmp_path / "run", 1, 1, key)
    told = run_cli(own_home, "anchor", tmp_path / "run", "--chain", "galileo", "--key", tmp_path / "key")
    assert told.code == 0, told.output
    assert OnChain(galileo, ledger.contract).holds(tmp_path / "run") == 1
    assert Chain.deploy("galileo", key).contract == ledger.contract
    assert OnChain(galileo, ledger.contract).sent(key.address) == 3


@pytest.mark.usefixtures("galileo")
def test_who_connects_first_is_told_how_to_deploy() -> None:
    """An error that leaves a beginner alone: no command, no cost, no source of money."""
    with pytest.raises(errors.ChainError) as caught:
        Chain.connect("galileo")
    told = str(caught.value)
    assert "counterfoil chain deploy --chain galileo" in told
    assert FAUCET in told
    cost = float(told.split("for about ")[1].split(" 0G")[0])
    assert 0.001 < cost < 0.1


# Money


@pytest.fixture
def waiting(galileo: str, tmp_path: Path) -> Path:
    """A run and an empty account, on a chain with a run ledger."""
    Chain.deploy("galileo", payer(tmp_path / "deployer", galileo))
    record(tmp_path / "run", 1, 2, Key.generate(tmp_path / "key"))
    return tmp_path / "run"


def refused(waiting: Path) -> str:
    """What the refusal to anchor now says."""
    with pytest.raises(errors.Unfinished) as caught:
        Chain.connect("galileo").anchor(waiting, Key.load(waiting.parent / "key"))
    assert caught.value.code == "unfinished"
    assert "counterfoil chain resume --chain galileo" in str(caught.value)
    return str(caught.value)


def resume(own_home: Path, waiting: Path) -> None:
    told = run_cli(own_home, "chain", "resume", "--chain", "galileo", "--key", waiting.parent / "key")
    assert told.code == 0, told.output
    assert "registration" in told.output
    assert "anchor of 5 receipts" in told.output
    assert told.output.count("final in block") == 2, told.output


def test_an_empty_account_is_told_how_much_and_where(galileo: str, own_home: Path, waiting: Path) -> None:
    """Money that runs out loses an anchor, or says only that something failed."""
    contract = Chain.connect("galileo").contract
    account = Key.load(waiting.parent / "key").address
    told = refused(waiting)
    assert account in told
    assert FAUCET in told
    assert 0 < float(told.split("it may cost ")[1].split(" 0G")[0]) < 0.1
    # The command line says the same, sends nothing, and needs no key to say it.
    why = run_cli(own_home, "chain", "why", "--chain", "galileo")
    assert f"the account {account} has 0 0G, it may cost " in why.output
    assert FAUCET in why.output
    assert OnChain(galileo, contract).sent(account) == 0
    assert {state for box, _, state in submissions() if account.lower() in box} == {
        "written down, not signed yet"
    }
    ask(galileo, "anvil_setBalance", account, hex(10**18))
    assert "nothing speaks against" in run_cli(own_home, "chain", "why", "--chain", "galileo").output
    assert OnChain(galileo, contract).sent(account) == 0
    resume(own_home, waiting)
    assert OnChain(galileo, contract).holds(waiting) == 1


@pytest.mark.parametrize(
    ("limit", "reason"),
    [({"feeCap": "1000000000"}, "wei per gas"), ({"budget": "1000"}, "spent within 24 hours")],
)
def test_what_costs_too_much_waits(
    galileo: str, own_home: Path, waiting: Path, limit: dict[str, str], reason: str
) -> None:
    """A limit that is not kept, that loses what it stops, or that does not say its name."""
    account = Key.load(waiting.parent / "key").address
    ask(galileo, "anvil_setBalance", account, hex(10**18))
    change(own_home, **limit)
    told = refused(waiting)
    assert reason in told
    assert f"raise {next(iter(limit))} in networks.json" in told
    assert ask(galileo, "eth_getTransactionCount", account, "pending") == "0x0"
    change(own_home, **dict.fromkeys(limit))
    resume(own_home, waiting)
    assert OnChain(galileo, Chain.connect("galileo").contract).holds(waiting) == 1


def test_the_budget_counts_what_was_spent(galileo: str, own_home: Path, waiting: Path) -> None:
    """A budget per transaction instead of per day: any number of small ones passes."""
    ask(galileo, "anvil_setBalance", Key.load(waiting.parent / "key").address, hex(10**18))
    key = Key.load(waiting.parent / "key")
    chain = Chain.connect("galileo")
    chain.anchor(waiting, key)
    spent = 10**18 - int(ask(galileo, "eth_getBalance", key.address, "latest"), 16)
    record(waiting, 3, 3, key)
    # Enough for the next one alone, not for it and those before.
    change(own_home, budget=str(spent + spent // 10))
    told = refused(waiting)
    assert f"and {spent / 10**18:.18f}".rstrip("0") in told
    change(own_home, budget=None)
    assert Chain.connect("galileo").anchor(waiting, key).index == 1


# Keys


Account.enable_unaudited_hdwallet_features()
MNEMONIC = "test test test test test test test test test test test junk"


@pytest.fixture(scope="module")
def everybodys() -> list[str]:
    """The keys that anvil and Hardhat begin with."""
    path = "m/44'/60'/0'/0/{}"
    return [Account.from_mnemonic(MNEMONIC, account_path=path.format(n)).key.hex() for n in range(10)]


@pytest.mark.usefixtures("waiting")
def test_keys_that_everybody_has_pay_on_development_chains_only(
    dev: str, everybodys: list[str], tmp_path: Path
) -> None:
    """Money that a beginner sends to a well-known account is gone within seconds."""
    chain = Chain.connect("galileo")
    for number, secret in enumerate(everybodys):
        path = tmp_path / f"known-{number}"
        path.write_text(secret)
        path.chmod(0o600)
        with pytest.raises(errors.KeyRefused, match="everybody has the key"):
            chain.anchor(tmp_path / "run", Key.load(path))
        with pytest.raises(errors.KeyRefused, match="everybody has the key"):
            chain.resume(Key.load(path))
        assert Chain.deploy(dev, Key.load(path)).chain_id == 31337
    key = Key.load(tmp_path / "known-3")
    record(tmp_path / "dev-run", 1, 1, key)
    assert Chain.connect(dev).anchor(tmp_path / "dev-run", key).index == 0


@pytest.mark.usefixtures("waiting")
def test_the_device_key_pays_on_development_chains_only(dev: str, tmp_path: Path) -> None:
    """A key that was made without asking becomes a wallet."""
    chain = Chain.connect("galileo")
    record(tmp_path / "own", 1, 1)
    for submit in (
        lambda: chain.anchor(tmp_path / "own"),
        chain.resume,
        lambda: chain.revoke(Key.generate().address),
        lambda: Chain.deploy("galileo"),
    ):
        with pytest.raises(errors.KeyRefused, match="no key was chosen"):
            submit()
    assert Chain.deploy(dev).anchor(tmp_path / "own").index == 0


def test_a_node_of_another_chain_gets_nothing_signed(dev: str, own_home: Path, tmp_path: Path) -> None:
    """A transaction that was meant for one chain is valid on another."""
    networks(own_home, {"chainId": GALILEO, "rpc": dev})
    key = payer(tmp_path / "key", dev)
    record(tmp_path / "run", 1, 1, key)
    for call in (lambda: Chain.connect("galileo"), lambda: Chain.deploy("galileo", key)):
        with pytest.raises(errors.ChainError) as caught:
            call()
        assert (caught.value.expected, caught.value.actual) == (str(GALILEO), "31337")
    assert submissions() == []
    told = run_cli(own_home, "anchor", tmp_path / "run", "--chain", "galileo", "--key", tmp_path / "key")
    assert told.code == 1
    assert ask(dev, "eth_getTransactionCount", key.address, "pending") == "0x0"


# Side by side


def test_two_processes_share_an_account(dev: str, own_home: Path, tmp_path: Path) -> None:
    """Two transactions with one nonce; an outbox that is refused because it is in use, or overwritten."""
    key = payer(tmp_path / "key", dev)
    contract = Chain.deploy(dev).contract
    runs = [tmp_path / name for name in ("one", "other")]
    ask(dev, "evm_setAutomine", False)
    for path in runs:
        record(path, 1, 1, key)
    begun = [start_cli(own_home, "anchor", path, "--chain", dev, "--key", tmp_path / "key") for path in runs]
    looked = []
    while any(process.is_alive() for process, _ in begun):
        # Looking needs no lock, whoever submits.
        status = run_cli(own_home, "chain", "status")
        assert status.code == 0, status.output
        looked.append(status.output)
        ask(dev, "evm_mine")
    for process, output in begun:
        assert process.exitcode == 0, output.read_text()
    assert any("signed and sent" in each for each in looked)
    chain = OnChain(dev, contract)
    assert [chain.holds(path) for path in runs] == [1, 1]
    assert chain.sent(key.address) == 4


def test_two_threads_share_an_account(dev: str, tmp_path: Path) -> None:
    """A lock that keeps processes apart and threads not, or that a thread waits for in vain."""
    key = payer(tmp_path / "key", dev)
    ledger = Chain.deploy(dev)
    runs = [tmp_path / name for name in ("one", "other", "third")]
    for path in runs:
        record(path, 1, 1, key)
    failed: list[BaseException] = []

    def anchor(path: Path) -> None:
        try:
            ledger.anchor(path, key)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=anchor, args=(path,)) for path in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    chain = OnChain(dev, ledger.contract)
    assert [chain.holds(path) for path in runs] == [1, 1, 1]
    assert chain.sent(key.address) == 6


def test_looking_does_not_need_a_whole_outbox(dev: str, own_home: Path) -> None:
    """A process that is killed while it writes to an outbox leaves `status` useless."""
    Chain.deploy(dev)
    (folder,) = (own_home / "outbox").iterdir()
    whole = (folder / "journal").read_bytes()
    for kept in (0, 1, 20, len(whole) - 1):
        (folder / "journal").write_bytes(whole[:kept])
        status = run_cli(own_home, "chain", "status")
        assert status.code == 0, status.output


def test_looking_does_not_need_a_journal(own_home: Path) -> None:
    """A process that is killed while it makes an outbox leaves `status` useless."""
    (own_home / "outbox" / f"{GALILEO}-0x{7:040x}").mkdir(parents=True)
    assert submissions() == []
