"""Others' replays are counted as words of those who signed them, and nobody can copy an answer before it is given."""

import hashlib
import shutil

import pytest
import torch

import counterfoil
import oracle
from counterfoil.attest import OTHER, SAME, Attestation, answer, promise, reveal
from counterfoil.errors import InvalidInput, NotFound, Refuted
from counterfoil.torch import replay
from counterfoil.torch.demo import lying, mlp
from replays import MLP, record

BEACON = hashlib.sha256(b"a block").digest()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return record(tmp_path_factory.mktemp("recorded") / "run", steps=4)


@pytest.fixture
def run(recorded, tmp_path):
    return shutil.copytree(recorded, tmp_path / "run")


def replays(path, key):
    return [r.fields for r in counterfoil.Record(path).receipts(key.address) if r.kind == "replay"]


def test_replays_are_signed_counted_as_attested_and_not_done_twice(run, monkeypatch):
    key, pin = counterfoil.Key.generate(), counterfoil.Record(run).recipe_digest
    replay(run, "2:3", recipe=pin, attest=key)
    verdict = counterfoil.verify(run)
    assert verdict.status == "verified" and "attested: 2 steps by 1 others, unpinned" in verdict.transition
    assert "replayed" not in verdict.transition, "another's word is not the verifier's own replay"
    done = []
    verdict = replay(
        run, "all", recipe=pin, attest=key, progress=lambda now, total: done.append((now, total))
    )
    assert done[-1] == (3, 3), "the beginning, and steps 1 and 4: the others were attested before"
    assert "replayed 4 of 4 by you, bit-exact, from the state that the recipe makes" in verdict.transition
    assert not any("recipe makes" in text for text in verdict.not_shown)
    assert [each["outcome"] for each in replays(run, key)] == [SAME] * 4
    bundle = run.with_suffix(".counterfoil")
    counterfoil.export(run, bundle)
    assert "attested: 4 steps by 1 others" in counterfoil.verify(bundle).transition
    with pytest.raises(InvalidInput, match="a bundle is not written to"):
        replay(bundle, "1", recipe=pin, attest=key)


def test_the_answer_is_over_every_chunk_that_the_step_computed(run):
    """Copying roots is not enough, and neither is another one's answer."""
    receipt = next(r for r in counterfoil.Record(run).receipts() if r.kind == "step")
    computed = {"parameters": {"b": torch.arange(600.0), "a": torch.ones(3)}, "gradients": {"a": None}}
    key = counterfoil.Key.generate().address
    chunks = [torch.ones(3).numpy().tobytes()]
    chunks += list(oracle.chunks(torch.arange(600.0).numpy().tobytes()))
    leaves = b"".join(hashlib.sha256(b"\0" + chunk).digest() for chunk in chunks)
    head = b"counterfoil.replay.v1" + BEACON + bytes.fromhex(key[2:]) + receipt.digest
    assert len(chunks) == 4
    assert answer(BEACON, key, receipt, computed) == hashlib.sha256(head + leaves).digest()


def test_answers_are_promised_under_a_beacon_and_revealed_later(run):
    key, pin = counterfoil.Key.generate(), counterfoil.Record(run).recipe_digest
    with pytest.raises(NotFound):
        reveal(run, key)
    replay(run, "2", recipe=pin, attest=key, beacon=BEACON)
    (promised,) = replays(run, key)
    assert promised["outcome"] == 0 and not any(promised["answer"]) and any(promised["commitment"])
    assert "attested" not in counterfoil.verify(run).transition, "a promise is no answer"
    assert reveal(run, key) == 1
    *_, revealed = replays(run, key)
    assert promise(revealed["salt"], revealed["answer"], SAME) == promised["commitment"]
    assert "attested: 1 steps by 1 others" in counterfoil.verify(run).transition
    with pytest.raises(NotFound):
        reveal(run, key)


def test_a_step_that_came_out_otherwise_is_said_and_refutes_nobody_elses_run(tmp_path):
    """A stranger's word must not be enough to refute a run."""
    path = record(tmp_path / "run", lie=lying(3), steps=4)
    key = counterfoil.Key.generate()
    with pytest.raises(Refuted):
        replay(path, "3", run_untrusted=True, attest=key)
    assert [each["outcome"] for each in replays(path, key)] == [OTHER]
    verdict = counterfoil.verify(path)
    assert verdict.status == "verified"
    assert any("1 steps came out otherwise" in note for note in verdict.notes)


def test_whoever_trains_attests_nothing(run):
    key = counterfoil.Key.device()
    with pytest.raises(InvalidInput, match="trains in this run"):
        Attestation(counterfoil.Record(run), key, None)


def said(run, **fields):
    key = counterfoil.Key.generate()
    step = next(r for r in counterfoil.Record(run).receipts() if r.kind == "step")
    with counterfoil.Run.join(run, lane=0, key=key, observes=True) as lane:
        lane.record_replay(step, **fields)
    return run


ONE = b"\x01" * 32


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome": 1},
        {"outcome": 3, "answer": ONE},
        {"outcome": 0, "answer": ONE},
        {"outcome": 0, "commitment": ONE},
        {"outcome": 1, "answer": ONE, "salt": ONE},
        {"outcome": 1, "answer": ONE, "beacon": ONE, "commitment": ONE},
        {"outcome": 1, "answer": ONE, "beacon": ONE, "commitment": promise(ONE, ONE, 1), "salt": ONE},
    ],
)
def test_an_answer_that_was_not_promised_or_has_no_form_counts_for_nothing(run, fields):
    """An answer under a beacon that was never promised may be copied; and a stranger's nonsense refutes nobody."""
    before = counterfoil.verify(run)
    after = counterfoil.verify(said(run, **fields))
    assert (after.status, after.integrity, after.signer) == (before.status, before.integrity, before.signer)
    assert "attested" not in after.transition
    assert any("1 replay receipts do not count" in note for note in after.notes)


def test_a_replay_of_another_history_counts_for_nothing(run, tmp_path):
    other = record(tmp_path / "other", steps=1)
    step = next(r for r in counterfoil.Record(other).receipts() if r.kind == "step")
    key = counterfoil.Key.generate()
    with counterfoil.Run.join(run, lane=0, key=key, observes=True) as lane:
        lane.record_replay(step, outcome=1, answer=ONE)
    verdict = counterfoil.verify(run)
    assert verdict.status == "verified" and "attested" not in verdict.transition


def test_a_promise_whose_receipt_was_lost_is_forgotten(run, monkeypatch):
    """Revealed, it would be an answer that nobody promised."""
    key, pin = counterfoil.Key.generate(), counterfoil.Record(run).recipe_digest

    def full(*_, **__):
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(counterfoil.Run, "record_replay", full)
        with pytest.raises(OSError, match="no space"):
            replay(run, "1:2", recipe=pin, attest=key, beacon=BEACON, jobs=2)
    replay(run, "1:2", recipe=pin, attest=key, beacon=BEACON)
    assert reveal(run, key) == 2
    verdict = counterfoil.verify(run)
    assert "attested: 2 steps" in verdict.transition
    assert not any("do not count" in note for note in verdict.notes)


def test_what_is_promised_is_believed_as_it_was_signed(tmp_path):
    """The file lies in the prover's folder: an outcome that was changed there must not count as replayed."""
    path = record(tmp_path / "run", lie=lying(3), steps=4)
    key, pin = counterfoil.Key.generate(), counterfoil.Record(path).recipe_digest
    with pytest.raises(Refuted):
        replay(path, "3", recipe=pin, attest=key, beacon=BEACON)
    (file,) = (path / "promised").iterdir()
    file.write_text(file.read_text().replace(f'"outcome": {OTHER}', f'"outcome": {SAME}'))
    with pytest.raises(Refuted):
        replay(path, "3", recipe=pin, attest=key, beacon=BEACON)


@pytest.mark.parametrize("content", [b"", b"[", b"[1]", b"[" * 9999, b'[{"outcome": 1}]', b"\xff", b"{}x"])
def test_damaged_promises_are_named(run, content):
    key = counterfoil.Key.generate()
    file = run / "promised" / f"{key.address.lower()}.json"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match="holds no promised answers"):
        Attestation(counterfoil.Record(run), key, BEACON)


@pytest.mark.parametrize("beacon", [bytes(32), b"short"])
def test_a_beacon_that_is_none_is_refused(run, beacon):
    with pytest.raises(InvalidInput, match="32 bytes"):
        Attestation(counterfoil.Record(run), counterfoil.Key.generate(), beacon)


def test_attesting_again_is_no_interruption_of_the_run(run):
    key, pin = counterfoil.Key.generate(), counterfoil.Record(run).recipe_digest
    for steps in ("1", "2"):
        replay(run, steps, recipe=pin, attest=key)
    assert not any("resumed" in note for note in counterfoil.verify(run).notes)


def test_a_lane_that_trains_cannot_hide_as_an_observer(run):
    """The Time line leaves observers out, so they may have no steps."""
    with counterfoil.Run.join(run, lane=0, key=counterfoil.Key.generate(), observes=True) as lane:
        lane.record_step(1, {"gradients": counterfoil.commit_tensors({"a": torch.ones(1)})})
    with pytest.raises(Refuted) as caught:
        counterfoil.verify(run)
    assert any("order" in edge.edge for edge in caught.value.verdict.broken)


def test_a_block_decides_what_is_sampled(tmp_path):
    """Neither the prover, who could sign anew, nor a chosen anchor record decides it."""
    chain = counterfoil.Chain.dev(tmp_path / "chain")
    path = tmp_path / "run"
    with counterfoil.Run.create(path, spec=MLP, recipe=mlp.__file__) as run:
        chain.anchor(run)
        model, optimizer, step = mlp.recipe(run.spec)
        recorder = run.attach(model, optimizer, every=1, checkpoint_every=3)
        for number in range(1, 6):
            for batch in run.batches([[torch.rand(8, 8, 8), torch.zeros(8, dtype=torch.int64)]]):
                step(batch, number, recorder.log)
    with pytest.raises(InvalidInput, match="anchor the closed run"):
        chain.beacon(counterfoil.Record(path))
    chain.anchor(path)
    with pytest.raises(InvalidInput, match="is not there yet"):
        chain.beacon(counterfoil.Record(path))
    with counterfoil.Run.create(tmp_path / "another") as another:
        chain.anchor(another)
    block, head, steps = chain.beacon(counterfoil.Record(path))
    assert steps == 5
    last = counterfoil.Record(path).anchors[-1]
    assert head.hex() == last["headDigest"][2:]
    assert block.hex() != last["blockHash"][2:], "a later block than the anchor's"
    pin = counterfoil.Record(path).recipe_digest
    verdict = replay(path, "beacon:2", recipe=pin, chain=chain)
    assert "replayed 2 of 5 by you" in verdict.transition
    assert any("2 of 5 steps were drawn" in note for note in verdict.notes)
    with pytest.raises(InvalidInput, match="chain="):
        replay(path, "beacon:2", recipe=pin)
    for wrong in ("beacon:-1", "beacon:0", "beacon:x", f"beacon:{1 << 64}"):
        with pytest.raises(InvalidInput):
            replay(path, wrong, recipe=pin, chain=chain)
    part = tmp_path / "part.counterfoil"
    counterfoil.export(path, part, steps=[1, 2])
    with pytest.raises(InvalidInput, match="every receipt"):
        chain.beacon(counterfoil.Record(part))
    # Neither a later anchor nor another lane draws anew.
    counterfoil.Run.open(path).close()
    chain.anchor(path)
    assert chain.beacon(counterfoil.Record(path)) == (block, head, 5)
    with counterfoil.Run.join(path, lane=1, key=counterfoil.Key.generate()) as lane:
        lane.record_step(1, {"gradients": counterfoil.commit_tensors({"a": torch.ones(1)})})
    with pytest.raises(InvalidInput, match="one lane"):
        replay(path, "beacon:2", recipe=pin, chain=chain)
    with counterfoil.Run.open(path) as again:
        again.record_policy(6, {})
        again.record_step(6, {"gradients": counterfoil.commit_tensors({"a": torch.ones(1)})})
    with pytest.raises(InvalidInput, match="not gone on with"):
        chain.beacon(counterfoil.Record(path))


def test_a_run_that_was_anchored_late_has_no_beacon(recorded, tmp_path):
    path = shutil.copytree(recorded, tmp_path / "run")
    chain = counterfoil.Chain.dev(tmp_path / "chain")
    chain.anchor(path)
    with pytest.raises(InvalidInput, match="covers a step"):
        chain.beacon(counterfoil.Record(path))
