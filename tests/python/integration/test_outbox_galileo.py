"""From nothing to an anchor on a node with the habits of 0G's testnet, with the commands that users type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from chains import GALILEO, OnChain, anvil, ask, needs_anvil, networks, payer, record
from counterfoil import Key
from galileo import galileo
from oracle import ROOT
from processes import run_cli

pytestmark = needs_anvil
TO = ("--chain", "galileo", "--key")


@pytest.mark.parametrize("lag", [0, 2, 4])
def test_the_first_transaction_is_accepted(own_home: Path, tmp_path: Path, lag: int) -> None:
    """A tip as the node advises, which it then refuses; fields that no specification has; old answers.

    With more lag than confirmations the node contradicts what was final.
    """
    with anvil(GALILEO, "--block-time", "0.05") as url, galileo(url, lag=lag) as (front, node):
        networks(own_home, {"chainId": GALILEO, "rpc": front, "confirmations": 3})
        key = payer(tmp_path / "key", url)
        record(tmp_path / "run", 1, 2, key)
        deployed = run_cli(own_home, "chain", "deploy", *TO, tmp_path / "key")
        assert deployed.code == 0, deployed.output
        contract = deployed.output.split()[5]
        for step in (2, 3, 4):
            if step > 2:
                record(tmp_path / "run", step, step, key)
            ended = run_cli(own_home, "anchor", tmp_path / "run", *TO, tmp_path / "key")
            assert ended.code == 0, ended.output
        assert node.refused == []
        assert node.asked["eth_sendRawTransaction"] == 5
        assert OnChain(url, contract).holds(tmp_path / "run") == 3
        assert OnChain(url, contract).sent(key.address) == 5
    assert bool(node.old_answers) == bool(lag)
    print(f"lag {lag}: {node.old_answers} of {sum(node.asked.values())} answers were old")


def test_the_node_refuses_what_it_advises(own_home: Path, tmp_path: Path) -> None:
    """The control of the test above: a double that takes any tip would show nothing."""
    with anvil(GALILEO) as url, galileo(url) as (front, node):
        networks(own_home, {"chainId": GALILEO, "rpc": front, "confirmations": 1, "tipFloor": "0"})
        payer(tmp_path / "key", url)
        process_ended = run_cli(own_home, "chain", "deploy", *TO, tmp_path / "key", kill_after=8)
        assert process_ended.code == -9
        assert node.refused
        why = run_cli(own_home, "chain", "status")
        assert "signed" in why.output


def test_the_commands_of_the_page_work(own_home: Path, tmp_path: Path) -> None:
    """A page that shows what nobody typed."""
    page = (ROOT / "docs/0g.md").read_text(encoding="utf-8")
    lines = re.findall(
        r"^ *(counterfoil .*)$", "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL)), re.MULTILINE
    )
    assert len(lines) == 6
    with anvil(GALILEO, "--block-time", "0.05") as url, galileo(url) as (front, _):
        networks(own_home, {"chainId": GALILEO, "rpc": front})
        device = Key.device()
        ask(url, "anvil_setBalance", device.address, hex(10**17))
        record(tmp_path / "run", 1, 2, device)
        shown = {
            "~/.counterfoil/device.key": str(own_home / "device.key"),
            "runs/digits": str(tmp_path / "run"),
        }
        for line in lines:
            ended = run_cli(
                own_home, *(shown.get(word, word) for word in shlex.split(line, comments=True)[1:])
            )
            assert ended.code == 0, f"{line}: {ended.output}"
        assert "nothing waits" in ended.output
