"""Preferences, evaluations, releases and answers: each link that does not hold is named, and a stranger's refutes nobody."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import counterfoil
import counterfoil.records
from counterfoil import Key, Record, Run, alignment
from counterfoil.alignment import Collected, Pair, lists
from counterfoil.alignment import preferences as preferences_of
from counterfoil.errors import CorruptJournal, InvalidInput, NotFound, ProofError, Refuted
from counterfoil.run import place
from counterfoil.testing.tamper import OPENING, read_frames, write_frames

PAIRS = [Pair(f"question {number}", f"good {number}", f"bad {number}") for number in range(6)]
WEIGHTS = {"w": np.arange(600, dtype="f4"), "b": np.ones(3)}


def rate(path: Path, key: Key, pairs: list[Pair], lane: int = 0) -> None:
    has_lane = (key.address, lane) in Record(path).lanes
    lane_of = (
        Run.open(path, lane=lane, key=key) if has_lane else Run.join(path, lane=lane, key=key, observes=True)
    )
    with lane_of as run:
        alignment.sign_preferences(run, pairs)


def collect(path: Path, owner: Key, raters: list[Key]) -> bytes:
    with Run.open(path, key=owner) as run:
        return alignment.collect(run, [key.address for key in raters]).digest


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
def collection(preferences: Path, owner: Key, raters: list[Key]) -> bytes:
    return collect(preferences, owner, raters)


def list_root(preferences: Path, collection: bytes) -> bytes:
    record = Record(preferences)
    return record.opened(preferences_of._collection(record, collection))["pairs"].commitment.root


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
    """As `alignment.record_evaluation`, of any receipt."""
    fields = {
        "heldOut": counterfoil.commit_tensors({"content": np.zeros((1, 32), np.uint8)}, keep=True),
        "metrics": counterfoil.commit_tensors({"margin": 0.5}, keep=True),
    }
    with Run.join(path, lane=5, key=key, observes=True) as run:
        return lists.signed_receipt(
            run, run.record("evaluation", place("evaluated", of or checkpoint(path)), fields)
        )


def release(
    path: Path, key: Key, evaluations: list[counterfoil.Receipt], lane: int = 1
) -> counterfoil.Receipt:
    """As `alignment.record_release`, behind any receipts and by anybody."""
    named = lists.named_list({lists.name_of(each): each.digest for each in evaluations})
    fields = {"evaluations": named} if evaluations else {}
    with Run.join(path, lane=lane, key=key, observes=True) as run:
        return lists.signed_receipt(run, run.record("release", place("released", checkpoint(path)), fields))


def answer(path: Path, key: Key, of: counterfoil.Receipt, *weights: dict | None, lane: int = 2) -> None:
    """As `alignment.record_output`, with any weights."""
    with Run.join(path, lane=lane, key=key, observes=True) as run:
        for number, each in enumerate(weights):
            fields = {"exchange": run.commit_records([f"ask {number}", f"say {number}"])}
            if each is not None:
                fields["parameters"] = counterfoil.commit_tensors(each)
            run.record("output", place("release", of), fields)


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
    assert "6 of 6 collected preferences are shown to be those of 2 raters, whose last sets lack 0" in noted(
        preferences, "collected"
    )


def test_a_record_is_the_canonical_json_of_its_pair(preferences: Path, collection: bytes) -> None:
    """Another program must find the pair's record under the same bytes."""
    odd = Pair('tab\t "quoted" \\ \x1f', "é\u2028/", "\N{PILE OF POO}")
    expected = (
        '{"chosen":"é\u2028/","prompt":"tab\\t \\"quoted\\" \\\\ \\u001f","rejected":"\N{PILE OF POO}"}'
    )
    assert odd._encode() == expected.encode()
    opened = Record(preferences).opened(preferences_of._collection(Record(preferences), collection))["pairs"]
    (held,) = {
        each.content for each in counterfoil.read_records(preferences, opened.commitment.root) if each
    } & {b'{"chosen":"good 4","prompt":"question 4","rejected":"bad 4"}'}
    assert json.loads(held)["prompt"] == "question 4"
    with pytest.raises(InvalidInput, match="surrogate"):
        Pair("\ud800", "", "")._encode()


def test_a_withdrawn_pair_is_told_and_not_collected_again(
    preferences: Path, collection: bytes, raters: list[Key], owner: Key
) -> None:
    """Salts made anew would make every pair of a second set look withdrawn."""
    rate(preferences, raters[0], [PAIRS[0], PAIRS[2]])
    found = alignment.collected(preferences, collection)
    assert [each.pair for each in found if each.withdrawn] == [PAIRS[1]]
    assert "whose last sets lack 1 of them" in noted(preferences, "collected")
    again = alignment.collected(preferences, collect(preferences, owner, raters))
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
    root = list_root(preferences, collection)
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
    root = list_root(preferences, collection)
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
    own = preferences_of._latest(record, raters[0].address, 0)
    assert own is not None
    signed = lists.opened_values(record, own, "pairs")
    values = {"unsigned": [signed["0"], bytes(32)], "twice": [signed["0"]] * 2, "elsewhere": [signed["0"]]}[
        lie
    ]
    name = lists.name_of(own) if lie != "elsewhere" else f"{owner.address.lower()}/0/7"
    with Run.open(preferences, key=owner) as run:
        pairs = lists.named_list({str(number): value for number, value in enumerate(values)})
        sources = lists.named_list({name: own.digest})
        run.record("preference-set", {}, {"pairs": pairs, "sources": sources})
    assert any(edge in each for each in broken(preferences))


def test_a_strangers_collection_counts_for_nothing(
    preferences: Path, collection: bytes, raters: list[Key]
) -> None:
    """Anybody may join a run; a collection by them is none of the owner's."""
    with Run.join(preferences, lane=3, key=Key.generate(), observes=True) as run:
        with pytest.raises(InvalidInput, match="owner alone"):
            alignment.collect(run, [raters[0].address])
        fields = {name: lists.named_list({"0": bytes(32)}) for name in ("pairs", "sources")}
        stranger = lists.signed_receipt(run, run.record("preference-set", {}, fields)).digest
    assert "1 collections of preferences by others" in noted(preferences, "by others")
    with pytest.raises(NotFound, match="signed no collection"):
        alignment.collected(preferences, stranger)


def test_answers_are_bound_to_the_released_weights(training: Path, owner: Key, raters: list[Key]) -> None:
    """The honest chain, which the lies below are measured against; and by bundle."""
    found = [evaluate(training, key) for key in (*raters, owner)]
    answer(training, owner, release(training, owner, found), WEIGHTS, None, None)
    expected = "behind 3 evaluations, by 2 others; 3 answers are bound to it"
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
    own = release(training, stranger, [])
    honest = release(training, owner, [], lane=4)
    answer(training, stranger, own, WEIGHTS, lane=2)
    answer(training, stranger, honest, {"w": np.zeros(2)}, WEIGHTS, lane=3)
    verdict = counterfoil.verify(training)
    assert verdict.status == "verified" and verdict.integrity.startswith("intact")
    for kind, count in (("evaluation", 1), ("release", 1), ("output", 2)):
        assert f"{count} receipts ({kind}) by others" in noted(training, f"({kind}) by others")
    assert "behind 0 evaluations, by 0 others; 0 answers are bound" in noted(training, "released")


def test_evidence_that_lies_in_a_lane_left_out_is_undecided(
    training: Path, owner: Key, raters: list[Key]
) -> None:
    """A folder without the evaluator's lane must neither pass nor accuse."""
    release(training, owner, [evaluate(training, raters[0])])
    shutil.rmtree(training / "workers" / raters[0].address.lower())
    verdict = counterfoil.verify(training)
    assert verdict.status == "undecided" and "evaluations are not shown" in " ".join(verdict.missing)


def test_a_pair_given_twice_is_refused(preferences: Path) -> None:
    with (
        Run.join(preferences, lane=9, key=Key.generate(), observes=True) as run,
        pytest.raises(InvalidInput) as refused,
    ):
        alignment.sign_preferences(run, [PAIRS[0], PAIRS[1], PAIRS[0]])
    assert refused.value.where == "pair 2"


def rewrite(path: Path, root: bytes, line: int, text: str) -> None:
    held = (path / "records" / root.hex()).read_text().splitlines()
    held[line] = text
    (path / "records" / root.hex()).write_text("\n".join(held) + "\n")


def test_bytes_cannot_be_moved_from_a_record_into_its_salt(training: Path, owner: Key) -> None:
    """Salt and record are hashed in one piece: `not guilty` would read `guilty` under a longer salt."""
    answer(training, owner, release(training, owner, []), WEIGHTS)
    output = next(each for each in Record(training).receipts(owner.address, 2) if each.kind == "output")
    root = Record(training).opened(output)["exchange"].commitment.root
    _asked, said = (training / "records" / root.hex()).read_text().splitlines()
    salt, content = said.split()
    rewrite(training, root, 1, f"{salt}{content[:8]} {content[8:]}")
    with pytest.raises(CorruptJournal):
        list(alignment.answers(training))
    with pytest.raises(InvalidInput, match="random bytes"):
        counterfoil.records.Salted(b"guilty", bytes(20))


def withhold(path: Path, receipt: counterfoil.Receipt) -> None:
    """Takes away what a rater's receipt opens."""
    journal = path / "workers" / receipt.fields["worker"].lower() / str(receipt.fields["lane"]) / "journal"
    frames = [
        each for each in read_frames(journal) if not (each[:1] == OPENING and each[1:33] == receipt.digest)
    ]
    write_frames(journal, frames)


def test_pairs_that_no_opened_set_shows_are_undecided(
    preferences: Path, owner: Key, raters: list[Key], tmp_path: Path
) -> None:
    """An owner who hides what a rater signed could collect whatever the owner likes under the rater's name."""
    source = preferences_of._latest(Record(preferences), raters[0].address, 0)
    assert source is not None
    wish = Pair("q", "what the owner likes", "what raters like")
    with Run.open(preferences, key=owner) as run:
        fields = {
            "pairs": counterfoil.records.keep(run.path, [counterfoil.records.Salted.new(wish._encode())]),
            "sources": lists.named_list({lists.name_of(source): source.digest}),
        }
        forged = lists.signed_receipt(run, run.record("preference-set", {}, fields)).digest
    assert any("(preference-set): pair 0" in each for each in broken(preferences))
    withhold(preferences, source)
    verdict = counterfoil.verify(preferences)
    assert verdict.status == "undecided" and "what was signed" in " ".join(verdict.missing)
    assert any(
        "0 of 1 collected preferences are shown to be those of 0 raters" in each for each in verdict.notes
    )
    lying = train(tmp_path / "lying", owner, preferences, forged, [wish])
    with pytest.raises(NotFound, match="undecided"):
        alignment.check(lying, preferences)


def test_a_withdrawal_is_told_though_another_rater_copied_the_pair(
    preferences: Path, owner: Key, raters: list[Key]
) -> None:
    """Whoever copies salted hashes would keep alive what their rater took back."""
    thief = Key.generate()
    signed = lists.opened_values(
        Record(preferences), preferences_of._latest(Record(preferences), raters[0].address, 0), "pairs"
    )
    with Run.join(preferences, lane=0, key=thief, observes=True) as run:
        run.record("preference-set", {}, {"pairs": lists.named_list(signed)})
    named = {
        lists.name_of(each): each.digest
        for key in (raters[0], thief)
        if (each := preferences_of._latest(Record(preferences), key.address, 0))
    }
    with Run.open(preferences, key=owner) as run:
        fields = {"pairs": lists.named_list(signed), "sources": lists.named_list(named)}
        run.record("preference-set", {}, fields)
    assert "lack 0 of them" in noted(preferences, "collected")
    rate(preferences, raters[0], [])
    assert "lack 3 of them" in noted(preferences, "collected")


def test_an_erased_pair_is_gone_from_every_list(
    preferences: Path, collection: bytes, raters: list[Key], owner: Key
) -> None:
    """A record that stays in its rater's list comes back with the next collection."""
    found = alignment.collected(preferences, collection)
    root = list_root(preferences, collection)
    counterfoil.erase(preferences, (root, 1))
    content = found[1].pair._encode().hex()
    alone = found[1].pair != PAIRS[2]  # which the other rater signed under another salt
    assert alone != any(content in path.read_text() for path in (preferences / "records").iterdir())
    again = alignment.collected(preferences, collect(preferences, owner, raters))
    assert (found[1].pair in pairs_of(again)) != alone


def test_a_log_that_another_cut_or_wrote_anew_accuses_nobody(
    training: Path, owner: Key, raters: list[Key]
) -> None:
    """Whoever evaluates keeps a copy of their lane from before, and an honest owner would be refuted with it."""
    lane = training / "workers" / raters[0].address.lower() / "5"
    with Run.join(training, lane=5, key=raters[0], observes=True):
        pass
    before = training.with_name("before")
    shutil.copytree(lane, before)
    with Run.open(training, lane=5, key=raters[0]) as run:
        held_out = counterfoil.commit_tensors({"content": np.zeros((1, 32), np.uint8)}, keep=True)
        evaluation = alignment.record_evaluation(
            run, checkpoint(training), held_out=held_out, metrics={"a": 1.0}
        )
    with Run.join(training, lane=1, key=owner, observes=True) as run:
        alignment.record_release(run, checkpoint(training), [evaluation])
    assert counterfoil.verify(training).status == "verified"
    shutil.rmtree(lane)
    shutil.copytree(before, lane)
    verdict = counterfoil.verify(training)
    assert verdict.status == "undecided" and verdict.integrity.startswith("intact")


def test_what_would_refute_its_own_run_is_not_signed(training: Path, owner: Key, raters: list[Key]) -> None:
    """A receipt cannot be taken back: a server that loaded other weights would convict its owner for ever."""
    held_out = counterfoil.commit_tensors({"content": np.zeros((1, 32), np.uint8)}, keep=True)
    genesis = Record(training).receipts()[0]
    with Run.join(training, lane=5, key=raters[0], observes=True) as run:
        with pytest.raises(InvalidInput, match="no checkpoint"):
            alignment.record_evaluation(run, genesis, held_out=held_out, metrics={})
        evaluation = alignment.record_evaluation(
            run, checkpoint(training), held_out=held_out, metrics={"a": 1.0}
        )
        with pytest.raises(InvalidInput, match="owner alone"):
            alignment.record_release(run, checkpoint(training), [evaluation])
    with Run.join(training, lane=1, key=owner, observes=True) as run:
        with pytest.raises(InvalidInput, match="no evaluation of the checkpoint"):
            alignment.record_release(run, checkpoint(training), [checkpoint(training)])
        released = alignment.record_release(run, checkpoint(training), [evaluation])
        with pytest.raises(InvalidInput, match="no output of this release"):
            alignment.record_output(run, released, "ask", "say")
        changed = counterfoil.commit_tensors({**WEIGHTS, "b": np.zeros(3)})
        with pytest.raises(InvalidInput, match="not the released ones") as refused:
            alignment.record_output(run, released, "ask", "say", parameters=changed)
        assert refused.value.where == "b"
        alignment.record_output(run, released, "ask", "say", parameters=counterfoil.commit_tensors(WEIGHTS))
    with Run.open(training, lane=1, key=owner) as run:
        alignment.record_output(run, released, "ask again", "say")  # behind a restart, by the same weights
    assert "behind 1 evaluations, by 1 others; 2 answers are bound to it" in noted(training, "released")


def test_an_empty_collection_is_no_work(tmp_path: Path, owner: Key) -> None:
    """A run without a step would be verified for nothing."""
    with Run.create(tmp_path / "empty", key=owner) as run:
        run.record("preference-set", {}, {"sources": lists.named_list({"x": bytes(32)})})
    assert counterfoil.verify(tmp_path / "empty").status == "undecided"


def test_weights_that_are_tied_in_one_model_may_be_loaded_untied(tmp_path: Path, owner: Key) -> None:
    """Equal bytes under two names are the released weights, whether the names share memory or not."""
    tied = {"a": WEIGHTS["w"], "b": counterfoil.Alias("a")}
    with Run.create(tmp_path / "tied", key=owner) as run:
        run.record_step(1, {"gradients": counterfoil.commit_tensors(WEIGHTS)})
        stored = run.store({"a": WEIGHTS["w"]})
        assert stored.count == 1
        run.record_checkpoint(1, {"parameters": counterfoil.commit_tensors(tied)})
    released = release(tmp_path / "tied", owner, [])
    answer(tmp_path / "tied", owner, released, {"a": WEIGHTS["w"], "b": WEIGHTS["w"]}, tied)
    assert "2 answers are bound to it" in noted(tmp_path / "tied", "released")
    other = {"a": WEIGHTS["w"], "b": WEIGHTS["w"] + 1}
    answer(tmp_path / "tied", owner, released, other, lane=3)
    (edge,) = broken(tmp_path / "tied")
    assert edge.endswith('the released checkpoint: "b"')


@pytest.mark.parametrize(
    ("kind", "told"), [("join", {}), ("step", {"step": 1}), ("evaluation", {"sequence": 7})], ids=str
)
def test_only_statements_are_recorded_freely(training: Path, owner: Key, kind: str, told: dict) -> None:
    """A header of the caller's own, or a second genesis, would refute the run for ever."""
    with Run.join(training, lane=1, key=owner, observes=True) as run, pytest.raises(InvalidInput):
        run.record(kind, told, {})
    assert counterfoil.verify(training).status == "verified"


@pytest.mark.parametrize("content", [5, "\ud800", None])
def test_a_record_that_is_no_text_is_refused(training: Path, owner: Key, content: object) -> None:
    """bytes(5) would sign five zeros."""
    with (
        Run.join(training, lane=1, key=owner, observes=True) as run,
        pytest.raises(InvalidInput, match="record 1"),
    ):
        run.commit_records(["asked", content])  # type: ignore[list-item]


def test_the_check_before_signing_agrees_with_verification(tmp_path: Path, owner: Key) -> None:
    """An honest server with untied weights could sign nothing; another shape of equal bytes ended in StopIteration."""
    with Run.create(tmp_path / "tied", key=owner) as run:
        run.record_step(1, {"gradients": counterfoil.commit_tensors(WEIGHTS)})
        run.store({"a": WEIGHTS["w"]})
        tied = counterfoil.commit_tensors({"a": WEIGHTS["w"], "b": counterfoil.Alias("a")})
        run.record_checkpoint(1, {"parameters": tied})
    released = release(tmp_path / "tied", owner, [])
    untied = counterfoil.commit_tensors({"a": WEIGHTS["w"], "b": WEIGHTS["w"]})
    reshaped = counterfoil.commit_tensors({"a": WEIGHTS["w"].reshape(2, 300), "b": counterfoil.Alias("a")})
    with Run.join(tmp_path / "tied", lane=2, key=owner, observes=True) as run:
        with pytest.raises(InvalidInput, match="not the released ones") as refused:
            alignment.record_output(run, released, "ask", "say", parameters=reshaped)
        assert refused.value.where == "a" and "300" in str(refused.value.actual)
        alignment.record_output(run, released, "ask", "say", parameters=untied)
    assert "1 answers are bound to it" in noted(tmp_path / "tied", "released")
