"""Lists behind preferences and answers: what is edited, erased, left out or malformed, and by whom."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest

from counterfoil import Commitment, Key, Receipt, Record, Run, alignment, commit_tensors, erase, records
from counterfoil.alignment import Pair
from counterfoil.alignment.lists import signed_receipt
from counterfoil.errors import CorruptJournal, InvalidInput, NotFound, ProofError
from counterfoil.records import Salted

PAIRS = [Pair(f"question {number}", f"good {number}", f"bad {number}") for number in range(4)]
WEIGHTS = {"w": np.ones(4, np.float32)}


@dataclass
class Rated:
    """A run in which two raters signed two pairs each."""

    path: Path
    owner: Key
    raters: list[Key]

    def collect(self) -> Receipt:
        with Run.open(self.path, key=self.owner) as run:
            return alignment.collect(run, [key.address for key in self.raters])

    def collect_as(self, pairs: Commitment, source: str) -> Receipt:
        """A collection as the owner pleases."""
        with Run.open(self.path, key=self.owner) as run:
            sources = commit_tensors({source: np.zeros(32, np.uint8)}, keep=True)
            return signed_receipt(run, run.record("preference-set", {}, {"pairs": pairs, "sources": sources}))

    def sign(self, key: Key, pairs: Commitment) -> None:
        """A set as a rater pleases."""
        with Run.join(self.path, lane=7, key=key, observes=True) as lane:
            lane.record("preference-set", {}, {"pairs": pairs})

    def root(self, receipt: Receipt) -> bytes:
        return Record(self.path).opened(receipt)["pairs"].commitment.root


@pytest.fixture
def rated(tmp_path: Path) -> Rated:
    rated = Rated(tmp_path / "preferences", Key.generate(), [Key.generate(), Key.generate()])
    with Run.create(rated.path, key=rated.owner):
        pass
    for number, key in enumerate(rated.raters):
        with Run.join(rated.path, lane=0, key=key, observes=True) as lane:
            alignment.sign_preferences(lane, PAIRS[2 * number : 2 * number + 2])
    return rated


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A run with one answer."""
    owner = Key.generate()
    with Run.create(tmp_path / "training", key=owner) as run:
        run.record_step(1, {"gradients": commit_tensors(WEIGHTS)})
        run.record_checkpoint(1, {"parameters": run.store(WEIGHTS)})
    checkpoint = next(each for each in Record(run.path).receipts() if each.kind == "checkpoint")
    with Run.join(run.path, lane=1, key=owner, observes=True) as lane:
        release = alignment.record_release(lane, checkpoint, [])
        alignment.record_output(
            lane, release, "Is he guilty?", "not guilty", parameters=commit_tensors(WEIGHTS)
        )
    return run.path


def test_bytes_of_an_answer_do_not_move_into_its_salt(training: Path) -> None:
    """The hash is over salt and record: "not guilty" with four bytes less has the same one."""
    (path,) = (training / "records").iterdir()
    path.write_text(path.read_text().replace(f" {b'not '.hex()}", f"{b'not '.hex()} "))
    with pytest.raises(CorruptJournal, match="damaged"):
        list(alignment.answers(training))


@pytest.mark.parametrize("text", ["\ud800", 5], ids=["half a surrogate pair", "a number"])
def test_what_is_no_text_is_refused_before_it_is_signed(training: Path, text: str) -> None:
    """`bytes(5)` is five zeros: a number was signed as an answer that nobody gave."""
    before = Record(training)
    release = next(each for lane in before.lanes for each in before.receipts(*lane) if each.kind == "release")
    key = Key.generate()
    with Run.join(training, lane=0, key=key, observes=True) as lane:
        with pytest.raises(InvalidInput) as refused:
            alignment.record_output(lane, release, "asked", text, parameters=commit_tensors(WEIGHTS))
        with pytest.raises(InvalidInput):
            alignment.sign_preferences(lane, [Pair("asked", "good", text)])
    assert refused.value.where == "record 1"
    assert [each.kind for each in Record(training).receipts(key.address, 0)] == ["join", "close"]


def test_a_list_that_could_not_be_read_again_is_not_signed(
    rated: Rated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signed collection of which no pair can be shown any more."""
    monkeypatch.setattr(records, "_LARGEST_LIST", 100)
    with pytest.raises(InvalidInput, match="read again"):
        rated.sign(Key.generate(), records.keep(rated.path, [Salted.new(b"x" * 50)]))


def test_an_erased_pair_is_gone_from_all_lists_and_does_not_come_back(rated: Rated) -> None:
    """The rater's list and the collection hold one record; the next collection wrote the erased one again."""
    root = rated.root(rated.collect())
    erase(rated.path, (root, 1))
    kept = [path.read_text() for path in (rated.path / "records").iterdir()]
    gone = next(each for each in PAIRS if not any(each._encode().hex() in text for text in kept))
    again = rated.collect()
    found = [each.pair for each in alignment.collected(rated.path, again.digest)]
    assert len(found) == 3 and gone not in found
    assert records.read_records(rated.path, root)[1] is None


def _without_its_list(run: Path) -> Commitment:
    return commit_tensors({"0": np.zeros(32, np.uint8)}, keep=True)


def _otherwise_numbered(run: Path) -> Commitment:
    odd = commit_tensors({"a": np.zeros(32, np.uint8)}, keep=True)
    (run / "records" / odd.root.hex()).write_text("erased\n")
    return odd


def _of(content: bytes) -> Callable[[Path], Commitment]:
    return lambda run: records.keep(run, [Salted.new(content)])


@pytest.mark.parametrize(
    "pairs",
    [
        _without_its_list,
        _otherwise_numbered,
        _of(b"x"),
        _of(b'{"chosen":[],"prompt":"","rejected":""}'),
        _of(b'{"chosen":1,"prompt":2,"rejected":3}'),
    ],
    ids=["no list", "odd names", "no JSON", "no texts", "numbers"],
)
def test_a_stranger_does_not_spoil_the_collection(rated: Rated, pairs: Callable[[Path], Commitment]) -> None:
    """One set of somebody who joined stopped `collect`, or made what it signed unreadable for ever."""
    rated.sign(Key.generate(), pairs(rated.path))
    found = alignment.collected(rated.path, rated.collect().digest)
    assert sorted((each.pair for each in found), key=str) == PAIRS
    assert {each.rater for each in found} == {key.address.lower() for key in rated.raters}


def test_a_record_that_is_no_pair_is_named(rated: Rated) -> None:
    """An owner who signs a list in the place of a text: `TypeError` instead of the record."""
    kept = records.keep(rated.path, [Salted.new(b'{"chosen":[],"prompt":"","rejected":""}')])
    receipt = rated.collect_as(kept, "x")
    with pytest.raises(ProofError, match="pair 0 is no pair"):
        alignment.collected(rated.path, receipt.digest)


@pytest.mark.parametrize("source", ["x", "0xab/y/1", f"0x{'00' * 20}/99999999999/1"])
def test_the_rater_of_a_set_that_is_not_here_is_unknown(rated: Rated, source: str) -> None:
    """`ValueError` and `OverflowError` of a name that its signer chose."""
    kept = records.keep(rated.path, [Salted.new(PAIRS[0]._encode())])
    receipt = rated.collect_as(kept, source)
    (found,) = alignment.collected(rated.path, receipt.digest)
    assert found.pair == PAIRS[0] and found.rater is None


def test_a_rater_whose_lane_is_left_out_is_unknown(rated: Rated) -> None:
    """The others' pairs must be told all the same."""
    collection = rated.collect().digest
    away, here = (key.address.lower() for key in rated.raters)
    rmtree(rated.path / "workers" / away)
    found = alignment.collected(rated.path, collection)
    assert {each.rater for each in found} == {None, here} and len(found) == 4


def test_pairs_that_are_numbered_otherwise_are_no_list(rated: Rated) -> None:
    """`KeyError` of an erased record under a name that is no number."""
    receipt = rated.collect_as(_otherwise_numbered(rated.path), "x")
    with pytest.raises(ProofError, match="no list of records"):
        alignment.collected(rated.path, receipt.digest)
    with pytest.raises(NotFound):
        alignment.collected(rated.path, bytes(32))
