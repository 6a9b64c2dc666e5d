"""Every hash backend, forced in turn, against hashlib.

The backends read 64 bytes at a time from 16 places at once, partly before the chunk that they hash:
what goes wrong in such code goes wrong at particular lengths, alignments and page borders.
"""

import hashlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

import counterfoil
import oracle
from buffers import EDGES, POOL, Case, root_of
from counterfoil import _native, merkle, storage
from counterfoil.errors import InvalidInput
from oracle import CHUNK, Entry


@pytest.fixture(params=_native.backends())
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Forces one backend for one test, for all threads of this process."""
    assert _native.force_backend(request.param) == request.param
    yield request.param
    _native.force_backend(None)


def test_random_bytes_at_any_alignment(backend: str, cases: list[Case]) -> None:
    """A lane that is swapped, padded wrongly or read at its aligned address has another root."""
    for case in cases:
        found = counterfoil.commit_bytes(case.data).root
        assert found == case.root, (case.data.size, case.data.ctypes.data % 64)


@pytest.mark.parametrize("size", [(16 << 20) - 1, (16 << 20) + 7 * CHUNK + 3])
def test_many_slabs(backend: str, size: int) -> None:
    """Slabs that the pool hashes side by side must not exchange their subtrees."""
    whole = np.resize(POOL, size)
    whole[:: CHUNK * 3] ^= np.resize(np.arange(251, dtype=np.uint8), len(range(0, size, CHUNK * 3)))
    assert counterfoil.commit_bytes(whole).root == root_of(whole)


def test_nothing_outside_the_buffer_is_read(backend: str, bordering: list[Case]) -> None:
    """A load that reaches a byte before or behind the buffer ends this process with SIGSEGV."""
    for case in bordering:
        assert counterfoil.commit_bytes(case.data).root == case.root, case.data.size


def test_no_lane_of_a_group_reads_outside(backend: str, bordering: list[Case]) -> None:
    """Tensors that end or begin at a forbidden page share groups with longer ones."""
    chosen = random.Random(4)
    for _ in range(60):
        group = chosen.choices(bordering, k=chosen.randint(1, 40))
        commitment = counterfoil.commit_tensors({f"{n:03}": case.data for n, case in enumerate(group)})
        assert [entry.root for entry in commitment.entries] == [case.root for case in group]


def test_shards_and_storage_roots_stay_inside_too(backend: str, bordering: list[Case]) -> None:
    """Ragged edges of a shard, and Keccak's padding of the last sector, are copies, not reads."""
    for case in bordering[:: len(bordering) // 120]:
        data = case.data.tobytes()
        assert counterfoil.commit_shard(case.data, 700).to_bytes() == oracle.shard(data, 700)
        if data:
            expected = oracle.storage_node(oracle.storage_leaves(data))
            assert storage.root(case.data).root == expected, len(data)


@dataclass(frozen=True)
class State:
    tensors: dict[str, np.ndarray]
    entries: list[Entry]
    root: bytes


@pytest.fixture(scope="module")
def states() -> list[State]:
    """1 to 200 tensors of 0 to 5,000 bytes; names, and so entries, of any length as well."""
    chosen, made = random.Random(5), []
    counts = [1, 2, 15, 16, 17, 31, 32, 33, 200, *(chosen.randint(1, 200) for _ in range(40))]
    for count in counts:
        tensors = {}
        for number in range(count):
            size = chosen.choice([*EDGES[:19], 1023, 1024, 1025, *[chosen.randrange(5001)] * 12])
            start = chosen.randrange(POOL.size - size)
            data = POOL[start : start + size]
            if size % 4 == 0 and chosen.random() < 0.3:
                data = data.view(chosen.choice(["<f4", ">i4", "<u2"]))
            tensors[f"{number:04}" + "n" * chosen.choice([0, 3, 20, 51, 52, 53, 500, 1020])] = data
        entries = [Entry.of(name, tensor) for name, tensor in tensors.items()]
        made.append(State(tensors, entries, oracle.state_root(entries)))
    return made


def test_tensors_of_different_lengths_at_once(backend: str, states: list[State]) -> None:
    """Lanes that end at different blocks: one that is finished must keep its hash."""
    for state in states:
        commitment = counterfoil.commit_tensors(state.tensors)
        expected = {entry.name: entry.root for entry in state.entries}
        assert {entry.name: entry.root for entry in commitment.entries} == expected
        assert commitment.root == state.root


def test_leaves_of_different_lengths(backend: str) -> None:
    """Leaves of a receipt tree are no chunks: their prefix moves every length by one."""
    chosen = random.Random(6)
    for count in [*range(40), 255, 256, 257]:
        leaves = [chosen.randbytes(chosen.randrange(200)) for _ in range(count)]
        assert merkle.root(leaves) == oracle.root(leaves)


def test_openings_hash_the_same_tree(backend: str, cases: list[Case]) -> None:
    """A commitment by one backend and an opening by another must meet in one root."""
    chosen = random.Random(7)
    for case in chosen.sample([each for each in cases if each.data.size], 100):
        commitment = counterfoil.commit_bytes(case.data)
        index = chosen.randrange(math.ceil(case.data.size / CHUNK))
        opening = commitment.prove(index, case.data)
        for other in _native.backends():
            _native.force_backend(other)
            opening.verify(commitment.digest())
        _native.force_backend(backend)


@pytest.fixture(scope="module")
def sectors() -> list[Case]:
    """Bytes and their storage roots."""
    chosen, made = random.Random(8), []
    sizes = [1, 135, 136, 137, 255, 256, 257, 271, 272, 273, 511, 512, 513, 7 * 256, 8 * 256, 9 * 256]
    sizes += [chosen.randint(1, 9 * 256) for _ in range(150)]
    sizes += [chosen.randint(1, 25_000) for _ in range(120)]
    sizes += [256 * chosen.randint(1, 300) + chosen.randint(-1, 1) for _ in range(12)]
    for size in [*sizes, 300_000]:
        start = chosen.randrange(POOL.size - size)
        data = POOL[start : start + size]
        made.append(Case(data, oracle.storage_node(oracle.storage_leaves(data.tobytes()))))
    return made


def test_storage_roots(backend: str, sectors: list[Case]) -> None:
    """Sectors are hashed side by side as well; the zero sectors behind them are not data."""
    for case in sectors:
        assert storage.root(case.data).root == case.root, case.data.size


def test_backends_agree_on_what_no_oracle_has_seen() -> None:
    """More than hashlib can check in this time: 24 MiB, many lengths, one answer."""
    whole, chosen = np.tile(POOL, 62), random.Random(9)
    for _ in range(12):
        size, found = chosen.randrange(whole.size), []
        start = chosen.randrange(whole.size - size)
        for name in _native.backends():
            _native.force_backend(name)
            found.append(counterfoil.commit_bytes(whole[start : start + size]).root)
        _native.force_backend(None)
        assert len(set(found)) == 1, (start, size)


def test_the_comparator_is_sha256() -> None:
    """A benchmark against a flat hash that is not SHA-256 would compare nothing."""
    for size in EDGES:
        assert _native.flat_sha256(POOL[:size]) == hashlib.sha256(POOL[:size]).digest()


def test_backends_are_those_we_know() -> None:
    """A typing error in a name would leave the tests above with fewer backends than there are."""
    known = ["avx512", "sha-ni", "portable"]
    found = _native.backends()
    assert found == [name for name in known if name in found]
    assert found[-1] == "portable"
    assert _native.force_backend(None) == found[0]


@pytest.mark.parametrize("name", ["", "AVX512", "avx2 ", "portable\0", "sse", "auto"])
def test_an_unknown_backend_is_refused(name: str) -> None:
    """A forced backend that silently becomes the default one would test nothing."""
    _native.force_backend("portable")
    try:
        with pytest.raises(InvalidInput):
            _native.force_backend(name)
        assert _native.force_backend("portable") == "portable"
        assert counterfoil.commit_bytes(b"abc").root == oracle.root([b"abc"])
    finally:
        _native.force_backend(None)


def test_a_backend_that_this_processor_lacks_is_refused() -> None:
    """Forcing it all the same would end in an illegal instruction."""
    lacking = {"avx512", "sha-ni"} - set(_native.backends())
    for name in sorted(lacking):
        with pytest.raises(InvalidInput):
            _native.force_backend(name)
    assert _native.force_backend(None) == _native.backends()[0]


def test_entries_longer_than_a_chunk_keep_their_last_bytes(backend: str) -> None:
    """A lane that takes whole blocks only would drop what a long name leaves behind the sixteenth."""
    array = np.zeros(3, np.uint8)
    for length in (930, 950, 951, 980, 1000, 1010, 1011, 1024):
        names = [f"{number:02}" + "n" * (length - 2) for number in range(33)]
        state = counterfoil.commit_tensors(dict.fromkeys(names, array))
        entries = [Entry.of(name, array) for name in names]
        assert state.root == oracle.state_root(entries), length
