"""The evidence holds, and lies about it do not: run with `python -m pytest`."""

import json
import shutil
from pathlib import Path

import counterfoil
import pytest
from counterfoil.testing.tamper import TAMPERINGS
from counterfoil.torch.demo import lying

import train
import verify

LIE_AT = 7


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A folder, with a device key of its own, in which an honest run was recorded and published."""
    folder = tmp_path_factory.mktemp("evidence")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTERFOIL_HOME", str(folder / "home"))
        patch.delenv("COUNTERFOIL_KEY", raising=False)
        patch.chdir(folder)
        train.main()
        yield folder


def test_an_honest_run_is_verified(capsys):
    """A recipe that does not replay, or a pin that is not the published one, would show here."""
    assert verify.main() == 0
    assert f"replayed 10 of {train.STEPS} by you, bit-exact" in capsys.readouterr().out


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_tampered_copy_is_refuted(folder, name):
    """Whoever edits the evidence without the key is found before anything is executed."""
    copy = shutil.copytree(folder / "runs/1", folder / name)
    TAMPERINGS[name](copy)
    assert verify.main(copy) == 3


def test_the_same_training_signed_by_a_stranger_is_refuted(folder, monkeypatch):
    """A run under another key is consistent with itself: only the pinned signer tells."""
    monkeypatch.setenv("COUNTERFOIL_HOME", str(folder / "stranger"))
    monkeypatch.setattr(train, "STEPS", 10)
    train.train("runs/stranger")
    assert counterfoil.verify("runs/stranger").status == "verified"
    assert verify.main("runs/stranger") == 3


def test_a_trainer_who_lies_with_a_valid_signature_is_refuted_by_replay(monkeypatch, capsys):
    """One step with 1.0001 times the recorded learning rate: every signature holds."""
    monkeypatch.setattr(train, "STEPS", 10)
    train.train("runs/liar", lie=lying(at=LIE_AT))
    signer = json.loads(Path("published.json").read_text())["signer"]
    assert counterfoil.verify("runs/liar", signer=signer).status == "verified"
    assert verify.main("runs/liar", f"{LIE_AT - 3}:{LIE_AT + 3}") == 3
    assert f"refuted by replay at step {LIE_AT}" in capsys.readouterr().out
    assert f"step {LIE_AT}: " in str(counterfoil.diff("runs/1", "runs/liar")).splitlines()[0]
