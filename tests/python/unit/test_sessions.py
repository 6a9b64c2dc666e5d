"""Session keys: what they may sign, how lanes change hands, and what revocation and erasure leave."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_typed_data

import counterfoil
from counterfoil import Chain, Key, Record, Run, Session, commit_tensors, verify
from counterfoil.errors import CorruptJournal, InvalidInput, KeyRefused, NotFound, ProofError, RunLocked

GRADIENTS = commit_tensors({"w": np.arange(600, dtype=np.float32)})


def steps(run: Run, count: int) -> None:
    for _ in range(count):
        run.record_step(run.step + 1, {"gradients": GRADIENTS})


def test_a_wallet_signs_twice_and_sees_what_it_signs(tmp_path: Path) -> None:
    """A wallet that is asked at every step, or that signs a digest of something it was not shown."""
    wallet, shown = Account.create(), []

    def sign(digest: bytes, typed_data: dict | None) -> bytes:
        assert typed_data is not None
        message = encode_typed_data(full_message=typed_data)
        assert _hash_eip191_message(message) == digest
        shown.append(typed_data["primaryType"])
        return wallet.sign_message(message).signature

    session = Session(Key.generate(), expires=int(time.time()) + 3600)
    with Run.create(tmp_path / "run", key=Key.external(wallet.address, sign), session=session) as run:
        steps(run, 3)
        assert run.worker == wallet.address
        assert {receipt.signer for receipt in run.receipts()[1:]} == {session.key.address}
    assert shown == ["GenesisV1", "DelegationV1"]
    verdict = verify(tmp_path / "run", signer=wallet.address)
    assert verdict.status == "verified"
    assert f"5 receipts by its session key {session.key.address}" in verdict.signer


def test_lanes_change_hands(tmp_path: Path) -> None:
    """A lane that only its first key can continue, or that any key can."""
    owner, one, two = Key.generate(), Key.generate(), Key.generate()
    with Run.create(tmp_path / "run", key=owner, session=Session(one)) as run:
        steps(run, 2)
    with Run.open(tmp_path / "run", key=one) as run:
        steps(run, 1)
        assert run.worker == owner.address
    with pytest.raises(NotFound):
        Run.open(tmp_path / "run", key=two)
    with Run.open(tmp_path / "run", key=owner, session=Session(two)) as run:
        steps(run, 1)
    with Run.open(tmp_path / "run", key=owner) as run:
        steps(run, 1)
    with Run.join(tmp_path / "run", lane=1, key=owner, session=Session(two)) as run:
        steps(run, 1)
    record = Record(tmp_path / "run")
    signers = [receipt.signer for receipt in record.receipts() if receipt.kind == "step"]
    assert signers == [one.address, one.address, one.address, two.address, owner.address]
    assert set(record.keys) == {(owner.address, key.address) for key in (owner, one, two)}
    assert verify(tmp_path / "run").status == "verified"


def test_a_key_whose_time_has_come_cannot_continue(tmp_path: Path) -> None:
    """Receipts that nobody will count, signed without a word."""
    owner, session = Key.generate(), Key.generate()
    ends = int(time.time()) + 2
    run = Run.create(tmp_path / "run", key=owner, session=Session(session, expires=ends))
    steps(run, 1)
    time.sleep(ends - time.time())
    # Training goes on: a step that is not recorded at all is worth less.
    with pytest.warns(UserWarning, match="counts for nobody"):
        steps(run, 1)
    run.close()
    with pytest.raises(KeyRefused, match="has expired; sign a new one"):
        Run.open(tmp_path / "run", key=session)
    time.sleep(1.1)  # in its last second the session's receipts still count
    verdict = verify(tmp_path / "run")
    assert verdict.status == "undecided"
    assert any("could sign until" in text for text in verdict.missing)


def test_revocation_on_a_chain(tmp_path: Path) -> None:
    """A thief's receipts that count, or honest ones that a revocation takes with it."""
    chain = Chain.dev(tmp_path / "chain")
    owner, session = Key.generate(), Key.generate()
    with Run.create(tmp_path / "run", key=owner, session=Session(session)) as run:
        steps(run, 2)
        run.tree_head()
    chain.anchor(tmp_path / "run", owner)
    before = verify(tmp_path / "run", chain=chain)
    assert "not revoked at block" in before.signer
    with pytest.raises(counterfoil.errors.ChainError, match="NotRevocable"):
        chain.revoke(session.address, Key.generate(), worker=owner.address)
    time.sleep(1.1)  # blocks of one second have one time, and no order that a verifier trusts
    block, _ = chain.revoke(session.address, owner)
    assert chain.revoke(session.address, session, worker=owner.address) == (
        block,
        chain.revoke(session.address, owner)[1],
    )
    anchored = verify(tmp_path / "run", chain=chain)
    assert anchored.status == "verified"
    assert f"{session.address} revoked at block {block}" in anchored.signer
    with Run.open(tmp_path / "run", key=session) as run:
        steps(run, 1)
    later = verify(tmp_path / "run", chain=chain)
    assert later.status == "undecided"
    assert any(f"was revoked at block {block}" in text for text in later.missing)
    counterfoil.export(tmp_path / "run", tmp_path / "x.counterfoil", key=owner)
    assert verify(tmp_path / "x.counterfoil", chain=chain).signer == later.signer


def test_a_list_of_records_is_shown_and_forgotten_one_by_one(tmp_path: Path) -> None:
    """A record that can still be guessed after it was erased, or a ledger that breaks by it."""
    with Run.create(tmp_path / "run") as run:
        people = run.commit_records(["alice", "bob", b"\xff\x00"])
        run.record_step(1, {"gradients": GRADIENTS, "samples": people})
        with pytest.raises(InvalidInput, match="at least one"):
            run.commit_records([])
    record = Record(tmp_path / "run")
    step = next(receipt for receipt in record.receipts() if receipt.kind == "step")
    opened = record.opened(step)["samples"]
    kept = counterfoil.read_records(tmp_path / "run", people.root)
    assert [each.content for each in kept] == [b"alice", b"bob", b"\xff\x00"]
    assert opened.values == {str(index): each.digest for index, each in enumerate(kept)}
    assert len({each.salt for each in kept}) == 3
    erased = str(counterfoil.erase(tmp_path / "run", (people.root, 1)))
    assert "remains" in erased
    after = counterfoil.read_records(tmp_path / "run", people.root)
    assert after == [kept[0], None, kept[2]]
    assert b"bob".hex() not in (tmp_path / "run" / "records" / people.root.hex()).read_text()
    assert verify(tmp_path / "run").status == "verified"
    with pytest.raises(NotFound):
        counterfoil.erase(tmp_path / "run", (people.root, 3))
    with pytest.raises(NotFound):
        counterfoil.read_records(tmp_path / "run", bytes(32))
    (tmp_path / "run" / "records" / people.root.hex()).write_text("00 zz")
    with pytest.raises(CorruptJournal):
        counterfoil.read_records(tmp_path / "run", people.root)


def test_an_erased_run_verifies_and_says_nothing_more(tmp_path: Path) -> None:
    """A secret, an opening or a tensor that stays behind."""
    weights = {"w": np.arange(600, dtype=np.float32)}
    with Run.create(tmp_path / "run") as run:
        run.record_step(1, {"gradients": GRADIENTS, "samples": run.commit_records(["alice"])})
        with pytest.raises(RunLocked):
            counterfoil.erase(tmp_path / "run")
        run.record_checkpoint(1, {"parameters": run.store(weights)})
    before = verify(tmp_path / "run")
    digests = [receipt.digest for receipt in Record(tmp_path / "run").receipts()]
    counterfoil.erase(tmp_path / "run")
    counterfoil.erase(tmp_path / "run")
    record = Record(tmp_path / "run")
    assert [receipt.digest for receipt in record.receipts()] == digests
    assert all(record.opened(receipt) == {} for receipt in record.receipts())
    left = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert GRADIENTS.root not in left
    assert b"alice" not in left
    after = verify(tmp_path / "run")
    assert (after.status, after.integrity) == (before.status, before.integrity)
    assert "3 openings are missing: they were withheld or erased" in after.notes
    with pytest.raises(KeyRefused, match="join"):
        Run.open(tmp_path / "run")


def test_two_copies_that_went_on_convict_their_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two histories that look honest one by one."""
    home = tmp_path / "home"
    monkeypatch.setenv("COUNTERFOIL_HOME", str(home))
    with Run.create(tmp_path / "one") as run:
        steps(run, 2)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.copytree(home, tmp_path / "other-home")
    with Run.open(tmp_path / "one") as run:
        steps(run, 1)
    # Whoever copies the key folder as well can sign both.
    monkeypatch.setenv("COUNTERFOIL_HOME", str(tmp_path / "other-home"))
    with Run.open(tmp_path / "two") as run:
        steps(run, 2)
    assert verify(tmp_path / "one").status == verify(tmp_path / "two").status == "verified"
    found = Record(tmp_path / "one").contradiction(Record(tmp_path / "two"))
    assert found is not None
    assert (found.kind, found.worker) == ("fork", Record(tmp_path / "one").receipts()[0].signer)
    assert counterfoil.Contradiction(found.frames).worker == found.worker
    with pytest.raises(ProofError):
        counterfoil.Contradiction(found.frames[:1])
    counterfoil.export(tmp_path / "two", tmp_path / "two.counterfoil", tensors=[])
    assert Record(tmp_path / "two.counterfoil").contradiction(Record(tmp_path / "one")) is not None
    assert Record(tmp_path / "one").contradiction(Record(tmp_path / "one")) is None


def test_the_judgement_of_a_session_is_json(tmp_path: Path) -> None:
    """A verifier's clock that cannot be set by whoever calls the core."""
    owner = Key.generate()
    ends = int(time.time()) + 3600
    with Run.create(tmp_path / "run", key=owner, session=Session(Key.generate(), expires=ends)) as run:
        steps(run, 1)
    record = Record(tmp_path / "run")
    for now, status in ((ends, "verified"), (ends + 1, "undecided"), (None, "undecided")):
        _, document = record.verify(json.dumps({"name": "integrity", "now": now}))
        assert json.loads(document)["status"] == status
