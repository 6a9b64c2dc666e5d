"""Preferences, evaluations, releases and answers: each link that does not hold is named, and a stranger's refutes nobody."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import counterfoil
import oracle
from counterfoil import Key, Record, Run, alignment
from counterfoil.alignment import Collected, Pair
from counterfoil.errors import InvalidInput, NotFound, ProofError, Refuted

PAIRS = [Pair(f"question {number}", f"good {number}", f"bad {number}") for number in range(6)]
WEIGHTS = {"w": np.arange(600, dtype="f4"), "b": np.ones(3)}


def receipt(path: Path, worker: str, lane: int, sequence: int) -> counterfoil.Receipt:
    return Record(path).receipts(worker, lane)[sequence]


def rate(path: Path, key: Key, pairs: list[Pair], lane: int = 0) -> None:
    has_lane = (key.address, lane) in Record(path).lanes
    lane_of = (
        Run.open(path, lane=lane, key=key) if has_lane else Run.join(path, lane=lane, key=key, observes=True)
    )
    with lane_of as run:
        alignment.sign_preferences(run, pairs)


def collect(path: Path, owner: Key) -> bytes:
    with Run.open(path, key=owner) as run:
        return alignment.collect(run).digest


@pytest.fixture
def owner() -> Key:
    return Key.generate()


@pytest.fixture
def raters() -> list[Key]:
    return [Key.generate(), Key.generate()]


@pytest.fixture
def preferences(tmp_path: Path, owner: Key, raters: list[Key]) -> Path:
    """Two raters, of whom both signed the pair 2."""
    with Run.create(tmp_path / "preferences", key=owner):
        pass
    rate(tmp_path / "preferences", raters[0], PAIRS[:3])
    rate(tmp_path / "preferences", raters[1], PAIRS[2:])
    return tmp_path / "preferences"


@pytest.fixture
def collection(preferences: Path, owner: Key) -> bytes:
    return collect(preferences, owner)


def train(path: Path, owner: Key, preferences: Path, collection: bytes, pairs: list[Pair]) -> Path:
    content = np.frombuffer(b"".join(pair.sample for pair in pairs), np.uint8).reshape(-1, 32)
    dataset = counterfoil.commit_tensors({"content": content}, keep=True)
    spec = {"preferences": alignment.pin(preferences, collection)}
    with Run.create(path, key=owner, spec=spec, dataset=dataset) as run:
        run.record_step(1, {"gradients": counterfoil.commit_tensors(WEIGHTS)})
        run.record_checkpoint(1, {"parameters": run.store(WEIGHTS)})
    return path


def pairs_of(found: list[Collected]) -> list[Pair]:
    return [each.pair for each in found if each.pair is not None]


@pytest.fixture
def training(tmp_path: Path, owner: Key, preferences: Path, collection: bytes) -> Path:
    pairs = pairs_of(alignment.collected(preferences, collection))
    return train(tmp_path / "training", owner, preferences, collection, pairs)


def checkpoint(path: Path) -> counterfoil.Receipt:
    return next(each for each in Record(path).receipts() if each.kind == "checkpoint")


def evaluate(path: Path, key: Key, of: counterfoil.Receipt | None = None) -> counterfoil.Receipt:
    held_out = counterfoil.commit_tensors({"content": np.zeros((1, 32), np.uint8)}, keep=True)
    with Run.join(path, lane=5, key=key, observes=True) as run:
        of = of or checkpoint(path)
        return alignment.record_evaluation(run, of, held_out=held_out, metrics={"margin": 0.5})


def release(
    path: Path, owner: Key, evaluations: list[counterfoil.Receipt], lane: int = 1
) -> counterfoil.Receipt:
    with Run.join(path, lane=lane, key=owner, observes=True) as run:
        return alignment.record_release(run, checkpoint(path), evaluations)


def answer(path: Path, key: Key, of: counterfoil.Receipt, *weights: dict | None, lane: int = 2) -> None:
    with Run.join(path, lane=lane, key=key, observes=True) as run:
        for number, each in enumerate(weights):
            loaded = None if each is None else counterfoil.commit_tensors(each)
            alignment.record_output(run, of, f"ask {number}", f"say {number}", parameters=loaded)


def broken(path: Path) -> list[str]:
    with pytest.raises(Refuted) as refuted:
        counterfoil.verify(path)
    return [each.edge for each in refuted.value.verdict.broken]


def noted(path: Path, words: str) -> str:
    return next(note for note in counterfoil.verify(path).notes if words in note)


def test_what_several_raters_signed_is_collected_once(
    preferences: Path, collection: bytes, raters: list[Key]
) -> None:
    """A pair that two raters signed would weigh double, and one that nobody signed would count."""
    found = alignment.collected(preferences, collection)
    assert sorted(pairs_of(found), key=str) == PAIRS
    assert {each.rater for each in found} == {key.address.lower() for key in raters}
    verdict = counterfoil.verify(preferences)
    assert verdict.status == "verified", "a run of preferences has no steps, and is no empty run"
    assert "6 preferences of 2 raters were collected; 0 of them" in noted(preferences, "collected")


def test_a_record_is_the_canonical_json_of_its_pair(preferences: Path, collection: bytes) -> None:
    """Another program must find the pair's record under the same bytes."""
    odd = Pair('tab\t "quoted" \\ \x1f', "é\u2028/", "\N{PILE OF POO}")
    expected = (
        '{"chosen":"é\u2028/","prompt":"tab\\t \\"quoted\\" \\\\ \\u001f","rejected":"\N{PILE OF POO}"}'
    )
    assert odd._encode() == expected.encode()
    opened = Record(preferences).opened(alignment._collection(Record(preferences), collection))["pairs"]
    (held,) = {
        each.content for each in counterfoil.read_records(preferences, opened.commitment.root) if each
    } & {b'{"chosen":"good 4","prompt":"question 4","rejected":"bad 4"}'}
    assert oracle.sha256(b"counterfoil.record.v1" + b"") and json.loads(held)["prompt"] == "question 4"
    with pytest.raises(InvalidInput, match="surrogate"):
        Pair("\ud800", "", "")._encode()


def test_a_withdrawn_pair_is_told_and_not_collected_again(
    preferences: Path, collection: bytes, raters: list[Key], owner: Key
) -> None:
    """Salts made anew would make every pair of a second set look withdrawn."""
    rate(preferences, raters[0], [PAIRS[0], PAIRS[2]])
    found = alignment.collected(preferences, collection)
    assert [each.pair for each in found if each.withdrawn] == [PAIRS[1]]
    assert "1 of them were withdrawn" in noted(preferences, "collected")
    again = alignment.collected(preferences, collect(preferences, owner))
    assert PAIRS[1] not in pairs_of(again) and len(again) == 5
    rate(preferences, raters[1], [])
    second = raters[1].address.lower()
    assert all(
        each.withdrawn for each in alignment.collected(preferences, collection) if each.rater == second
    )


def test_an_erased_pair_is_not_collected_and_not_compared(
    preferences: Path, collection: bytes, training: Path
) -> None:
    """Forgetting one person's record must leave the others comparable."""
    root = (
        Record(preferences)
        .opened(alignment._collection(Record(preferences), collection))["pairs"]
        .commitment.root
    )
    counterfoil.erase(preferences, (root, 3))
    found = alignment.check(training, preferences)
    assert [number for number, each in enumerate(found) if each.pair is None] == [3]


def test_a_training_run_is_bound_to_the_pairs_it_names(
    preferences: Path, collection: bytes, training: Path, tmp_path: Path, owner: Key
) -> None:
    """One flipped pair among the samples, or one less, and training was on something else."""
    pairs = pairs_of(alignment.check(training, preferences, signer=owner.address))
    flipped = list(pairs)
    flipped[4] = Pair(pairs[4].prompt, pairs[4].rejected, pairs[4].chosen)
    lying = train(tmp_path / "flipped", owner, preferences, collection, flipped)
    with pytest.raises(ProofError) as refused:
        alignment.check(lying, preferences)
    assert refused.value.where == "genesis: dataset: sample 4 <- pair 4"
    short = train(tmp_path / "short", owner, preferences, collection, pairs[:5])
    with pytest.raises(ProofError, match="number of samples"):
        alignment.check(short, preferences)
    with pytest.raises(InvalidInput, match="names no collection"):
        alignment.check(preferences, preferences)
    with Run.create(tmp_path / "other", key=owner) as run:
        run.record_step(1, {"gradients": counterfoil.commit_tensors(WEIGHTS)})
    with pytest.raises(ProofError, match="another run"):
        alignment.check(training, tmp_path / "other")
    with pytest.raises(Refuted):
        alignment.check(training, preferences, signer=Key.generate().address)


def test_a_record_changed_after_it_was_signed_is_named(
    preferences: Path, collection: bytes, training: Path
) -> None:
    """Whoever keeps the records could show other pairs than the raters signed."""
    root = (
        Record(preferences)
        .opened(alignment._collection(Record(preferences), collection))["pairs"]
        .commitment.root
    )
    path = preferences / "records" / root.hex()
    lines = path.read_text().splitlines()
    salt, content = lines[1].split()
    told = json.loads(bytes.fromhex(content))
    told["chosen"], told["rejected"] = told["rejected"], told["chosen"]
    lines[1] = f"{salt} {json.dumps(told, separators=(',', ':')).encode().hex()}"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ProofError) as refused:
        alignment.check(training, preferences)
    assert str(refused.value.where).endswith("(preference-set): pairs <- record 1")


@pytest.mark.parametrize(
    ("lie", "edge"),
    [
        ("unsigned", "(preference-set): pair 1"),
        ("twice", "(preference-set): pair 1"),
        ("elsewhere", "(preference-set): sources <- "),
    ],
)
def test_a_collection_of_what_no_rater_signed_is_refuted(
    preferences: Path, owner: Key, raters: list[Key], lie: str, edge: str
) -> None:
    """An owner who adds pairs, counts one twice, or names a set that there is not, buys another alignment."""
    record = Record(preferences)
    own = alignment._latest(record, raters[0].address, 0)
    assert own is not None
    signed = alignment._entries(record, own, "pairs")
    values = {"unsigned": [signed["0"], bytes(32)], "twice": [signed["0"]] * 2, "elsewhere": [signed["0"]]}[
        lie
    ]
    name = alignment._name(own) if lie != "elsewhere" else f"{raters[0].address.lower()}/0/7"
    with Run.open(preferences, key=owner) as run:
        pairs = alignment._named({str(number): value for number, value in enumerate(values)})
        sources = alignment._named({name: own.digest})
        run.record("preference-set", {}, {"pairs": pairs, "sources": sources})
    assert any(edge in each for each in broken(preferences))


def test_a_strangers_collection_counts_for_nothing(preferences: Path, collection: bytes) -> None:
    """Anybody may join a run; a collection by them is none of the owner's."""
    with Run.join(preferences, lane=3, key=Key.generate(), observes=True) as run:
        stranger = alignment.collect(run).digest
    assert "1 collections of preferences by others" in noted(preferences, "by others")
    with pytest.raises(NotFound, match="signed no collection"):
        alignment.collected(preferences, stranger)


def test_answers_are_bound_to_the_released_weights(training: Path, owner: Key, raters: list[Key]) -> None:
    """The honest chain, which the lies below are measured against; and by bundle."""
    found = [evaluate(training, key) for key in (*raters, owner)]
    answer(training, owner, release(training, owner, found), WEIGHTS, None, None)
    expected = "the checkpoint of step 1, behind 3 evaluations, by 2 others; 3 answers are bound to it"
    assert expected in noted(training, "released")
    bundle = training.with_suffix(".counterfoil")
    counterfoil.export(training, bundle)
    assert expected in noted(bundle, "released")
    assert [(each.request, each.answer) for each in alignment.answers(training)] == [
        (f"ask {number}", f"say {number}") for number in range(3)
    ]
    counterfoil.export(training, bundle, tensors=[])
    assert "of 3 answers it is not shown" in noted(bundle, "answers it is")
    assert "evaluations that are withheld" in noted(bundle, "released")


def test_one_changed_weight_is_named_with_its_tensor(training: Path, owner: Key) -> None:
    """Another model behind the released name; what follows it is not accused of the same once more."""
    released = release(training, owner, [])
    changed = {**WEIGHTS, "w": WEIGHTS["w"] + (np.arange(600) == 77).astype("f4")}
    answer(training, owner, released, changed, None)
    (edge,) = broken(training)
    assert edge.endswith('receipt 1 (output): parameters <- the released checkpoint: "w"')


def test_an_answer_without_weights_of_its_own_follows_one_with_them(training: Path, owner: Key) -> None:
    """The first answer, and one behind another release, must say what was loaded."""
    first = release(training, owner, [])
    answer(training, owner, first, None)
    (edge,) = broken(training)
    assert edge.endswith("receipt 1 (output): parameters")


def test_an_edited_answer_is_named(training: Path, owner: Key) -> None:
    """A log of answers in which one text was exchanged since."""
    answer(training, owner, release(training, owner, []), WEIGHTS, None)
    for path in (training / "records").iterdir():
        path.write_text(path.read_text().replace(b"say 1".hex(), b"say 2".hex()))
    with pytest.raises(ProofError) as refused:
        list(alignment.answers(training))
    assert str(refused.value.where).endswith("receipt 2 (output): exchange <- record 1")


@pytest.mark.parametrize("lie", ["another checkpoint", "none of its kind"])
def test_a_release_behind_evaluations_that_are_not_of_it_is_refuted(
    training: Path, owner: Key, raters: list[Key], lie: str
) -> None:
    """A good evaluation of other weights is no evaluation of these."""
    with Run.open(training, key=owner) as run:
        run.record_step(2, {"gradients": counterfoil.commit_tensors(WEIGHTS)})
        run.record_checkpoint(2, {"parameters": run.store({"w": np.zeros(4)})})
    later = [each for each in Record(training).receipts() if each.kind == "checkpoint"][-1]
    named = evaluate(training, raters[0], later) if lie == "another checkpoint" else checkpoint(training)
    release(training, owner, [named])
    (edge,) = broken(training)
    assert "(release): evaluations <- 0x" in edge


def test_what_a_stranger_says_refutes_nobody(training: Path, owner: Key) -> None:
    """Whoever has the folder could otherwise get an honest run refuted."""
    stranger = Key.generate()
    genesis = Record(training).receipts()[0]
    evaluate(training, stranger, genesis)
    with Run.join(training, lane=1, key=stranger, observes=True) as run:
        own = alignment.record_release(run, checkpoint(training), [])
    honest = release(training, owner, [])
    answer(training, stranger, own, WEIGHTS, lane=2)
    answer(training, stranger, honest, {"w": np.zeros(2)}, WEIGHTS, lane=3)
    verdict = counterfoil.verify(training)
    assert verdict.status == "verified" and verdict.integrity.startswith("intact")
    for kind, count in (("evaluation", 1), ("release", 1), ("output", 2)):
        assert f"{count} receipts ({kind}) by others" in noted(training, f"({kind}) by others")
    assert "behind 0 evaluations, by 0 others; 1 answers are bound" in noted(training, "released")


def test_evidence_that_lies_in_a_lane_left_out_is_undecided(
    training: Path, owner: Key, raters: list[Key]
) -> None:
    """A folder without the evaluator's lane must neither pass nor accuse."""
    release(training, owner, [evaluate(training, raters[0])])
    shutil.rmtree(training / "workers" / raters[0].address.lower())
    verdict = counterfoil.verify(training)
    assert verdict.status == "undecided" and "is not shown" in " ".join(verdict.missing)


def test_a_pair_given_twice_is_refused(preferences: Path) -> None:
    with (
        Run.join(preferences, lane=9, key=Key.generate(), observes=True) as run,
        pytest.raises(InvalidInput) as refused,
    ):
        alignment.sign_preferences(run, [PAIRS[0], PAIRS[1], PAIRS[0]])
    assert refused.value.where == "pair 2"
