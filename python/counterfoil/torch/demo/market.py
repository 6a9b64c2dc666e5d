"""A market in miniature: a requester pays for two trainings, one worker cheats, and money moves only by evidence.

Each party is a process of its own with a key of its own; they meet on a chain, over JSON-RPC, and in a folder.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from counterfoil import Chain, Key, Record
from counterfoil.errors import ChainError, CounterfoilError, NotFound
from counterfoil.market import Challenger, Job, Market, Parameters, State, Terms, Verifier, Worker, pin, why
from counterfoil.market.agents import DELIVERY, publish
from counterfoil.market.client import NOBODY, now
from counterfoil.run import specification
from counterfoil.torch.demo import fresh, lying, mlp, say
from counterfoil.torch.market import OPENS, execute, find_wrong, machine, recipe_digest, train

COIN = 10**18
STEPS, LIE_AT = 40, 27
REWARD, STAKE, DEPOSIT, FEE = COIN, 2 * COIN, COIN // 10, COIN // 64
PRICES = {"honest": (40, 70), "cheat": (60, 50)}
"""What each worker asks for the first and the second job, hundredths of a coin."""
VERIFIERS = ("verifier 1", "verifier 2")
ROLES = ("honest", "cheat", *VERIFIERS, "challenger")
"""What each process is, besides the chain and the requester."""
PATIENCE = 300.0
BIDS = (6, 6)
"""Seconds in which bids are made, and revealed."""
GIVEN = 10 * COIN
"""What each party begins with, wei."""


@dataclass(frozen=True)
class Party:
    """Where a process finds the others."""

    role: str
    place: Path
    url: str
    market: str

    def enter(self) -> tuple[Market, Key]:
        """The market and the party's own key."""
        os.environ["COUNTERFOIL_HOME"] = str(_home(self.place, self.role))
        return Market(Chain.connect(self.url), self.market), Key.device()


def main(folder: str | Path = "runs", *, anvil: bool = False) -> int:
    """Runs the demo below `folder`, in `market`, or in `market-2` and so on when that exists.

    Args:
        folder: Where.
        anvil: Takes the program `anvil` for the chain, in the place of the development chain.

    Returns:
        0 when the honest worker was paid, and the one that cheats was not.

    Raises:
        NotFound: scikit-learn, which brings the data, or anvil is not installed.
        CounterfoilError: The money did not go where it belongs.
    """
    place = fresh(Path(folder), "market").resolve()
    os.environ["COUNTERFOIL_HOME"] = str(_home(place, "requester"))
    with _chain(place, anvil) as url:
        key = Key.device()
        give(Chain.reach(url), key)
        market = Market.deploy(Chain.deploy(url), _parameters())
        say(
            f"a market on {'anvil' if anvil else 'the development chain'}: {market.address}, which nobody owns"
        )
        accounts = {"requester": key.address}
        with _processes(place, url, market.address) as check:
            for role in ROLES:
                accounts[role] = _await(_home(place, role) / "address", check).read_text()
            _wait_for_a_panel(market)
            jobs = [_post(market, place, seed) for seed in (1, 2)]
            say("two jobs are posted: the same training from two seeds, up to a coin each")
            _settle(market, jobs, list(accounts.values()), check)
        _tell(market, jobs, place, accounts)
    return 0


def _parameters() -> Parameters:
    """What the market is made with: its phases are as long as this machine needs to execute a step again."""
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", "import counterfoil.torch"], check=True)
    return Parameters(
        vote=12 + int(4 * (time.monotonic() - begin)),
        epoch=30,
        shortest_window=30,
        longest_window=86_400,
        seat=COIN,
        fee_per_unit=COIN // 10_000,
        issuance=COIN,
    )


def take_part(party: Party) -> None:
    """Is one of the parties until it is ended."""
    market, key = party.enter()
    board = party.place / "board"
    give(market.chain, key)
    tell = functools.partial(print, f"  {party.role:11}", flush=True)
    if party.role in PRICES:
        market.deposit(2 * STAKE, key)
        install = lying(LIE_AT) if party.role == "cheat" else lambda _: None

        def price(job: Job, spec: dict[str, Any]) -> int:
            return PRICES[party.role][spec["seed"] - 1] * COIN // 100

        def record(content: bytes, recipe: Path, nonce: bytes, path: Path) -> None:
            train(content, recipe, nonce, path, key, install=install)

        folder = party.place / party.role
        agent: Any = Worker(
            market, key, board, folder=folder, price=price, train=record, opens=OPENS, say=tell
        )
    elif party.role in VERIFIERS:
        market.deposit(2 * COIN, key)
        run = functools.partial(execute, verifier=key.address)
        agent = Verifier(market, key, board, execute=run, say=tell)
        agent.tick()
    else:
        agent = Challenger(market, key, board, check=find_wrong, say=tell)
    (_home(party.place, party.role) / "address").write_text(key.address)
    agent.run(lambda: False)


def give(chain: Chain, key: Key) -> None:
    """Gives an account its first coins, as development chains do."""
    chain.rpc("anvil_setBalance", [key.address, hex(GIVEN)])


def _wait_for_a_panel(market: Market) -> None:
    """Returns when all verifiers will be on the roll once the bids are revealed: a roll is fixed before its epoch."""
    first: dict[str, int] = {}
    for event in market.disputes.events("Enlisted"):
        first.setdefault(event["fields"]["verifier"], event["fields"]["epoch"])
    begins = max(first.values(), default=0) * market.parameters.epoch
    time.sleep(max(0, begins - sum(BIDS) - now()))


def _post(market: Market, place: Path, seed: int) -> Job:
    rate = 0.05
    spec = {
        "seed": seed,
        "hidden": 64,
        "learning_rate": rate,
        "steps": STEPS,
        "checkpoint_every": 5,
        "recipe": recipe_digest(mlp.__file__),
        "machine": machine(),
        "pins": [pin(0, "hyperparameters", "0/lr", rate)],
    }
    content = specification(spec, {"gradients": 1, "parameters": 1, "checkpoint": 5})
    terms = Terms.of(
        content,
        now=now(),
        windows=(*BIDS, 20, 120, 2 * market.parameters.vote),
        units=STEPS,
        reward=REWARD,
        stake=STAKE,
        deposit=DEPOSIT,
        fee=FEE,
        openable=("hyperparameters", "checkpoint.parameters"),
    )
    job = market.post(terms)
    publish(place / "board", job, content, mlp.__file__)
    return job


def _settle(market: Market, jobs: list[Job], accounts: list[str], check: Callable[[], None]) -> None:
    """Waits until both jobs are paid or refused, and everybody has withdrawn what is theirs."""
    until = time.monotonic() + PATIENCE

    def is_over() -> bool:
        found = [market.state(job) for job in jobs]
        is_decided = all(each["state"] in (State.PAID, State.REFUSED, State.CANCELLED) for each in found)
        if not is_decided or any(each["open"] for each in found):
            return False
        market.claim()
        return not any(market.owed(account) for account in accounts)

    while not is_over():
        check()
        if time.monotonic() > until:
            raise CounterfoilError(f"the jobs are not settled after {PATIENCE:.0f} seconds")
        time.sleep(0.5)


def _wealth(market: Market, account: str) -> int:
    """What an account has in its wallet, as stake and owed, wei."""
    stake = market.stake(account)
    wallet = int(market.chain.rpc("eth_getBalance", [account, "latest"]), 16)
    return wallet + stake["free"] + stake["locked"] + stake["leaving"] + market.owed(account)


def _gas(market: Market, accounts: dict[str, str]) -> dict[str, int]:
    """What each account's transactions cost, wei."""
    found, roles = dict.fromkeys(accounts, 0), {account.lower(): role for role, account in accounts.items()}
    for number in range(int(market.chain.rpc("eth_blockNumber"), 16) + 1):
        for hash_ in market.chain.rpc("eth_getBlockByNumber", [hex(number), False])["transactions"]:
            receipt = market.chain.rpc("eth_getTransactionReceipt", [hash_])
            found[roles[receipt["from"].lower()]] += int(receipt["gasUsed"], 16) * int(
                receipt["effectiveGasPrice"], 16
            )
    return found


def _tell(market: Market, jobs: list[Job], place: Path, accounts: dict[str, str]) -> None:
    """Explains the jobs and the balances.

    Raises:
        CounterfoilError: The money is not where it belongs, or some of it is nowhere.
    """
    console = Console(highlight=False)
    for number, job in enumerate(jobs, 1):
        console.print(f"\n[bold]job {number}[/bold]")
        for line in why(market, job):
            for role, account in accounts.items():
                line = line.replace(account, f"the {role}")
            console.print("  " + line.replace("the the ", "the "), soft_wrap=True)
    gas, burned = _gas(market, accounts), market.owed(NOBODY)
    change = {role: _wealth(market, account) + gas[role] - GIVEN for role, account in accounts.items()}
    table = Table(box=None, pad_edge=False)
    for name in ("", "coins", "why", "gas besides"):
        table.add_column(name, justify="right" if name in ("coins", "gas besides") else "left")
    reasons = _reasons(market, jobs, accounts)
    for role, amount in change.items():
        table.add_row(role, _coins(amount), "; ".join(reasons[role]), f"{gas[role] / COIN:.6f}")
    table.add_row("burned", _coins(burned), "a fee for each unit of finalised work")
    console.print()
    console.print(table)
    states = [market.state(job)["state"] for job in jobs]
    nowhere = sum(change.values()) + burned
    if states != [State.PAID, State.REFUSED] or nowhere:
        found = f"{[state.name.lower() for state in states]}, {nowhere} wei nowhere"
        raise CounterfoilError("the money is not where it belongs", expected="paid, refused, 0", actual=found)
    (dispute,) = market.disputes.events("Disputed", jobs[1].block, job=jobs[1].id)
    record = Record(place / "board" / jobs[1].id.hex() / DELIVERY)
    step = record.receipts()[dispute["fields"]["index"]].fields["step"]
    console.print(
        f"\nThe honest worker was paid. The other one applied another learning rate at step {step} than it recorded, "
        "and was not paid. Its receipts are intact, so no contract can see that: what withholds the reward is the "
        "word of the panel, attested, and its stake is whole.",
        soft_wrap=True,
    )


def _reasons(market: Market, jobs: list[Job], accounts: dict[str, str]) -> dict[str, list[str]]:
    """What each party's balance is made of, by the chain's own events."""
    found: dict[str, list[str]] = {role: [] for role in accounts}
    roles = {account: role for role, account in accounts.items()}
    for number, job in enumerate(jobs, 1):
        for event in market.escrow.events("Paid", job.block, job=job.id):
            worker, amount = event["fields"]["worker"], event["fields"]["amount"]
            found[roles[worker]].append(f"job {number} was paid, at the next bid's price")
            found["requester"].append(f"paid {_coins(amount)} for job {number}, and its burn")
        for event in market.escrow.events("Refused", job.block, job=job.id):
            by, bounty = event["fields"]["by"], event["fields"]["bounty"]
            found["requester"].append(f"job {number} came back, less a bounty of {_coins(bounty)}")
            found[roles[market.state(job)["worker"]]].append(
                f"job {number} was refused: stake and deposit came back, and nothing else"
            )
            found[roles[by]].append(f"the bounty of job {number}, less the panel's fees")
        for dispute in market.disputes.events("Disputed", job.block, job=job.id):
            for vote in market.disputes.events("Voted", job.block, id=dispute["fields"]["id"]):
                found[roles[vote["fields"]["verifier"]]].append(f"a fee for a vote on job {number}")
    return found


def _coins(amount: int) -> str:
    return f"{amount / COIN:+.6f}".rstrip("0").rstrip(".") if amount else "0"


def _home(place: Path, role: str) -> Path:
    home = place / "homes" / role.replace(" ", "-")
    home.mkdir(parents=True, exist_ok=True)
    return home


@contextlib.contextmanager
def _chain(place: Path, anvil: bool) -> Iterator[str]:
    """A node on this machine, in a process of its own, as long as the block lasts; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [str(Path(sys.executable).with_name("counterfoil")), "chain", "serve", "--port", port]
    command += ["--folder", str(place / "chain")]
    if anvil:
        program = shutil.which("anvil")
        if program is None:
            raise NotFound(
                "there is no anvil on PATH: it comes with foundry, or with npm as @foundry-rs/anvil"
            )
        command = [program, "--port", port, "--hardfork", "cancun", "--accounts", "0", "--silent"]
    with (place / "chain.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _until(lambda: _answers(url), lambda: _check(process, "the chain"))
        yield url
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _processes(place: Path, url: str, market: str) -> Iterator[Callable[[], None]]:
    """The parties' processes, as long as the block lasts; yields what raises when one of them has ended."""
    started: dict[str, subprocess.Popen[bytes]] = {}
    # Small layers: a second thread costs more than it brings.
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        for role in ROLES:
            command = [sys.executable, "-m", __name__, role, str(place), url, market]
            started[role] = subprocess.Popen(command, env=variables)
        yield functools.partial(_check_all, started)
    finally:
        for process in started.values():
            process.kill()
        for process in started.values():
            process.wait()


def _check_all(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    for role, process in processes.items():
        _check(process, role)


def _check(process: subprocess.Popen[bytes], role: str) -> None:
    if process.poll() is not None:
        raise CounterfoilError(f"the process of {role} ended with exit code {process.returncode}")


def _answers(url: str) -> bool:
    try:
        Chain.reach(url)
    except ChainError:
        return False
    return True


def _await(path: Path, check: Callable[[], None]) -> Path:
    _until(path.exists, check)
    return path


def _until(is_there: Callable[[], bool], check: Callable[[], None]) -> None:
    until = time.monotonic() + PATIENCE
    while not is_there():
        check()
        if time.monotonic() > until:
            raise CounterfoilError(f"the demo did not begin within {PATIENCE:.0f} seconds")
        time.sleep(0.1)


if __name__ == "__main__":
    role_, place_, url_, market_ = sys.argv[1:]
    take_part(Party(role_, Path(place_), url_, market_))
