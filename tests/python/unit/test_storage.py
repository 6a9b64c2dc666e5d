"""0G storage roots: three foreign clients' vectors, a second implementation, refused segments.

The content of the vectors repeats every 256 bytes, so that all their whole sectors are equal: an
order of sectors or segments shows only in the random bytes here.
"""

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import oracle
from counterfoil import storage
from counterfoil.errors import CounterfoilError, InvalidInput, NotFound, ProofError
from oracle import SECTOR

VECTORS = json.loads((oracle.ROOT / "tests/vectors/zerog_roots.json").read_text())
SEGMENT = SECTOR * oracle.SEGMENT  # bytes
Proof = tuple[list[bytes], list[bool]]


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def content(size: int) -> bytes:
    return bytes((index * 7 + 3) % 256 for index in range(size))


def segment(data: bytes, index: int) -> bytes:
    return data[index * SEGMENT : (index + 1) * SEGMENT]


def inputs(data: bytes, folder: Path) -> list[object]:
    """The same bytes in every form that is accepted."""
    path = folder / f"data-{len(data)}"
    path.write_bytes(data)
    forms = [data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8), path, str(path)]
    return [*forms, np.frombuffer(data, "<f4")] if len(data) % 4 == 0 else forms


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda v: str(v["size"]))
def test_foreign_vectors(tmp_path: Path, vector: dict) -> None:
    """Padding, split and node hash are those of the network, or an upload is refused after payment."""
    data = content(vector["size"])
    for value in inputs(data, tmp_path):
        found = storage.root(value)
        assert found.root == raw(vector["root"])
        assert found.length == vector["size"]
        assert (found.chunks, found.padded_chunks) == (vector["chunks"], vector["padded_chunks"])
        assert found.nodes == tuple((raw(node["root"]), node["height"]) for node in vector["nodes"])
        assert found.segments == math.ceil(vector["padded_chunks"] / oracle.SEGMENT)
        roots = [raw(each) for each in vector.get("segment_roots", [])]
        assert [found.segment_root(index) for index in range(len(roots))] == roots
        for index, proof in enumerate(vector.get("segment_proofs", [])):
            lemma = [raw(each) for each in proof["lemma"]]
            path = [bool(right) for right in proof["path"]]
            assert found.segment_proof(index) == (lemma, path)
            part = segment(data, index)
            storage.verify_segment(part, index, lemma, path, found.root, found.length)


def test_the_vectors_have_proofs() -> None:
    """The loop above must not be empty."""
    assert sum(len(each.get("segment_proofs", [])) for each in VECTORS["vectors"]) >= 7


def check(data: bytes, found: storage.StorageRoot) -> None:
    leaves = oracle.storage_leaves(data)
    segments = oracle.storage_segments(leaves)
    assert found.root == oracle.storage_node(leaves)
    assert found.length == len(data)
    assert (found.chunks, found.padded_chunks) == (math.ceil(len(data) / SECTOR), len(leaves))
    assert found.nodes == tuple(oracle.storage_submission(leaves))
    assert sum(1 << height for _, height in found.nodes) == found.padded_chunks
    assert found.segments == len(segments)
    for index, expected in enumerate(segments):
        assert found.segment_root(index) == expected
        assert found.segment_proof(index) == oracle.storage_proof(segments, index)


@pytest.mark.parametrize("sectors", [*range(1, 34), 63, 64, 65, 127, 128, 129, 255, 256, 257])
def test_sizes_around_sectors(sectors: int) -> None:
    """A sector too many at a whole multiple, or a padding unit off by one, shows at some count."""
    chosen = random.Random(sectors)
    for size in (sectors * SECTOR - 255, sectors * SECTOR - 1, sectors * SECTOR):
        data = chosen.randbytes(size)
        check(data, storage.root(data))


def test_random_sizes(tmp_path: Path) -> None:
    """Any number of sectors, from memory and from a file."""
    chosen = random.Random(1)
    for _ in range(60):
        data = chosen.randbytes(chosen.randint(1, 60_000))
        (tmp_path / "data").write_bytes(data)
        check(data, storage.root(data))
        assert storage.root(tmp_path / "data") == storage.root(data)


# Sizes in bytes whose last segment is whole, one byte, one sector, or nearly whole.
SIZES = [
    1,
    SECTOR,
    SEGMENT - 1,
    SEGMENT,
    SEGMENT + 1,
    2 * SEGMENT,
    2 * SEGMENT + 1000,
    3 * SEGMENT,
    5 * SEGMENT - SECTOR,
]


@dataclass(frozen=True)
class File:
    data: bytes
    root: storage.StorageRoot

    @property
    def last(self) -> int:
        return (len(self.data) - 1) // SEGMENT

    def proof(self, index: int) -> Proof:
        return self.root.segment_proof(index)


@pytest.fixture(scope="module", params=SIZES)
def file(request: pytest.FixtureRequest) -> File:
    # The last byte is not zero: without it the padded sector would be another.
    data = random.Random(request.param).randbytes(request.param - 1) + b"\x07"
    return File(data, storage.root(data))


def refused(
    part: bytes, index: int, proof: tuple[object, object], root: bytes, length: int
) -> ProofError | None:
    with pytest.raises(ProofError) as caught:
        storage.verify_segment(part, index, *proof, root, length)
    return caught.value


def test_files_of_several_segments(file: File, tmp_path: Path) -> None:
    """Segments of one file are read apart and joined, from memory and from disk."""
    check(file.data, file.root)
    (tmp_path / "data").write_bytes(file.data)
    from_disk = storage.root(tmp_path / "data")
    assert from_disk == file.root
    check(file.data, from_disk)


def test_segments_of_padding_alone() -> None:
    """Beyond 4 MiB the padding unit is larger than a segment: whole segments hold no byte."""
    data = random.Random(2).randbytes(16 * SEGMENT + 1)
    found = storage.root(data)
    assert (found.chunks, found.padded_chunks, found.segments) == (16_385, 18_432, 18)
    check(data, found)
    for index in (0, 7, 15, 16):
        part = segment(data, index)
        storage.verify_segment(part, index, *found.segment_proof(index), found.root, len(data))


def test_every_true_segment_is_accepted(file: File) -> None:
    for index in range(file.last + 1):
        part = segment(file.data, index)
        storage.verify_segment(part, index, *file.proof(index), file.root.root, len(file.data))
        lemma, path = file.proof(index)
        storage.verify_segment(part, index, tuple(lemma), tuple(path), file.root.root, len(file.data))


def test_a_tampered_byte_is_refused(file: File) -> None:
    """The official clients hand such bytes out without an error."""
    chosen = random.Random(3)
    for index in range(file.last + 1):
        part = segment(file.data, index)
        for at in {0, len(part) - 1, len(part) // 2, chosen.randrange(len(part))}:
            changed = part[:at] + bytes([part[at] ^ 1 << chosen.randrange(8)]) + part[at + 1 :]
            refused(changed, index, file.proof(index), file.root.root, len(file.data))


def test_a_wrong_position_is_refused(file: File) -> None:
    """A segment served for another one, with its own valid proof."""
    for index in range(file.last + 1):
        part, proof = segment(file.data, index), file.proof(index)
        for other in {*range(file.last + 3), 2**32 + index, 2**54 + index, 2**64 - 1} - {index}:
            refused(part, other, proof, file.root.root, len(file.data))


def test_equal_segments_do_not_stand_for_each_other() -> None:
    """Equal bytes at another place: only the path tells, and it is checked against the index."""
    vector = VECTORS["vectors"][-1]
    data, found = content(vector["size"]), storage.root(content(vector["size"]))
    assert segment(data, 0) == segment(data, 1) == segment(data, 2)
    for index in range(3):
        for other in set(range(4)) - {index}:
            refused(segment(data, index), other, found.segment_proof(index), found.root, len(data))


def changed_proofs(proof: Proof, strange: bytes) -> list[Proof]:
    """Every lemma and path one change away; `strange` is a hash that belongs to another file."""
    lemma, path = proof
    lemmas = [[], lemma[:-1], lemma[1:], [*lemma, strange], [*lemma, lemma[-1]], [lemma[0], *lemma]]
    lemmas += [[*lemma[:at], strange, *lemma[at + 1 :]] for at in range(len(lemma))]
    lemmas += [lemma[::-1], lemma + lemma] if len(lemma) > 1 else []
    paths = [[*path[:at], not path[at], *path[at + 1 :]] for at in range(len(path))]
    paths += [[*path, True], [*path, False], [True, *path], [False, *path]]
    paths += [path[:-1], path[1:], []] if path else []
    changed = [(each, path) for each in lemmas] + [(lemma, each) for each in paths]
    changed += [([*lemma[:-1], strange, lemma[-1]], [*path, right]) for right in (True, False)]
    changed += [([*lemma[:-2], lemma[-1]], path[:-1])] if path else []
    return [each for each in changed if each != proof]


def test_changed_proofs_are_refused(file: File) -> None:
    """A verifier that stops early, ignores a rest, or takes the lemma's own root for the root."""
    strange = oracle.sha256(b"another file")
    for index in range(file.last + 1):
        for proof in changed_proofs(file.proof(index), strange):
            refused(segment(file.data, index), index, proof, file.root.root, len(file.data))


def test_a_proof_of_another_file_is_refused(file: File) -> None:
    """Its segment, lemma and path fit together; they only do not lead to the root that was asked for."""
    other = bytes(each ^ 0x55 for each in file.data)
    theirs = storage.root(other)
    for index in range(file.last + 1):
        mine, proof = segment(file.data, index), file.proof(index)
        refused(mine, index, proof, theirs.root, len(file.data))
        refused(segment(other, index), index, theirs.segment_proof(index), file.root.root, len(other))
        lemma, path = proof
        refused(mine, index, ([*lemma[:-1], theirs.root], path), theirs.root, len(file.data))
        refused(segment(other, index), index, proof, file.root.root, len(other))


def test_the_error_says_which_root_was_expected(file: File) -> None:
    wrong = oracle.sha256(b"another root")
    error = refused(segment(file.data, 0), 0, file.proof(0), wrong, len(file.data))
    assert error is not None
    assert error.code == "proof"


def test_a_segment_of_another_size_is_refused(file: File) -> None:
    """Zero bytes that the padding would hide are bytes all the same."""
    for index in range(file.last + 1):
        part, proof = segment(file.data, index), file.proof(index)
        padded = part.ljust(-(-len(part) // SECTOR) * SECTOR, b"\0")
        wrong = [b"", part[:-1], part[1:], part + b"\0", part + b"\x07", part + bytes(SECTOR), part * 2]
        wrong += [part[: -len(part) // 2], part.ljust(SEGMENT, b"\0"), padded, part + bytes(SEGMENT)]
        for each in wrong:
            if each != part:
                refused(each, index, proof, file.root.root, len(file.data))


@pytest.mark.parametrize(
    ("size", "zeros"),
    [(200, 50), (500, 1), (SEGMENT - 150, 150), (SEGMENT + 450, 50), (17 * SECTOR, SECTOR)],
)
def test_zeros_at_the_end_count(size: int, zeros: int) -> None:
    """A file that ends in zeros may have the root of a shorter one: the length tells them apart."""
    shorter = random.Random(size).randbytes(size)
    longer = shorter + bytes(zeros)
    mine, theirs = storage.root(shorter), storage.root(longer)
    assert mine.root == theirs.root
    assert mine != theirs
    index = size // SEGMENT
    proof = mine.segment_proof(index)
    for data, other in ((shorter, longer), (longer, shorter)):
        part = segment(data, index)
        storage.verify_segment(part, index, *proof, mine.root, len(data))
        refused(part, index, proof, mine.root, len(other))


def test_a_wrong_length_is_refused(file: File) -> None:
    """The root does not bind the length, but the last segment's size and the paths do."""
    true, last = len(file.data), file.last
    claims = {true + more for more in (-SEGMENT, -SECTOR, -1, 1, SECTOR, SEGMENT, 3 * SEGMENT)}
    claims |= {0, true * 4, true * 1000, 2**63, 2**64 - 1}
    for claim in claims:
        if 0 <= claim != true:
            refused(segment(file.data, last), last, file.proof(last), file.root.root, claim)
    for index in range(last):  # a whole segment knows only how deep it lies
        proof = file.proof(index)
        for claim in (0, 1, index * SEGMENT, (index + 1) * SEGMENT - 1, 64 * true, 2**64 - 1):
            refused(segment(file.data, index), index, proof, file.root.root, claim)


def test_no_argument_crashes_the_verifier() -> None:
    """Random segments, sizes and proofs: a typed refusal, no overflow and no crash."""
    chosen = random.Random(4)
    numbers = [0, 1, 2, 3, SECTOR, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2**32, 2**63, 2**64 - 1]
    for _ in range(3000):
        part = chosen.randbytes(chosen.choice([0, 1, 255, 256, 257, 5000]))
        lemma = [chosen.randbytes(32) for _ in range(chosen.randrange(70))]
        path = [
            chosen.random() < 0.5 for _ in range(max(0, len(lemma) - 2 + chosen.choice([0, 0, 0, 1, -1])))
        ]
        index, length = chosen.choice(numbers), chosen.choice([*numbers, len(part)])
        refused(part, index, (lemma, path), chosen.randbytes(32), length)


@pytest.mark.parametrize("width", [0, 31, 33, 64])
def test_hashes_of_another_width_are_refused(width: int) -> None:
    """Two short hashes that join to 64 bytes must not stand for two whole ones."""
    data = random.Random(5).randbytes(2 * SEGMENT)
    found = storage.root(data)
    lemma, path = found.segment_proof(0)
    wrong = (lemma[1] * 2)[:width]
    for arguments in [
        ([lemma[0], wrong, lemma[2]], path, found.root),
        ([wrong, *lemma[1:]], path, found.root),
        (lemma, path, wrong),
    ]:
        with pytest.raises(CounterfoilError):
            storage.verify_segment(segment(data, 0), 0, *arguments, len(data))


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_nothing_has_no_root(make: Callable[[bytes], object]) -> None:
    """The network refuses an empty file; a made-up root of it could be anchored."""
    with pytest.raises(InvalidInput):
        storage.root(make(b""))


def test_files_that_cannot_be_hashed(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(InvalidInput):
        storage.root(tmp_path / "empty")
    with pytest.raises(NotFound):
        storage.root(tmp_path / "missing")
    with pytest.raises(CounterfoilError):
        storage.root(tmp_path)
    for value in (None, 5, ["bytes"], object()):
        with pytest.raises(InvalidInput):
            storage.root(value)


def test_segments_outside_the_tree_are_refused() -> None:
    found = storage.root(random.Random(6).randbytes(SEGMENT + 5))
    assert found.segments == 2
    for index in (2, 3, 2**40, 2**64 - 1):
        with pytest.raises(CounterfoilError):
            found.segment_root(index)
        with pytest.raises(CounterfoilError):
            found.segment_proof(index)


def test_roots_are_values() -> None:
    first, second = storage.root(b"abc"), storage.root(bytearray(b"abc"))
    assert first == second
    assert first != storage.root(b"abd")
    assert first != storage.root(b"abc\0")  # one root, two lengths
    assert first.root == storage.root(b"abc\0").root
    assert first != first.root
    assert first.root.hex()[:8] in repr(first)
    assert "3" in repr(first)
    with pytest.raises(AttributeError):
        first.length = 4
