"""The demo of the market, as a user starts it: who is paid, who is not, and whether all the money is somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chains import ANVIL, needs_anvil

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def play(folder: Path, *options: str) -> tuple[str, float]:
    """What the demo prints, and how long it takes in seconds."""
    command = [Path(sys.executable).with_name("counterfoil"), "demo", "market", folder, *options]
    variables = os.environ | {"PATH": f"{ANVIL.parent}:{os.environ['PATH']}", "COLUMNS": "300"}
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=380, env=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, time.monotonic() - begin


def check(told: str) -> None:
    first, second = told.index("job 1\n"), told.index("job 2\n")
    honest, lied = told[first:second], told[second:]
    assert re.search(r"paid: 600000000000000000 wei to the honest", honest)
    assert "disputed" not in honest
    assert "attested: refuted. That is the panel's word, and slashes nobody" in lied
    assert "refused: the reward went back to the requester" in lied
    assert "another learning rate at step 27" in lied
    coins = {row[0]: float(row[1]) for row in re.findall(r"^(\w[\w ]*?) {2,}([+-]?\d[\d.]*)", lied, re.M)}
    assert coins["honest"] == 0.6
    assert coins["cheat"] == 0
    assert coins["burned"] == 0.004
    assert coins["verifier 1"] == coins["verifier 2"] == 0.015625
    assert abs(sum(coins.values())) < 1e-9


def test_on_the_development_chain(tmp_path: Path) -> None:
    """A cheat that is paid, an honest worker that is not, or coins that are nowhere."""
    told, seconds = play(tmp_path)
    check(told)
    print(f"{seconds:.0f} seconds")


@needs_anvil
def test_on_anvil(tmp_path: Path) -> None:
    """A market that only the chain of its own house runs."""
    told, seconds = play(tmp_path, "--anvil")
    check(told)
    print(f"{seconds:.0f} seconds")
