"""Properties over generated input: round trips, and damage anywhere in a run folder."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import counterfoil
import oracle
import samples
from counterfoil import Opening, Record, merkle
from counterfoil.errors import CounterfoilError, ProofError, Refuted

DTYPES = st.sampled_from([np.dtype(name) for name in oracle.TAGS])
ARRAYS = DTYPES.flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0))
)
NAMES = st.text(
    st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40
)  # fmt: skip
STATES = st.dictionaries(NAMES, ARRAYS, max_size=8)
QUICK = settings(deadline=None, max_examples=150)


@QUICK
@given(STATES)
def test_any_state_commits_like_the_oracle(tensors: dict[str, np.ndarray]) -> None:
    entries = [oracle.Entry.of(name, array) for name, array in tensors.items()]
    commitment = counterfoil.commit_tensors(tensors)
    assert commitment.digest() == oracle.state_digest(entries)
    for name in tensors:
        opening = commitment.prove(name)
        again = Opening.from_json(opening.to_json())
        again.verify(commitment.digest())
        assert again.to_json() == opening.to_json()


@QUICK
@given(STATES, STATES)
def test_equal_digests_mean_equal_states(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    def seen(state: dict[str, np.ndarray]) -> dict:
        return {n: (a.dtype.str, a.shape, oracle.canonical(a)) for n, a in state.items()}

    a, b = counterfoil.commit_tensors(left), counterfoil.commit_tensors(right)
    assert (a.digest() == b.digest()) == (seen(left) == seen(right))
    assert (a.first_difference(b) is None) == (a.root == b.root)


@QUICK
@given(st.lists(st.binary(max_size=80), min_size=1, max_size=200), st.data())
def test_proofs_of_any_tree(leaves: list[bytes], data: st.DataObject) -> None:
    size, tree = len(leaves), oracle.Tree(leaves)
    index = data.draw(st.integers(0, size - 1))
    m = data.draw(st.integers(1, size))
    root = merkle.root(leaves)
    assert root == tree.root(size)
    merkle.verify_inclusion(leaves[index], index, size, tree.inclusion(index, size), root)
    merkle.verify_consistency(m, size, tree.consistency(m, size), tree.root(m), root)


@QUICK
@given(
    st.binary(max_size=40),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=70),
    st.binary(min_size=32, max_size=32),
)
def test_random_proofs_are_refused(
    leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes
) -> None:
    """Any sizes and lengths: a typed refusal, no overflow and no crash."""
    with pytest.raises(ProofError):
        merkle.verify_inclusion(leaf, index, size, proof, root)
    if not (index == size and not proof):
        with pytest.raises(ProofError):
            merkle.verify_consistency(index, size, proof, root, root)


@QUICK
@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda b: b.decode("latin-1"))))
def test_no_text_crashes_the_opening_parser(text: str) -> None:
    with pytest.raises(CounterfoilError):
        Opening.from_json(text).verify(bytes(32))


def content(path: Path) -> tuple:
    """What a reader takes from a run folder: specification, recipe, receipts, opened values."""
    record = Record(path)
    receipts = []
    for receipt in record.receipts():
        opened = {
            field: (value.commitment.root, value.values) for field, value in record.opened(receipt).items()
        }
        receipts.append((receipt.digest, receipt.signature, opened))
    return record.run, record.recipe, receipts


def is_part_of(found: tuple, whole: tuple) -> bool:
    """Receipts may be missing at the end and openings anywhere; nothing may differ."""
    if found[:2] != whole[:2] or len(found[2]) > len(whole[2]):
        return False
    return all(
        ours[:2] == theirs[:2] and ours[2].items() <= theirs[2].items()
        for ours, theirs in zip(found[2], whole[2], strict=False)
    )


@pytest.fixture(scope="module")
def small(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "run"
    samples.record(folder, 6)
    counterfoil.Chain.dev(folder.parent / "chain").anchor(folder)
    return folder


def files_of(folder: Path) -> list[Path]:
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [path for path in found if path.stat if (folder / path).stat().st_size]


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_a_flipped_bit_never_verifies_as_other_content(small: Path, tmp_path: Path, seed: int) -> None:
    """Any file, any place: a typed error, a refutation, or what was there before."""
    chosen = random.Random(seed)
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(small, copy)
    file = copy / chosen.choice(files_of(small))
    data = bytearray(file.read_bytes())
    if chosen.random() < 0.2:
        del data[chosen.randrange(len(data)) :]
    elif chosen.random() < 0.1:
        data += chosen.randbytes(chosen.randint(1, 50))
    else:
        for _ in range(chosen.choice([1, 1, 1, 4])):
            data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    file.write_bytes(data)
    try:
        counterfoil.verify(copy)
    except Refuted:
        return
    except CounterfoilError:
        return
    assert is_part_of(content(copy), content(small)), file
