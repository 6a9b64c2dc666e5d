"""Programs that submit are killed at any moment; everything must happen, and once."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from chains import GALILEO, OnChain, anvil, needs_anvil, networks, payer, record
from counterfoil.chain import Chain, submissions
from processes import run_cli

KILLS = int(os.environ.get("OUTBOX_KILLS", "5"))
# The first round of a run registers it as well.
ROUNDS_OF_A_RUN = 3
BLOCK_SECONDS = "0.06"


def phase(finished: int) -> str:
    """How far the anchor after so many others had come, by the outbox alone."""
    anchors = [state for _, task, state in submissions() if task.startswith("anchor of ")]
    assert len(anchors) in (finished, finished + 1), "a repeated call is a second submission"
    if len(anchors) == finished:
        return "nothing"
    names = ("written", "signed", "in block", "final", "the chain had it already")
    known = [name for name in names if anchors[-1].startswith(name)]
    assert known, submissions()[-3:]
    return known[0]


@needs_anvil
@pytest.mark.timeout(120 + 6 * KILLS)
@pytest.mark.parametrize(("chain_id", "confirmations"), [(31337, 1), (GALILEO, 3)])
def test_what_is_killed_happens_once(
    own_home: Path, tmp_path: Path, chain_id: int, confirmations: int
) -> None:
    """An anchor that a kill loses, repeats, sends with a wrong nonce, or parts from its record."""
    chosen = random.Random(chain_id)
    networks(own_home, {"chainId": chain_id, "confirmations": confirmations, "budget": str(10**18)})
    with anvil(chain_id, "--block-time", BLOCK_SECONDS) as url:
        key = payer(tmp_path / "key", url, 10**19)
        to = ("--chain", url, "--key", tmp_path / "key")
        contract = Chain.deploy(url, payer(tmp_path / "deployer", url)).contract
        chain = OnChain(url, contract)
        phases: Counter[str] = Counter()
        again: Counter[str] = Counter()
        anchors = runs = kills = 0
        seconds: dict[bool, float] = {}
        # The process to fork from begins.
        run_cli(own_home, "chain", "status")
        while kills < KILLS:
            number, steps = divmod(anchors, ROUNDS_OF_A_RUN)
            path = tmp_path / f"run-{number}"
            runs = number + 1
            record(path, steps + 1, steps + 1, key)
            if number == 0:
                # How long it takes with and without a registration when nobody interrupts.
                ended = run_cli(own_home, "anchor", path, *to)
                assert ended.code == 0, ended.output
                seconds[steps == 0] = max(ended.seconds, seconds.get(steps == 0, 0))
                anchors += 1
                continue
            command: tuple[str | Path, ...] = ("anchor", path, *to)
            for seen in (phases, again):
                ended = run_cli(own_home, *command, kill_after=chosen.uniform(0, seconds[steps == 0]))
                assert ended.code in (0, -9), ended.output
                kills += ended.code == -9
                seen[phase(anchors)] += ended.code == -9
                if chosen.random() < 0.5:
                    break
                command = ("chain", "resume", *to) if chosen.random() < 0.5 else command
            for command in (("chain", "resume", *to), ("anchor", path, *to)):
                ended = run_cli(own_home, *command)
                assert ended.code == 0, ended.output
            anchors += 1
            assert chain.holds(path) == steps + 1
            assert chain.sent(key.address) == anchors + runs, "a transaction too many, or too few"
    print(f"chain {chain_id}, {confirmations} confirmations, {kills} kills")
    print(f"  unkilled: {seconds[True]:.2f} s with a registration, {seconds[False]:.2f} s without")
    print("  found at the first kill:", dict(phases.most_common()))
    print("  found at the second:    ", dict(again.most_common()))
    if KILLS >= 100:
        # The last moment, in which it is final and the process still runs, is too short to count on.
        every = {"nothing", "written", "signed"} | ({"in block"} if confirmations > 1 else set())
        assert {name for name, times in (phases + again).items() if times} >= every
