"""Fingerprint receipts: they travel, a worker's false one is refuted where it can be, and a stranger's refutes nobody."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import counterfoil
import samples
from counterfoil import Key, Record, Run
from counterfoil.errors import InvalidInput, NotFound, Refuted
from counterfoil.fingerprints import distance, fingerprint, own_key, publish, published

GIVEN = bytes(range(32))


def gradients(step: int) -> dict[str, np.ndarray]:
    chosen = np.random.default_rng(step)
    return {"w": chosen.normal(size=(70, 64)).astype("f4"), "b": chosen.normal(size=7), "none": None}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three steps, of which the second does not store its gradients."""
    with Run.create(tmp_path / "run") as run:
        for step in (1, 2, 3):
            keep = counterfoil.commit_tensors if step == 2 else run.store
            run.record_step(step, {"gradients": keep(gradients(step))})
    return run.path


def steps_of(run: Path) -> dict[int, counterfoil.Receipt]:
    return {each.fields["step"]: each for each in Record(run).receipts() if each.kind == "step"}


def say(run: Path, key: Key, lane: int, sketches: dict, step: int = 1, under: bytes = bytes(32)) -> None:
    with Run.join(run, lane=lane, key=key, observes=True) as observer:
        sketch = counterfoil.commit_tensors(sketches, keep=True)
        observer.record_fingerprint(steps_of(run)[step], under, sketch)


def test_what_a_worker_publishes_travels_in_folder_and_bundle(run: Path) -> None:
    """A sketch that stays behind, or one under another key than it says, judges nothing."""
    before = counterfoil.verify(run)
    assert publish(run) == 2
    assert publish(run, "1,3", GIVEN) == 2
    assert publish(run) == 0
    receipts = steps_of(run)
    bundle = run.with_suffix(".counterfoil")
    counterfoil.export(run, bundle)
    for path in (run, bundle):
        after = counterfoil.verify(path)
        assert (after.status, after.signer, after.transition) == (
            before.status,
            before.signer,
            before.transition,
        )
        assert after.integrity.startswith("intact") and not any("fingerprint" in note for note in after.notes)
        found = published(Record(path))
        assert set(found) == {(receipts[step].digest, key) for step in (1, 3) for key in (bytes(32), GIVEN)}
        for (digest, key), sketches in found.items():
            step = 1 if digest == receipts[1].digest else 3
            ours = fingerprint(gradients(step), key if any(key) else own_key(digest))
            assert set(distance(ours, sketches).values()) == {0.0}
    owner = Key.device().address
    assert Record(run).lanes == [(owner, 0), (owner, 1)]


def test_a_workers_false_fingerprint_is_refuted_where_the_gradients_are_stored(run: Path) -> None:
    """One bucket told wrong makes every distance wrong; whoever lacks the gradients cannot know."""
    step = steps_of(run)[1]
    sketches = fingerprint(gradients(1), own_key(step.digest))
    sketches["tensor/w"][2, 5] += 1
    say(run, Key.device(), 1, sketches)
    with pytest.raises(Refuted) as refuted:
        counterfoil.verify(run)
    (edge,) = refuted.value.verdict.broken
    assert edge.edge.endswith('(fingerprint): of step 1: "tensor/w"') and edge.expected != edge.actual
    shutil.rmtree(run / "objects")
    assert counterfoil.verify(run).integrity.startswith("intact")


@pytest.mark.parametrize("change", ["unit", "key"])
def test_other_units_and_other_keys_are_other_fingerprints(run: Path, change: str) -> None:
    """A unit left out would leave that tensor unjudged; a sketch under a key of the liar's choice hides more."""
    sketches = fingerprint(gradients(1), GIVEN)
    if change == "unit":
        del sketches["pool"]
    say(run, Key.device(), 1, sketches, under=GIVEN if change == "unit" else bytes(32))
    with pytest.raises(Refuted):
        counterfoil.verify(run)


def test_a_strangers_fingerprint_refutes_nobody(run: Path) -> None:
    """Whoever has the folder can join it and write nonsense."""
    before = counterfoil.verify(run)
    wrong = {unit: sketch + 1 for unit, sketch in fingerprint(gradients(1), GIVEN).items()}
    say(run, Key.generate(), 0, wrong, under=GIVEN)
    after = counterfoil.verify(run)
    assert (after.status, after.integrity, after.signer) == (before.status, before.integrity, before.signer)
    assert any("1 fingerprint receipts do not count" in note for note in after.notes)
    assert published(Record(run)) == {}


@pytest.mark.parametrize("sketches", [{"pool": np.zeros((4, 63), np.int64)}, {"pool": np.zeros((4, 64))}, {}])
def test_what_is_no_sketch_does_not_count(run: Path, sketches: dict) -> None:
    """A malformed statement is no false one, whoever signs it."""
    say(run, Key.device(), 1, sketches)
    verdict = counterfoil.verify(run)
    assert verdict.integrity.startswith("intact")
    assert any("1 fingerprint receipts do not count" in note for note in verdict.notes)


def test_a_fingerprint_of_another_run_does_not_count(run: Path, tmp_path: Path) -> None:
    """A sketch of an honest run must not stand for a step of this one."""
    with Run.create(tmp_path / "other") as other:
        other.record_step(1, {"gradients": other.store(gradients(9))})
    foreign = steps_of(other.path)[1]
    with Run.join(run, lane=1, observes=True) as observer:
        sketches = fingerprint(gradients(9), own_key(foreign.digest))
        observer.record_fingerprint(foreign, bytes(32), counterfoil.commit_tensors(sketches, keep=True))
    verdict = counterfoil.verify(run)
    assert any("1 fingerprint receipts do not count" in note for note in verdict.notes)
    assert published(Record(run)) == {}


def test_what_cannot_be_published_is_said(run: Path, tmp_path: Path) -> None:
    """Silence about a step without its bytes would read as a fingerprint of it."""
    with pytest.raises(NotFound) as missing:
        publish(run, "1:2")
    assert missing.value.where == "step 2"
    assert Record(run).lanes == [(Key.device().address, 0)], "nothing is signed of the other steps"
    with pytest.raises(InvalidInput, match="not within"):
        publish(run, "4")
    with pytest.raises(InvalidInput, match="32 bytes"):
        publish(run, key=bytes(32))
    samples.record(tmp_path / "plain")
    with pytest.raises(NotFound, match="store_gradients"):
        publish(tmp_path / "plain")
