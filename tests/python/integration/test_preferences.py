"""The example from preferences to answers: the honest story passes, and each lie is refuted at the link it breaks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from oracle import ROOT

pytestmark = pytest.mark.slow

EDGES = [
    r"ledger of 0x\w+ lane 0: receipt \d+ \(preference-set\): pairs <- record 17",
    r"genesis: dataset: sample 17 <- pair 17",
    r"step \d+: batch: row \d+ <- pairs",
    r'ledger of 0x\w+ lane 4: receipt 1 \(output\): parameters <- the released checkpoint: "model\.layers\.1.*"',
    r"model.safetensors <- the released checkpoint",
    r"ledger of 0x\w+ lane 2: receipt 7 \(output\): exchange <- record 1",
]


def test_each_lie_about_preferences_weights_and_answers_is_named(tmp_path: Path) -> None:
    """A link of the chain that is not compared: a lie there would pass the audit."""
    result = subprocess.run(
        [sys.executable, ROOT / "examples/preferences"],
        cwd=tmp_path,
        env={**os.environ, "COUNTERFOIL_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Transition  replayed 3 of 45 by you, bit-exact" in result.stdout
    assert "behind 2 evaluations, by 2 others; 20 answers are bound to it" in result.stdout
    refuted = re.findall(r"  refuted: (.*)", result.stdout)
    assert len(refuted) == len(EDGES)
    for found, expected in zip(refuted, EDGES, strict=True):
        assert re.fullmatch(expected, found), found
