"""The demo keeps its promises: what it prints is what happened, in time and on one screen."""

import time
from pathlib import Path

import pytest
import torch

import counterfoil
from counterfoil.errors import CounterfoilError, Refuted
from counterfoil.testing.tamper import TAMPERINGS, read_frames, write_frames
from counterfoil.torch import demo

EDGES = {
    "loss edited": "metrics",
    "weight flipped": "object",
    "receipt changed": "body",
    "receipt dropped": "previous",
    "ledger cut": "anchor",
    "spec edited": "spec.json",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The demo's last screen, its folder and how long it took."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        started = time.monotonic()
        status = demo.main(folder)
    assert status == 0
    return lines[-1].splitlines(), folder / "demo", time.monotonic() - started


def test_the_last_screen_holds_every_finding_in_twelve_lines(told):
    lines, _, seconds = told
    text = "\n".join(lines)
    assert len(lines) <= 12 and seconds < 90
    for what, edge in EDGES.items():
        shown = text.split(f"{what} [", 1)[1].split("]", 1)[0]
        assert edge in shown, (what, shown)
    assert (
        "replayed 120 of 120 by you, bit-exact, from the state that the recipe makes; recipe pinned" in text
    )
    assert f"step {demo.LIE_AT}: parameters" in text and "signed lie verified by signatures" in text
    assert "self-anchored" in text and "intact" in text


def test_the_liars_evidence_holds_until_its_steps_are_executed(told):
    _, folder, _ = told
    signer = counterfoil.Key.device().address
    assert counterfoil.verify(folder / "liar", signer=signer).status == "verified"
    record = counterfoil.Record(folder / "liar")
    opened = [record.opened(receipt) for receipt in record.receipts() if receipt.kind == "step"]
    rates = {fields["hyperparameters"].scalars()["0/lr"] for fields in opened}
    assert rates == {demo.SPECS[demo.mlp]["learning_rate"]}


@pytest.mark.parametrize("name", [name for name in TAMPERINGS if name != "ledger cut"])
def test_each_tampering_leaves_whole_frames_and_is_refuted_without_a_chain(told, name):
    copy = told[1] / "tampered" / name.replace(" ", "-")
    (journal,) = copy.glob("workers/*/0/journal")
    frames, content = read_frames(journal), journal.read_bytes()
    write_frames(journal, frames)
    assert (read_frames(journal), journal.stat().st_size) == (frames, len(content))
    with pytest.raises(Refuted) as caught:
        counterfoil.verify(copy)
    assert EDGES[name] in caught.value.verdict.broken[0].edge


def test_a_second_demo_does_not_fail_on_the_first_ones_folder(tmp_path):
    folders = [demo.fresh(tmp_path, "demo").name for _ in range(3)]
    assert folders == ["demo", "demo-2", "demo-3"]


def test_a_lie_that_is_not_refuted_fails_the_demo():
    with pytest.raises(CounterfoilError, match="was not refuted"):
        demo._refuted(lambda: None, "the sky")


def test_the_demo_gives_the_threads_back(told):
    assert told and torch.get_num_threads() >= 1


def test_the_recipes_are_files_that_ship_with_the_package():
    for module in demo.SPECS:
        assert Path(module.__file__).is_file()
