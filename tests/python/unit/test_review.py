"""What a reviewer is told, and that no answer is given without evidence."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import counterfoil
from counterfoil import Key, Record, Run, alignment, cli, commit_tensors
from counterfoil.errors import InvalidInput
from counterfoil.review import NOT_EVIDENCED, QUESTIONS, Fact, _date, review, table
from counterfoil.run import place
from counterfoil.testing.tamper import edit_the_specification

VECTORS = Path(__file__).parents[2] / "vectors"


def train(path: Path, *, rates: tuple[float, ...] = (0.1, 0.1), **options: object) -> Key:
    """A run of two steps and a checkpoint; returns its owner's key."""
    key = Key.generate()
    with Run.create(path, key=key, **options) as run:
        for step, rate in enumerate(rates, 1):
            fields = {"hyperparameters": {"0/lr": rate}, "metrics": {"loss": 1 / step}}
            run.record_step(step, {name: commit_tensors(each, keep=True) for name, each in fields.items()})
        run.record_checkpoint(len(rates), {"parameters": commit_tensors({"w": np.ones(4, np.float32)})})
    return key


def answers(facts: list[Fact], name: str) -> list[str]:
    return [fact.value for fact in facts if fact.name == name]


def evidence(facts: list[Fact], name: str) -> list[str]:
    return [fact.evidence for fact in facts if fact.name == name]


def test_every_question_stands_in_the_list(tmp_path: Path) -> None:
    """A question without an answer that is left out, so that a reviewer does not notice."""
    train(tmp_path / "run")
    verdict = counterfoil.verify(tmp_path / "run")
    facts = review(tmp_path / "run", verdict)
    assert list(dict.fromkeys(fact.name for fact in facts)) == [*QUESTIONS, "not shown"]
    assert answers(facts, "not shown") == verdict.not_shown
    for name in (
        "data origin",
        "data commitment",
        "dated by a chain",
        "executed again",
        "evaluation",
        "released by",
    ):
        assert evidence(facts, name) == [NOT_EVIDENCED]
        assert answers(facts, name) == [""]
    assert all(fact.receipt is not None for fact in facts if fact.value and fact.name != "not shown")


def test_answers_come_from_the_receipts_that_are_named(tmp_path: Path) -> None:
    """A value beside a receipt that does not bind it."""
    key = train(tmp_path / "run", rates=(0.1, 0.1, 0.05), spec={"seed": 7, "data": "digits of a test"})
    record = Record(tmp_path / "run")
    facts = review(record, counterfoil.verify(record, signer=key.address))
    genesis = f"genesis, 0x{record.receipts()[0].digest.hex()[:8]}"
    assert answers(facts, "data origin") == ["by its owner's word: digits of a test"]
    assert evidence(facts, "data origin") == evidence(facts, "seed, determinism") == [genesis]
    assert answers(facts, "trained by") == [f"{key.address}, the owner; as expected"]
    assert answers(facts, "hyperparameters") == ["0/lr 0.1", "in the end 0/lr 0.05"]
    assert [each.partition(",")[0] for each in evidence(facts, "hyperparameters")] == ["step 1", "step 3"]
    assert answers(facts, "metrics in training") == ["loss 1 at step 1", "loss 0.333333 at step 3"]
    root = commit_tensors({"w": np.ones(4, np.float32)}).root.hex()
    assert answers(facts, "model weights") == [f"1 tensors after step 3, root 0x{root}"]
    assert evidence(facts, "model weights")[0].startswith("checkpoint 3, ")


def test_steps_that_a_resume_went_back_behind_count_for_nothing(tmp_path: Path) -> None:
    """Work that was thrown away is told as the model's."""
    with Run.create(tmp_path / "run", key=Key.generate()) as run:
        for loss in (3.0, 2.0, 1.0):
            run.record_step(run.step + 1, {"metrics": commit_tensors({"loss": loss}, keep=True)})
        run.record_resume(1, 2)
    facts = review(tmp_path / "run", counterfoil.verify(tmp_path / "run"))
    assert answers(facts, "steps") == ["1 step"]
    assert answers(facts, "metrics in training")[-1] == "loss 3 at step 1"


@pytest.mark.parametrize("kind", ["refuted", "undecided"])
def test_without_a_verified_run_nothing_is_evidenced(tmp_path: Path, kind: str) -> None:
    """A forged run whose numbers are printed beside receipts."""
    train(tmp_path / "run", spec={"seed": 1})
    if kind == "refuted":
        edit_the_specification(tmp_path / "run")
        with pytest.raises(counterfoil.Refuted) as refuted:
            counterfoil.verify(tmp_path / "run")
        verdict = refuted.value.verdict
    else:
        verdict = counterfoil.verify(tmp_path / "run", require={"time": True})
    assert verdict.status == kind
    facts = review(tmp_path / "run", verdict)
    assert {fact.evidence for fact in facts} == {NOT_EVIDENCED}
    assert not any(fact.value for fact in facts if fact.name != "not shown")


def test_the_verdict_of_another_run_is_refused(tmp_path: Path) -> None:
    """A forged run that borrows an honest one's verdict."""
    train(tmp_path / "one")
    train(tmp_path / "two")
    with pytest.raises(InvalidInput, match="another run's"):
        review(tmp_path / "one", counterfoil.verify(tmp_path / "two"))


def test_only_the_owner_releases_and_each_evaluator_is_named(tmp_path: Path) -> None:
    """A stranger's release that reads like the owner's, or praise of a checkpoint that this run does not have."""
    owner, stranger = train(tmp_path / "run"), Key.generate()
    train(tmp_path / "other")
    (checkpoint,) = (each for each in Record(tmp_path / "run").receipts() if each.kind == "checkpoint")
    (foreign,) = (each for each in Record(tmp_path / "other").receipts() if each.kind == "checkpoint")
    held_out = commit_tensors({"content": np.zeros((5, 32), np.uint8)}, keep=True)
    with Run.join(tmp_path / "run", lane=0, key=stranger, observes=True) as lane:
        measured = alignment.record_evaluation(lane, checkpoint, held_out=held_out, metrics={"accuracy": 0.5})
        alignment.record_evaluation(lane, foreign, held_out=held_out, metrics={"accuracy": 1.0})
        # `record_release` refuses a lane that is not the owner's; a stranger has code of their own.
        lane.record("release", place("released", checkpoint), {})
    record = Record(tmp_path / "run")
    facts = review(record, counterfoil.verify(record))
    first, second = answers(facts, "evaluation")
    assert first == f"accuracy 0.5; of checkpoint 2, by {stranger.address}, not pinned"
    assert second.startswith("on 5 samples")
    assert evidence(facts, "released by") == [NOT_EVIDENCED]
    with Run.join(tmp_path / "run", lane=1, key=owner, observes=True) as lane:
        alignment.record_release(lane, checkpoint, [measured])
    record = Record(tmp_path / "run")
    facts = review(record, counterfoil.verify(record))
    released = f"{owner.address}, the owner: checkpoint 2; evaluations that it names: "
    assert answers(facts, "released by") == [f"{released}1"]
    counterfoil.export(tmp_path / "run", tmp_path / "sealed.counterfoil", key=owner, tensors=())
    sealed = Record(tmp_path / "sealed.counterfoil")
    facts = review(sealed, counterfoil.verify(sealed))
    assert answers(facts, "released by") == [f"{released}withheld"]
    assert evidence(facts, "evaluation") == [NOT_EVIDENCED]
    record = Record(tmp_path / "run")
    facts = review(record, counterfoil.verify(record))
    assert answers(facts, "trained by") == [f"{owner.address}, the owner; not pinned: anybody can make a key"]


def test_who_joined_and_did_nothing_trained_nothing(tmp_path: Path) -> None:
    """A name on somebody else's model, for a lane that has no step, and praise of a checkpoint of one's own."""
    owner, stranger = train(tmp_path / "run"), Key.generate()
    with Run.join(tmp_path / "run", lane=0, key=stranger) as lane:
        lane.record_checkpoint(0, {"parameters": commit_tensors({"w": np.zeros(4, np.float32)})})
        (own,) = (each for each in lane.receipts() if each.kind == "checkpoint")
        held_out = commit_tensors({"content": np.zeros((5, 32), np.uint8)}, keep=True)
        alignment.record_evaluation(lane, own, held_out=held_out, metrics={"accuracy": 1.0})
    record = Record(tmp_path / "run")
    verdict = counterfoil.verify(record)
    assert verdict.status == "verified"
    facts = review(record, verdict)
    assert answers(facts, "trained by") == [f"{owner.address}, the owner; not pinned: anybody can make a key"]
    assert evidence(facts, "evaluation") == [NOT_EVIDENCED]
    assert evidence(facts, "model weights")[0].startswith("checkpoint 2, ")


def test_salted_records_are_counted_one_by_one(tmp_path: Path) -> None:
    """A list of patients that is told as samples of 32 numbers."""
    with Run.create(tmp_path / "run", key=Key.generate()) as run:
        run.record_checkpoint(0, {"extensions": run.commit_records(["ann", "bob", "cy"])})
        run.record_step(1, {})
    facts = review(tmp_path / "run", counterfoil.verify(tmp_path / "run"))
    assert answers(facts, "data size") == ["3 records, each salted"]
    assert evidence(facts, "use of one record")[0].startswith("checkpoint 0, ")


def test_a_date_is_evidenced_by_the_last_receipt_that_it_covers() -> None:
    """A date without a chain, or one that is told of receipts behind the anchor."""
    bundle = VECTORS / "anchored.counterfoil"
    block = json.loads((VECTORS / "anchored.json").read_text())["blockHash"]
    record = Record(bundle)
    assert evidence(review(record, counterfoil.verify(record)), "dated by a chain") == [NOT_EVIDENCED]
    (fact,) = (
        fact
        for fact in review(record, counterfoil.verify(record, trusted_blocks=[block]))
        if fact.name == "dated by a chain"
    )
    assert block in fact.value
    assert fact.receipt is not None
    assert fact.receipt.sequence == 4


def test_a_strangers_words_move_no_cursor(tmp_path: Path) -> None:
    """A specification that writes its own table over the real one."""
    train(tmp_path / "run", spec={"data": "good\x1b[2J\ndata size  9999  genesis"})
    text = table(review(tmp_path / "run", counterfoil.verify(tmp_path / "run")))
    assert "\x1b" not in text
    assert not any(line.startswith("data size  9999") for line in text.splitlines())


def test_the_command_answers_and_ends_as_verify_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script that takes a refuted run's answers for good, since the command ended with 0."""

    def command(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["counterfoil", "review", str(tmp_path / "run"), *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return int(stopped.value.code or 0), capsys.readouterr().out

    train(tmp_path / "run", spec={"seed": 1})
    code, out = command("--json")
    told = json.loads(out)
    assert (code, told["verdict"]["status"]) == (0, "verified")
    assert {"name": "evaluation", "value": "", "evidence": NOT_EVIDENCED} in told["facts"]
    edit_the_specification(tmp_path / "run")
    code, out = command()
    assert code == 3
    assert out.startswith("refuted")
    assert "genesis, 0x" not in out


@pytest.mark.parametrize(
    ("time", "told"), [(0, "1970-01-01 00:00:00"), (2**64 - 1, f"{2**64 - 1} milliseconds after 1970")]
)
def test_a_clock_that_is_wrong_by_ages_stops_no_review(time: int, told: str) -> None:
    """A receipt's time is its signer's word, up to the year 584,556,019."""
    assert _date(SimpleNamespace(fields={"time": time})) == told  # type: ignore[arg-type]


def test_steps_without_a_batch_are_told(tmp_path: Path) -> None:
    """A training that records its dataset and forgot what it was fed looked complete."""
    batch = {"batch": commit_tensors({"x": np.ones(2)})}
    with Run.create(tmp_path / "run", key=Key.generate()) as run:
        for step, fields in ((1, {}), (2, batch)):
            run.record_step(step, {"gradients": commit_tensors({"w": 1.0})} | fields)
    facts = review(tmp_path / "run", counterfoil.verify(tmp_path / "run"))
    assert answers(facts, "batches") == ["the receipts of 1 of 2 steps bind a batch"]
    train(tmp_path / "without")
    facts = review(tmp_path / "without", counterfoil.verify(tmp_path / "without"))
    assert evidence(facts, "batches") == [NOT_EVIDENCED]
