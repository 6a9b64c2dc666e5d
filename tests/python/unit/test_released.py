"""What has left the device is never signed again: bugs that a hostile reader found, kept as tests."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from eth_account import Account

import counterfoil
from counterfoil import Key, Record, Run, commit_tensors, verify
from counterfoil.errors import CorruptJournal, KeyRefused

GRADIENTS = commit_tensors({"w": np.arange(6, dtype=np.float32)})


def steps(run: Run, count: int) -> None:
    for _ in range(count):
        run.record_step(run.step + 1, {"gradients": GRADIENTS})


@pytest.mark.parametrize("way", ["bundle", "anchor"])
def test_what_another_process_hands_out_is_never_signed_again(tmp_path: Path, way: str) -> None:
    """An export by somebody who only reads: the receipts are out, the writer's key folder knows of none."""
    run = Run.create(tmp_path / "run")
    steps(run, 2)
    run.tree_head()
    shutil.copytree(tmp_path / "run", tmp_path / "older")
    steps(run, 3)
    run._ledger.tree_head()
    # The group commit has written; nobody asked this run for a receipt since.
    if way == "bundle":
        counterfoil.export(tmp_path / "run", tmp_path / "x.counterfoil")
    else:
        counterfoil.Chain.dev(tmp_path / "chain").anchor(tmp_path / "run")
    run._ledger.release()
    with pytest.raises(CorruptJournal, match="second history"):
        Run.open(tmp_path / "older")


def test_a_lane_is_not_begun_again_after_it_was_erased(tmp_path: Path) -> None:
    """Two receipts of one position, the second one under a new secret."""
    with Run.create(tmp_path / "run") as run:
        steps(run, 1)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    with Run.join(tmp_path / "run", lane=1) as run:
        steps(run, 1)
    counterfoil.erase(tmp_path / "run")
    with pytest.raises(KeyRefused):
        Run.join(tmp_path / "copy", lane=1)


def external(account: Account, refuse: list[str]) -> Key:
    def sign(digest: bytes, typed_data: dict | None) -> bytes:
        assert typed_data is not None
        if typed_data["primaryType"] in refuse:
            raise RuntimeError("the vault is locked")
        return account.unsafe_sign_hash(digest).signature

    return Key.external(account.address, sign)


def test_a_head_that_fails_does_not_undo_a_receipt(tmp_path: Path) -> None:
    """The 256th receipt is recorded, and its caller is told that it was not."""
    refuse: list[str] = []
    with Run.create(tmp_path / "run", key=external(Account.create(), refuse)) as run:
        steps(run, 250)
        refuse.append("TreeHeadV1")
        steps(run, 10)
        refuse.clear()
        steps(run, 1)
    heads = Record(tmp_path / "run")
    assert heads.tree_head() is not None
    assert verify(tmp_path / "run").status == "verified"


def test_closing_again_signs_the_head_that_failed(tmp_path: Path) -> None:
    """A run that calls itself closed and has no head."""
    refuse: list[str] = []
    run = Run.create(tmp_path / "run", key=external(Account.create(), refuse))
    steps(run, 3)
    refuse.append("TreeHeadV1")
    with pytest.raises(KeyRefused, match="the vault is locked"):
        run.close()
    refuse.clear()
    run.close()
    assert run.closed
    assert run.tree_head().size == len(run.receipts()) == 6
    assert verify(tmp_path / "run").integrity.startswith("intact;")


def test_reading_the_step_does_not_wait_under_pythons_lock(tmp_path: Path) -> None:
    """A progress bar beside a wallet: each waits for what the other holds, for ever."""
    account, asked = Account.create(), threading.Event()

    def sign(digest: bytes, typed_data: dict | None) -> bytes:
        asked.set()
        threading.Event().wait(0.05)
        return account.unsafe_sign_hash(digest).signature

    run = Run.create(tmp_path / "run", key=Key.external(account.address, sign))
    asked.clear()
    recorder = threading.Thread(target=steps, args=(run, 3), daemon=True)
    recorder.start()
    assert asked.wait(20)
    seen = [run.step for _ in range(20)]
    recorder.join(20)
    assert not recorder.is_alive()
    assert seen == sorted(seen)
    run.close()


def test_two_erasures_do_not_undo_each_other(tmp_path: Path) -> None:
    """A record that comes back, because another one was erased at the same time."""
    with Run.create(tmp_path / "run") as run:
        people = run.commit_records(map(str, range(40)))
    threads = [
        threading.Thread(target=counterfoil.erase, args=(tmp_path / "run", (people.root, index)))
        for index in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counterfoil.read_records(tmp_path / "run", people.root) == [None] * 40
    assert (tmp_path / "run" / "records" / people.root.hex()).stat().st_mode & 0o077 == 0
