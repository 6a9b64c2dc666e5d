"""What receipts tell somebody who knows the initial weights and guesses the training record.

The attacker repeats one step for each candidate and looks for the result in what a receipt shows:
digests. Openings are the owner's, and the attacker gets one only where a test says so.
"""

from __future__ import annotations

import copy
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import counterfoil
import oracle
import samples
from counterfoil import Commitment, Receipt, Record, Run, commit_tensors

torch = pytest.importorskip("torch")
collect = pytest.importorskip("counterfoil.torch.collect")

FIELDS = ("parameters", "optimizer", "metrics", "buffers")
CANDIDATES, SECRET, KNOWN = 100, 61, 7
RATE = 3e-3
RATES = [round(digit * 10.0**power, 6) for power in range(-5, 0) for digit in range(1, 10)]
State = Mapping[str, Any]
Guess = tuple[bytes, bytes | None]
"""A blind, and the key of the entries or None for plain ones."""


@dataclass(frozen=True)
class World:
    """What the attacker knows: the weights before the step, most of the batch, and the candidates."""

    model: Any
    known: tuple[Any, Any]
    candidates: tuple[Any, Any]

    def batch(self, candidate: int) -> tuple[Any, Any]:
        """The known records and one more; batch normalisation needs more than one."""
        parts = zip(self.known, self.candidates, strict=True)
        x, y = (torch.cat([known, each[candidate : candidate + 1]]) for known, each in parts)
        return x, y

    def start(self) -> tuple[Any, Any]:
        """The model before the step, and its optimiser."""
        model = copy.deepcopy(self.model)
        return model, torch.optim.Adam(model.parameters(), lr=RATE)

    def repeated(self, candidate: int) -> dict[str, State]:
        """The state after the step, if this candidate was in its batch."""
        model, optimizer = self.start()
        loss = train(model, optimizer, *self.batch(candidate))
        collector = collect.Collector(model, [optimizer])
        states = {field: getattr(collector, field)() for field in ("parameters", "optimizer", "buffers")}
        return {**states, "metrics": {"loss": loss.item()}}


def train(model: Any, optimizer: Any, x: Any, y: Any, recorder: Any = None) -> Any:
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    if recorder is not None:
        recorder.log(loss=loss)
    optimizer.step()
    optimizer.zero_grad()
    return loss


@pytest.fixture(scope="module")
def world() -> World:
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    torch.manual_seed(11)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 10)
    )
    last = KNOWN + CANDIDATES
    return World(model, (x[:KNOWN], y[:KNOWN]), (x[KNOWN:last], y[KNOWN:last]))


@pytest.fixture(scope="module")
def guesses(world: World) -> list[dict[str, State]]:
    """The step, once for each candidate."""
    return [world.repeated(candidate) for candidate in range(CANDIDATES)]


def recorded(path: Path, world: World, public: Sequence[str]) -> Path:
    """A run of one step, whose batch held the secret candidate."""
    model, optimizer = world.start()
    with Run.create(path, public=public) as run:
        recorder = run.attach(model, optimizer, every=1)
        train(model, optimizer, *world.batch(SECRET), recorder)
    return path


@pytest.fixture(scope="module")
def public(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose owner thought that a digest tells nothing."""
    fields = [f"step.{field}" for field in (*FIELDS, "hyperparameters")]
    return recorded(tmp_path_factory.mktemp("public") / "run", world, fields)


@pytest.fixture(scope="module")
def private(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same step, as runs are by default."""
    return recorded(tmp_path_factory.mktemp("private") / "run", world, [])


def receipt_of(path: Path, kind: str = "step") -> Receipt:
    return next(receipt for receipt in Record(path).receipts() if receipt.kind == kind)


def shown(path: Path, field: str) -> bytes:
    """All that the attacker gets to see of a field."""
    return receipt_of(path).fields[field]


def visible(path: Path) -> list[bytes]:
    """Every word of the run's receipts that could be mistaken for a blind or a key."""
    words = [value for receipt in Record(path).receipts() for value in receipt.fields.values()]
    return sorted({bytes(32), *(word for word in words if isinstance(word, bytes))})


def entries_of(state: State) -> list[oracle.Entry]:
    """The plain entries, from the page that describes them and not from the library."""
    described = commit_tensors(state).entries
    return [oracle.Entry(e.name, 0, e.dtype, tuple(e.shape), e.size, e.root) for e in described]


def derived(path: Path, field: str, secret: bytes) -> Guess:
    """The blind and the entry key of a step's field, if this were the lane's secret."""
    step = next(r for r in oracle.Ledger.read(samples.journal(path)).receipts if r.kind.name == "step")
    words = {name: step.kind.word(step.body, name) for name in ("run", "worker", "lane", "sequence")}
    place = words["run"] + words["worker"][12:] + words["lane"][-4:] + words["sequence"][-8:]
    context = place + step.kind.type_hash + field.encode()
    blind, key = (
        hmac.digest(secret, f"counterfoil.{purpose}.v1".encode() + context, "sha256")
        for purpose in ("blind", "entries")
    )
    return blind, key


def named(path: Path, field: str, guesses: Sequence[Mapping[str, State]]) -> list[int]:
    """The candidates whose step has the public digest of this field."""
    return [
        at for at, each in enumerate(guesses) if commit_tensors(each[field]).digest() == shown(path, field)
    ]


def named_in_any_form(
    path: Path, field: str, guesses: Sequence[Mapping[str, State]], forms: Sequence[Guess]
) -> list[int]:
    """The same with blinds and entry keys that the attacker guesses."""
    found = []
    for at, each in enumerate(guesses):
        entries = entries_of(each[field])
        size = sum(entry.size for entry in entries)
        roots = {key: oracle.state_root(entries, key) for key in {key for _, key in forms}}
        digests = {
            oracle.tuple_digest(oracle.STATE_ID, 2, len(entries), size, roots[key], blind)
            for blind, key in forms
        }
        if shown(path, field) in digests:
            found.append(at)
    return found


@pytest.mark.parametrize("field", FIELDS)
def test_one_public_digest_names_the_training_record(
    public: Path, guesses: list[dict[str, State]], field: str
) -> None:
    """The reason for blinds. If this finds nothing, the attack below shows nothing either."""
    assert named(public, field, guesses) == [SECRET]


@pytest.mark.parametrize("field", FIELDS)
def test_a_default_run_names_nobody(private: Path, guesses: list[dict[str, State]], field: str) -> None:
    """A field that is public by default, or blinded with something that stands in a receipt."""
    assert shown(private, field) != bytes(32)
    assert named(private, field, guesses) == []
    words = visible(private)
    assert receipt_of(private, "join").fields["secret"] in words
    forms = [(blind, key) for blind in words for key in (None, bytes(32), blind)]
    forms += [(bytes(32), key) for key in words]
    forms += [derived(private, field, word) for word in words]
    assert named_in_any_form(private, field, guesses, forms) == []


@pytest.mark.parametrize("field", FIELDS)
def test_the_lane_secret_is_all_that_the_attacker_lacks(
    private: Path, guesses: list[dict[str, State]], home: Path, field: str
) -> None:
    """An attack that finds nothing because it repeats another step, or guesses another form."""
    blind, key = derived(
        private, field, samples.lane_secret(home, oracle.Ledger.read(samples.journal(private)))
    )
    assert named_in_any_form(private, field, guesses, [(blind, key)]) == [SECRET]
    # One of the two is not enough.
    assert named_in_any_form(private, field, guesses, [(blind, None), (bytes(32), key)]) == []


HARMLESS = {
    "buffers": "buffer/1.num_batches_tracked",
    "optimizer": "optimizer/0/0.bias/step",
    "parameters": "3.bias",
}
"""A tensor for each state that the owner opens; but for the parameter it is the same for all records."""


def opening_of(path: Path, field: str) -> tuple[Any, bytes]:
    """What the owner hands out: the opening of one tensor, and the field's blind."""
    opened = Record(path).opened(receipt_of(path))[field]
    opening = opened.prove(HARMLESS[field])
    opening.verify(shown(path, field), opened.blind)
    return json.loads(opening.to_json())["entry"], opened.blind


def hashes_beside(entries: Sequence[oracle.Entry], key: bytes | None) -> Iterator[bytes]:
    """The hash of every subtree over these entries without the opened one's own."""
    ordered = sorted(entries, key=lambda entry: entry.name.encode())
    tree = oracle.Tree([entry.encode(key) for entry in ordered])
    tree.root(len(ordered))
    own = next(at for at, entry in enumerate(ordered) if entry.name in HARMLESS.values())
    return (node for (low, high), node in tree._nodes.items() if not low <= own < high)


def siblings_of(entry: Any) -> set[bytes]:
    return {bytes.fromhex(node[2:]) for node in entry["proof"]}


@pytest.mark.parametrize("field", HARMLESS)
def test_siblings_in_a_public_opening_name_the_training_record(
    public: Path, guesses: list[dict[str, State]], field: str
) -> None:
    """The control of the test below: one opened tensor gives its siblings' hashes away."""
    entry, _ = opening_of(public, field)
    siblings = siblings_of(entry)
    assert len(siblings) > 1
    plain = [set(hashes_beside(entries_of(each[field]), None)) for each in guesses]
    assert [at for at, known in enumerate(plain) if siblings <= known] == [SECRET]


@pytest.mark.parametrize("field", HARMLESS)
def test_siblings_in_a_default_opening_name_nobody(
    private: Path, guesses: list[dict[str, State]], field: str
) -> None:
    """A blind over the whole state only: opening one tensor would then name the record by the others."""
    entry, blind = opening_of(private, field)
    assert entry["blind"] is not None
    disclosed = [blind, bytes.fromhex(entry["blind"][2:])]
    keys = [None, *disclosed, *visible(private)]
    for each in guesses:
        entries = entries_of(each[field])
        for key in keys:
            assert siblings_of(entry).isdisjoint(hashes_beside(entries, key))


def test_siblings_are_not_blinded_with_what_an_opening_discloses(
    private: Path, guesses: list[dict[str, State]]
) -> None:
    """One blind for all entries: what opens one opens them all."""
    entry, _ = opening_of(private, "buffers")
    disclosed = bytes.fromhex(entry["blind"][2:])

    def under_it(plain: oracle.Entry) -> bytes:
        blinded = oracle.sha256(b"counterfoil.blinded-root.v1" + disclosed + plain.root)
        before, after = plain.encode().split(plain.root)
        return before[:21] + b"\1" + before[22:] + blinded + after

    for each in guesses:
        opened, *others = entries_of(each["buffers"])
        assert oracle.Entry.decode(under_it(opened)).root.hex() in entry["entry"]
        assert len(others) == len(siblings_of(entry)) == 2
        for plain in others:
            assert oracle.sha256(b"\0" + under_it(plain)) not in siblings_of(entry)


def hyperparameters(world: World, rate: float) -> Commitment:
    model, optimizer = world.start()
    optimizer.param_groups[0]["lr"] = rate
    return commit_tensors(collect.Collector(model, [optimizer]).hyperparameters())


def test_a_dictionary_finds_public_hyperparameters_and_no_others(
    world: World, public: Path, private: Path
) -> None:
    """A learning rate has few values: without a blind its digest is the rate."""
    assert RATE in RATES
    digests = {rate: hyperparameters(world, rate).digest() for rate in RATES}
    assert len(set(digests.values())) == len(RATES)

    def found(path: Path) -> list[float]:
        return [rate for rate, digest in digests.items() if digest == shown(path, "hyperparameters")]

    assert found(public) == [RATE]
    assert shown(private, "hyperparameters") != bytes(32)
    assert found(private) == []


def test_two_runs_of_one_step_share_no_digest(world: World, private: Path, tmp_path: Path) -> None:
    """A blind that depends on the values alone: equal states would be seen to be equal."""
    again = recorded(tmp_path / "run", world, [])
    for field in (*FIELDS, "hyperparameters", "gradients"):
        assert Record(again).opened(receipt_of(again))[field].commitment == (
            Record(private).opened(receipt_of(private))[field].commitment
        ), field
        assert shown(again, field) != shown(private, field), field
    assert counterfoil.verify(again).status == "verified"
