"""Parts of a tensor hashed apart: runs of bytes that merge, boxes that do not."""

import itertools
import math
import pickle
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest

import counterfoil
import oracle
from counterfoil import Block, Shard, Sharded, commit_block, commit_shard, errors, merge_shards
from counterfoil.errors import CounterfoilError, InvalidInput, NotFound, ProofError, StorageError
from oracle import CHUNK, Entry

TAG = b"counterfoil.shard.v1"
DTYPES = [np.dtype(name) for name in oracle.TAGS]


def some(dtype: np.dtype, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    chosen = np.random.default_rng(seed)
    if dtype == np.bool_:
        return chosen.integers(0, 2, shape).astype(np.bool_)
    return np.frombuffer(chosen.bytes(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)


# Splitting and merging.


def cuts(chosen: random.Random, size: int) -> list[int]:
    """Places to cut at: anywhere, near chunk borders, and twice at one place for an empty shard."""
    found = []
    for _ in range(chosen.choice([0, 1, 1, 2, 3, 5, 10, 40])):
        near = chosen.randrange(size // CHUNK + 1) * CHUNK + chosen.randint(-1, 1)
        place = chosen.choice([chosen.randint(0, size), min(max(near, 0), size)])
        found += [place] * chosen.choice([1, 1, 1, 1, 2])
    return sorted(found)


def split(data: bytes, places: list[int]) -> list[tuple[int, bytes]]:
    borders = [0, *places, len(data)]
    return [(low, data[low:high]) for low, high in itertools.pairwise(borders)]


def travelled(chosen: random.Random, shard: Shard) -> Shard:
    """The shard as it arrives: as it is, as bytes, or as a pickle."""
    return chosen.choice(
        [
            lambda: shard,
            lambda: Shard.from_bytes(shard.to_bytes()),
            lambda: pickle.loads(pickle.dumps(shard)),
        ]
    )()


@pytest.mark.parametrize("seed", range(10))
def test_any_split_merges_to_the_whole(seed: int) -> None:
    """2,500 splits: a lost ragged edge, or subtrees joined in the wrong order, shows."""
    chosen = random.Random(seed)
    for _ in range(250):
        size = chosen.choice(
            [
                chosen.randint(0, 3000),
                chosen.randint(0, 20 * CHUNK),
                chosen.randint(0, 20) * CHUNK,
                chosen.randint(0, 60 * CHUNK),
            ]
        )
        data = chosen.randbytes(size)
        pieces = split(data, cuts(chosen, size))
        chosen.shuffle(pieces)
        shards = [commit_shard(piece, offset) for offset, piece in pieces]
        for shard, (offset, piece) in zip(shards, pieces, strict=True):
            assert (shard.offset, shard.size) == (offset, len(piece))
            assert shard.to_bytes() == oracle.shard(piece, offset)
        merged = merge_shards(travelled(chosen, shard) for shard in shards)
        assert merged == counterfoil.commit_bytes(data)
        assert merged.digest() == oracle.bytes_digest(data)


def test_many_shards_within_one_chunk() -> None:
    """A chunk of 1,024 shards, and one that begins in a shard and ends two shards later."""
    data = random.Random(1).randbytes(3 * CHUNK + 100)
    for step in (1, 3, 512, 700, 1023):
        shards = [commit_shard(data[at : at + step], at) for at in range(0, len(data), step)]
        assert merge_shards(reversed(shards)) == counterfoil.commit_bytes(data)


def test_shards_of_several_slabs() -> None:
    """A shard that the pool cuts into tasks has roots of its own tiling, not of the tasks'."""
    data = random.Random(2).randbytes(9 << 20)
    places = [3 * CHUNK + 1, (1 << 20) + 5 * CHUNK, (5 << 20) - 77]
    shards = [commit_shard(piece, offset) for offset, piece in split(data, places)]
    assert merge_shards(shards) == counterfoil.commit_bytes(data)
    assert shards[2].to_bytes() == oracle.shard(data[places[1] : places[2]], places[1])


@pytest.mark.parametrize("offset", [2**32 - 1, 2**40 + 5, 2**50, 2**63 - 700, 2**63, 2**64 - 9000])
def test_shards_far_into_a_tensor(offset: int) -> None:
    """Offsets beyond 32 bits, and those whose largest aligned subtree is larger than the shard."""
    data = random.Random(offset).randbytes(8000)
    shard = commit_shard(data, offset)
    assert shard.to_bytes() == oracle.shard(data, offset)
    assert Shard.from_bytes(shard.to_bytes()) == shard


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, "<f4")])
def test_any_buffer_makes_a_shard(make: Callable[[bytes], object]) -> None:
    data = random.Random(3).randbytes(5000)
    assert commit_shard(make(data), 77) == commit_shard(data, 77)


def test_shards_are_values() -> None:
    first, second = commit_shard(b"abc", 5), commit_shard(b"abc", 5)
    assert first == second
    assert hash(first) == hash(second)
    assert first != commit_shard(b"abd", 5)
    assert first != commit_shard(b"abc", 6)
    assert first != "abc"
    assert "5" in repr(first)
    with pytest.raises(AttributeError):
        first.offset = 4


def test_a_shard_that_would_end_beyond_64_bits_is_refused() -> None:
    """Its end would wrap around and tile the beginning."""
    for offset, size in [(2**64 - 1, 1), (2**64 - 1, 2), (2**64 - 1024, 1024), (2**64 - 5, 4000)]:
        with pytest.raises(InvalidInput):
            commit_shard(bytes(size), offset)


@pytest.mark.parametrize("size", [0, 1, CHUNK, 5000])
def test_a_single_shard_is_the_whole(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert merge_shards([commit_shard(data, 0)]) == counterfoil.commit_bytes(data)


def test_a_changed_byte_changes_the_root() -> None:
    """Also in the bytes that travel as they are, and in every subtree root."""
    chosen = random.Random(4)
    for _ in range(200):
        data = chosen.randbytes(chosen.randint(1, 8 * CHUNK))
        pieces = split(data, cuts(chosen, len(data)))
        shards = [commit_shard(piece, offset) for offset, piece in pieces]
        number = chosen.choice([n for n, (_, piece) in enumerate(pieces) if piece])
        offset, piece = pieces[number]
        at = chosen.randrange(len(piece))
        other = piece[:at] + bytes([piece[at] ^ 1 << chosen.randrange(8)]) + piece[at + 1 :]
        shards[number] = commit_shard(other, offset)
        assert merge_shards(shards).root != counterfoil.commit_bytes(data).root


def test_no_byte_of_an_encoding_is_ignored() -> None:
    """A bit flipped behind the sizes changes the root; a verifier that skips a part would not see."""
    data = random.Random(5).randbytes(9 * CHUNK)
    left, right = commit_shard(data[:700], 0), commit_shard(data[700:], 700)
    whole, encoded = counterfoil.commit_bytes(data).root, right.to_bytes()
    for at in range(len(TAG) + 16, len(encoded)):
        changed = bytearray(encoded)
        changed[at] ^= 1
        assert merge_shards([left, Shard.from_bytes(bytes(changed))]).root != whole


def where(shards: list[Shard]) -> list[str]:
    """The numbers in the place that a refusal names."""
    with pytest.raises(InvalidInput) as caught:
        merge_shards(shards)
    return re.findall(r"\d+", str(caught.value.where).replace(",", ""))


def test_what_does_not_tile_is_refused_with_the_byte() -> None:
    """Sizes that add up hide a gap behind an overlap; both are refused, and where."""
    data = random.Random(6).randbytes(10_000)

    def part(low: int, high: int) -> Shard:
        return commit_shard(data[low:high], low)

    assert "3000" in where([part(0, 3000), part(3001, 10_000)])
    assert "4096" in where([part(0, 4096), part(5120, 10_000)])
    assert "2999" in where([part(0, 3000), part(2999, 10_000)])
    assert "1024" in where([part(0, 2048), part(1024, 10_000)])
    assert "5000" in where([part(5000, 10_000), part(0, 6000), part(7000, 8000)])
    assert "0" in where([part(1, 10_000)])
    assert "0" in where([part(1024, 2048), part(2048, 10_000)])
    assert "0" in where([part(0, 5000), part(0, 5000), part(5000, 10_000)])
    assert where([commit_shard(data, 2**63), part(0, 10_000)])  # a gap of half of all bytes


# Malformed encodings.

ENCODED = [
    oracle.shard(random.Random(8).randbytes(size), offset)
    for offset, size in [
        *[(0, 0), (5, 0), (0, 5), (7, 300), (1000, 24), (1000, 25), (1024, 1024), (100, 924)],
        *[(0, 7 * CHUNK), (700, 9000), (3 * CHUNK, 5 * CHUNK + 9), (2**40 + 1, 5000)],
    ]
]


def header(offset: int, size: int) -> bytes:
    return TAG + offset.to_bytes(8) + size.to_bytes(8)


@pytest.mark.parametrize("encoded", ENCODED, ids=lambda e: f"{len(e)} bytes")
def test_no_other_length_is_accepted(encoded: bytes) -> None:
    """A rest that is ignored gives one shard two encodings; a missing one, a read behind the end."""
    assert Shard.from_bytes(encoded).to_bytes() == encoded
    for length in {*range(0, len(encoded), 7), len(encoded) - 1, *range(min(60, len(encoded)))}:
        with pytest.raises(InvalidInput):
            Shard.from_bytes(encoded[:length])
    for more in (b"\0", b"x" * 31, b"x" * 32, bytes(1024), encoded):
        with pytest.raises(InvalidInput):
            Shard.from_bytes(encoded + more)


@pytest.mark.parametrize("encoded", ENCODED, ids=lambda e: f"{len(e)} bytes")
def test_another_tag_is_refused(encoded: bytes) -> None:
    for at in range(len(TAG)):
        for bit in (1, 0x20, 0x80):
            changed = encoded[:at] + bytes([encoded[at] ^ bit]) + encoded[at + 1 :]
            with pytest.raises(InvalidInput):
                Shard.from_bytes(changed)


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (2**64 - 1, 1),
        (2**64 - 1, 2**64 - 1),
        (1, 2**64 - 1),
        (2**63, 2**63),
        (0, 2**64 - 1),
        (0, 2**63),
        (2**64 - 1024, 1024),
        (2**64 - 1023, 1022),
        (1023, 2**64 - 1024),
        (2**32, 2**63 - 1),
        (0, 2**40),
    ],
)
@pytest.mark.parametrize("rest", [0, 1, 32, 64, 1022, 1024, 63 * 32, 64 * 32, 64 * 32 + 1023])
def test_sizes_that_cannot_be_are_refused(offset: int, size: int, rest: int) -> None:
    """No overflow, no memory reserved for a length that only the header claims, no panic."""
    encoded = header(offset, size) + bytes(rest)
    try:
        shard = Shard.from_bytes(encoded)
    except InvalidInput:
        return
    # 2**40 bytes from 0 are one perfect subtree and 2**63 another, so 32 bytes are their encoding;
    # a short run in the last chunk below 2**64 is only its bytes.
    assert (offset, size, rest) in {(0, 2**40, 32), (0, 2**63, 32), (2**64 - 1023, 1022, 1022)}
    assert shard.to_bytes() == encoded


def test_sizes_that_overflow_are_refused() -> None:
    """offset + size beyond 64 bits wraps around to a small end with a plausible encoding."""
    for offset in (2**64 - 1, 2**64 - CHUNK, 2**64 - 5 * CHUNK, 2**63):
        for end in (0, 1, CHUNK, 4096):
            size = 2**64 + end - offset
            for rest in (0, end, size % CHUNK, 32, 64, min(size, 20_000)):
                with pytest.raises(InvalidInput):
                    Shard.from_bytes(header(offset, size) + bytes(rest))


def test_no_bytes_crash_the_shard_parser() -> None:
    """Damage anywhere: refused, or a shard whose one encoding this is; merging it never panics."""
    chosen, accepted = random.Random(9), 0
    for _ in range(5000):
        data = bytearray(chosen.choice(ENCODED))
        for _ in range(chosen.choice([1, 1, 2, 5])):
            data[chosen.randrange(len(TAG), min(len(data), 60))] = chosen.choice([0, 1, 4, 127, 128, 255])
        del data[chosen.choice([len(data), len(data), chosen.randrange(len(data))]) :]
        try:
            shard = Shard.from_bytes(bytes(data))
        except InvalidInput:
            continue
        accepted += 1
        assert shard.to_bytes() == data
        if shard.offset == 0:
            assert merge_shards([shard]).size == shard.size
        elif shard.size > 0:
            assert "0" in where([shard])
    assert accepted > 100


def test_a_pickle_of_a_malformed_shard_is_refused() -> None:
    pickled = pickle.dumps(commit_shard(random.Random(1).randbytes(3000), 3))
    assert TAG in pickled
    with pytest.raises(InvalidInput):
        pickle.loads(pickled.replace(TAG, TAG[:-1] + b"2"))


# Sharded tensors that keep the whole's root.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shards_give_the_entry_of_the_whole(dtype: np.dtype) -> None:
    """Rows, or any run of canonical bytes: an element may be cut in two."""
    chosen = random.Random(dtype.num)
    for shape in [(), (0,), (7,), (33, 65), (5, 0, 2), (9, 4, 31)]:
        array = some(dtype, shape)
        data, whole = oracle.canonical(array), {"v": np.zeros(3), "w": array}
        for _ in range(4):
            shards = [commit_shard(piece, at) for at, piece in split(data, cuts(chosen, len(data)))]
            chosen.shuffle(shards)
            value = Sharded(oracle.TAGS[dtype.name], shape, shards)
            sharded = counterfoil.commit_tensors({**whole, "w": value})
            expected = counterfoil.commit_tensors(whole)
            assert sharded == expected
            assert sharded.digest() == expected.digest()
            entry = sharded.entries[1]
            assert (entry.kind, tuple(entry.shape), entry.size) == ("dense", shape, array.nbytes)
            assert entry.root == Entry.of("w", array).root
            assert sharded.first_difference(expected) is None


def test_rows_of_a_matrix_shard() -> None:
    """The usual case: dim-0 parts, uneven, each hashed where it lies."""
    array = some(np.dtype("float32"), (101, 37))
    rows = [0, 26, 52, 78, 101]
    shards = [commit_shard(array[a:b], a * 37 * 4) for a, b in itertools.pairwise(rows)]
    value = Sharded("F32", (101, 37), shards)
    commitment = counterfoil.commit_tensors({"w": value})
    assert commitment == counterfoil.commit_tensors({"w": array})
    for chunk in range(math.ceil(array.nbytes / CHUNK)):
        commitment.prove("w", chunk=chunk, tensor=array).verify(commitment.digest())


def test_shards_of_another_size_than_dtype_and_shape_are_refused() -> None:
    shards = [commit_shard(bytes(100), 0), commit_shard(bytes(140), 100)]
    counterfoil.commit_tensors({"w": Sharded("F32", (60,), shards)})
    for dtype, shape in [
        ("F64", (60,)),
        ("F16", (60,)),
        ("F32", (59,)),
        ("F32", (61,)),
        ("F32", ()),
        ("F32", (60, 2)),
        ("F32", (0, 60)),
        ("F32", (2**62, 60)),  # 60 * 4 * 2**62 is 0 in 64 bits
        ("F32", (2**32 + 60, 2**32)),
        ("F33", (60,)),
        ("float32", (60,)),
        ("", (60,)),
    ]:
        with pytest.raises(InvalidInput):
            counterfoil.commit_tensors({"w": Sharded(dtype, shape, shards)})


@pytest.mark.parametrize("dimensions", [(1,) * 65, (60, -1), (2**64,)], ids=len)
def test_impossible_shapes_are_refused(dimensions: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput):
        counterfoil.commit_tensors({"w": Sharded("U8", dimensions, [commit_shard(b"a", 0)])})


def test_shards_that_do_not_tile_are_refused_in_a_state() -> None:
    data = bytes(240)
    for borders in [[(0, 100), (120, 240)], [(0, 130), (120, 240)], [(1, 241)]]:
        shards = [commit_shard(data[low:high], low) for low, high in borders]
        with pytest.raises(InvalidInput):
            counterfoil.commit_tensors({"w": Sharded("F32", (60,), shards)})


def test_an_alias_may_name_a_tensor_of_shards() -> None:
    """It is dense like any other."""
    array = some(np.dtype("int16"), (50,))
    value = Sharded("I16", (50,), [commit_shard(array[:20], 0), commit_shard(array[20:], 40)])
    tied = {"head": counterfoil.Alias("embedding")}
    expected = counterfoil.commit_tensors({"embedding": array, **tied})
    assert counterfoil.commit_tensors({"embedding": value, **tied}) == expected


# Blocks.


def boxes(shape: tuple[int, ...], borders: list[list[int]]) -> Iterator[tuple[slice, ...]]:
    """The boxes between borders in each dimension."""
    edges = [itertools.pairwise([0, *each, size]) for each, size in zip(borders, shape, strict=True)]
    return (tuple(slice(*each) for each in box) for box in itertools.product(*edges))


def blocks_of(array: np.ndarray, borders: list[list[int]]) -> tuple[list[Block], list[oracle.Block]]:
    ours, theirs = [], []
    for box in boxes(array.shape, borders):
        offset = tuple(side.start for side in box)
        ours.append(commit_block(array[box], offset))
        theirs.append(oracle.Block.of(array[box], offset))
    return ours, theirs


def sharded_entry(name: str, array: np.ndarray, blocks: list[oracle.Block]) -> Entry:
    whole = Entry.of(name, array)
    return Entry(name, 4, whole.dtype, whole.shape, whole.size, oracle.sharded_root(blocks))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "borders"),
    [
        ((), []),
        ((7,), [[]]),
        ((70,), [[1, 30, 69]]),
        ((40, 60), [[], [20, 40]]),
        ((40, 60), [[13], [20, 59]]),
        ((4, 5, 60), [[1, 2, 3], [2], [30]]),
    ],
)
def test_blocks_have_an_entry_of_their_own(
    dtype: np.dtype, shape: tuple[int, ...], borders: list[list[int]]
) -> None:
    """The parts of a tensor-parallel layer, in whatever order the ranks send them."""
    array = some(dtype, shape)
    ours, theirs = blocks_of(array, borders)
    other = np.arange(5)
    expected = [Entry.of("v", other), sharded_entry("w", array, theirs)]
    for seed in range(3):
        random.Random(seed).shuffle(ours)
        value = Sharded(oracle.TAGS[dtype.name], shape, tuple(ours))
        commitment = counterfoil.commit_tensors({"v": other, "w": value})
        entry = commitment.entries[1]
        assert (entry.kind, entry.dtype, tuple(entry.shape)) == ("sharded", value.dtype, shape)
        assert (entry.size, entry.target) == (array.nbytes, commitment.entries[0].target)
        assert entry.root == oracle.sharded_root(theirs)
        assert commitment.root == oracle.state_root(expected)
        assert commitment.digest() == oracle.state_digest(expected)
        assert commitment.size == array.nbytes + other.nbytes
        assert commitment != counterfoil.commit_tensors({"v": other, "w": array})


def test_a_block_is_a_value() -> None:
    array = some(np.dtype("float16"), (30, 40))
    block = commit_block(array[10:, ::2], (10, 0))
    root = oracle.root(oracle.chunks(array[10:, ::2].tobytes()))
    assert block == Block((10, 0), (20, 20), "F16", root)
    assert block == commit_block(array[10:, ::2].copy(), [10, 0])
    assert pickle.loads(pickle.dumps(block)) == block
    assert hash(block) == hash(Block((10, 0), (20, 20), "F16", root))
    with pytest.raises(FrozenInstanceError):
        block.offset = (0, 0)
    with pytest.raises(FrozenInstanceError):
        Sharded("F16", (20, 20), [block]).dtype = "U8"


def test_another_partition_is_another_state() -> None:
    """A sharded entry is not comparable with the whole, nor with other borders."""
    array = some(np.dtype("float32"), (8, 8))
    roots = {counterfoil.commit_tensors({"w": array}).root}
    for borders in ([[], []], [[4], []], [[], [4]], [[4], [4]], [[5], [4]]):
        value = Sharded("F32", (8, 8), blocks_of(array, borders)[0])
        roots.add(counterfoil.commit_tensors({"w": value}).root)
    assert len(roots) == 6


def test_where_a_block_lies_is_bound() -> None:
    """Two equal boxes that change places give the same root; two different ones do not."""
    array = some(np.dtype("uint8"), (2, 50))
    top, bottom = commit_block(array[:1], (0, 0)), commit_block(array[1:], (1, 0))
    swapped = [replace(top, offset=(1, 0)), replace(bottom, offset=(0, 0))]
    first = counterfoil.commit_tensors({"w": Sharded("U8", (2, 50), [top, bottom])})
    assert first != counterfoil.commit_tensors({"w": Sharded("U8", (2, 50), swapped)})


def test_random_partitions() -> None:
    """Boxes cut again and again, which no grid describes, cover and do not overlap."""
    chosen = random.Random(10)

    def cut(box: list[tuple[int, int]], depth: int) -> Iterator[list[tuple[int, int]]]:
        axis = chosen.randrange(len(box))
        low, high = box[axis]
        if depth == 0 or high - low < 2:
            yield box
            return
        middle = chosen.randrange(low + 1, high)
        for part in ((low, middle), (middle, high)):
            yield from cut([*box[:axis], part, *box[axis + 1 :]], depth - 1)

    for seed in range(200):
        shape = tuple(chosen.randint(1, 9) for _ in range(chosen.randint(1, 4)))
        array = some(np.dtype("<u2"), shape, seed)
        parts = list(cut([(0, size) for size in shape], chosen.randint(0, 5)))
        places = [(tuple(low for low, _ in part), tuple(slice(*side) for side in part)) for part in parts]
        theirs = [oracle.Block.of(array[box], offset) for offset, box in places]
        ours = [commit_block(array[box], offset) for offset, box in places]
        chosen.shuffle(ours)
        commitment = counterfoil.commit_tensors({"w": Sharded("U16", shape, ours)})
        assert commitment.root == oracle.state_root([sharded_entry("w", array, theirs)])
        if len(ours) > 1:  # one block less, or one twice, is never a partition
            for wrong in (ours[1:], [*ours, ours[0]], [*ours[1:], ours[1]]):
                assert refused(wrong, "U16", shape) == "w"


def test_thousands_of_blocks_are_accepted_and_more_refused() -> None:
    """The check compares every pair of blocks: without a limit it would hold a verifier for minutes."""
    shape = (64, 64)
    array = some(np.dtype("uint8"), shape)
    ours, theirs = blocks_of(array, [list(range(1, 64))] * 2)
    random.Random(11).shuffle(ours)
    commitment = counterfoil.commit_tensors({"w": Sharded("U8", shape, ours)})
    assert refused([*ours, ours[0]], "U8", shape) == "w"
    assert commitment.entries[0].root == oracle.sharded_root(theirs)
    ours[77] = replace(ours[77], offset=ours[78].offset)
    assert refused(ours, "U8", shape) == "w"


def refused(blocks: list, dtype: str = "F32", shape: tuple[int, ...] = (8, 6)) -> str | None:
    """Where the refusal of these blocks points."""
    with pytest.raises(InvalidInput) as caught:
        counterfoil.commit_tensors({"v": np.zeros(2), "w": Sharded(dtype, shape, blocks)})
    return caught.value.where


WHOLE = np.arange(48, dtype=np.float32).reshape(8, 6)


def block(rows: slice, columns: slice, array: np.ndarray = WHOLE) -> Block:
    return commit_block(array[rows, columns], (rows.start, columns.start))


TOP, BOTTOM = block(slice(0, 4), slice(0, 6)), block(slice(4, 8), slice(0, 6))
NOTHING = oracle.sha256(b"")
LEFT, RIGHT = block(slice(4, 8), slice(0, 3)), block(slice(4, 8), slice(3, 6))


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param([TOP], id="gap at the end"),
        pytest.param([BOTTOM], id="gap at the beginning"),
        pytest.param([TOP, LEFT], id="gap in a corner"),
        pytest.param([TOP, BOTTOM, TOP], id="a block twice"),
        pytest.param([TOP, BOTTOM, RIGHT], id="overlap"),
        pytest.param([TOP, block(slice(3, 7), slice(0, 6))], id="overlap as large as the gap"),
        pytest.param([TOP, LEFT, LEFT], id="a block twice, as large as the gap"),
        pytest.param([TOP, replace(BOTTOM, offset=(5, 0))], id="outside by a row"),
        pytest.param([TOP, replace(BOTTOM, offset=(8, 0))], id="wholly outside"),
        pytest.param([TOP, BOTTOM, replace(LEFT, offset=(8, 0))], id="covered, and one outside"),
        pytest.param([TOP, replace(BOTTOM, offset=(4, 6))], id="outside by columns"),
        pytest.param([TOP, replace(BOTTOM, shape=(4, 7))], id="wider than the tensor"),
        pytest.param([TOP, replace(BOTTOM, offset=(2**64 - 4, 0))], id="end wraps around to 0"),
        pytest.param([TOP, replace(BOTTOM, shape=(2**64 - 1, 6))], id="extent wraps around"),
        pytest.param([TOP, replace(BOTTOM, offset=(2**64, 0))], id="offset beyond 64 bits"),
        pytest.param([TOP, replace(BOTTOM, offset=(-4, 0))], id="negative offset"),
        pytest.param([TOP, replace(BOTTOM, shape=(-4, 6))], id="negative extent"),
        pytest.param([TOP, BOTTOM, replace(LEFT, shape=(0, 3))], id="empty"),
        pytest.param([TOP, BOTTOM, Block((2, 0), (0, 6), "F32", NOTHING)], id="empty, of no data"),
        pytest.param([TOP, replace(BOTTOM, offset=(4,), shape=(24,))], id="a dimension less"),
        pytest.param([TOP, replace(BOTTOM, offset=(4, 0, 0), shape=(4, 6, 1))], id="one more"),
        pytest.param([TOP, replace(BOTTOM, offset=(4,))], id="offset and extent differ in number"),
        pytest.param([TOP, block(slice(4, 8), slice(0, 6), WHOLE.view("<i4"))], id="I32 in F32"),
        pytest.param([TOP, replace(BOTTOM, dtype="F16")], id="F16 in F32"),
        pytest.param([TOP, replace(BOTTOM, dtype="")], id="no dtype"),
        pytest.param([TOP, replace(BOTTOM, root=bytes(31))], id="a root of 31 bytes"),
        pytest.param([TOP, replace(BOTTOM, root=b"")], id="no root"),
        pytest.param([], id="no blocks"),
        pytest.param([TOP, commit_shard(WHOLE[4:], 96)], id="a block and a shard"),
        pytest.param([commit_shard(WHOLE[:4], 0), BOTTOM], id="a shard and a block"),
        pytest.param([TOP, None], id="a block and nothing"),
        pytest.param([WHOLE[:4], WHOLE[4:]], id="arrays"),
    ],
)
def test_blocks_that_are_no_partition_are_refused(blocks: list) -> None:
    """An uncommitted corner, or one committed twice with two contents, behind a valid root."""
    assert refused(blocks) == "w"


def test_the_refused_blocks_above_are_otherwise_good() -> None:
    for blocks in ([TOP, BOTTOM], [TOP, LEFT, RIGHT], [block(slice(0, 8), slice(0, 6))]):
        counterfoil.commit_tensors({"w": Sharded("F32", (8, 6), blocks)})


def test_a_tensor_without_elements_has_no_blocks() -> None:
    """No box in it is not empty, so nothing would be committed to."""
    for shape in [(0,), (3, 0)]:
        empty = Block((0,) * len(shape), shape, "F32", NOTHING)
        assert refused([empty], "F32", shape) == "w"


@pytest.mark.parametrize("shape", [(2**40, 2**40), (8, 6, 2**61), (2**64, 1), (8, -6)], ids=str)
def test_impossible_shapes_of_blocks_are_refused(shape: tuple[int, ...]) -> None:
    """product(shape) times four must not wrap around to what the blocks cover."""
    whole = Block((0,) * len(shape), shape, "F32", bytes(32))
    assert refused([whole], "F32", shape) == "w"


def test_a_block_of_no_tensor_is_refused() -> None:
    for value in (b"raw", None, object(), np.zeros(2, np.complex128), np.array(["text"])):
        with pytest.raises(InvalidInput):
            commit_block(value, (0,))


@pytest.mark.parametrize("parts", [[TOP, BOTTOM], [commit_shard(WHOLE, 0)]], ids=["blocks", "shards"])
def test_a_sharded_value_cannot_be_kept(parts: list) -> None:
    """keep=True stores bytes, and here are only hashes."""
    with pytest.raises(InvalidInput):
        counterfoil.commit_tensors({"w": Sharded("F32", (8, 6), parts)}, keep=True)


def test_an_alias_may_not_name_blocks() -> None:
    """Tied weights share the bytes of a dense entry; a partition has none of its own."""
    values = {"a": Sharded("F32", (8, 6), [TOP, BOTTOM]), "b": counterfoil.Alias("a")}
    with pytest.raises(InvalidInput):
        counterfoil.commit_tensors(values)


def test_a_sharded_entry_opens() -> None:
    """Its place in the state is provable, its chunks are not: it has none."""
    value = Sharded("F32", (8, 6), [BOTTOM, TOP])
    commitment = counterfoil.commit_tensors({"v": np.zeros(2), "w": value, "x": None})
    opening = commitment.prove("w")
    for each in (opening, counterfoil.Opening.from_json(opening.to_json())):
        entry = each.verify(commitment.digest())
        assert entry is not None
        assert (entry.name, entry.kind, entry.dtype, tuple(entry.shape)) == ("w", "sharded", "F32", (8, 6))
        assert entry.root == commitment.entries[1].root
    with pytest.raises(ProofError):
        opening.verify(counterfoil.commit_tensors({"v": np.zeros(2), "w": WHOLE, "x": None}).digest())
    before = b"counterfoil.entry.v1".hex()
    assert before + "04" in opening.to_json()
    for kind in ("00", "01", "02", "03", "05"):
        with pytest.raises(CounterfoilError):
            changed = opening.to_json().replace(before + "04", before + kind)
            counterfoil.Opening.from_json(changed).verify(commitment.digest())
    with pytest.raises(CounterfoilError):
        commitment.prove("w", chunk=0, tensor=WHOLE)
    name, ours, theirs = commitment.first_difference(
        counterfoil.commit_tensors({"v": np.zeros(2), "w": WHOLE, "x": None})
    )
    assert (name, ours.kind, theirs.kind) == ("w", "sharded", "dense")


# What hostile readers found.


class OnAccess(dict[str, np.ndarray]):
    """Makes another tensor at every look."""

    def items(self):  # type: ignore[no-untyped-def]
        return [(name, value + np.random.default_rng().random()) for name, value in super().items()]


def test_what_is_stored_is_what_was_hashed(tmp_path: Path, home: Path) -> None:
    """A tensor made at every look was hashed once and stored another time."""
    with counterfoil.Run.create(tmp_path / "run") as run:
        stored = run.store(OnAccess(w=np.zeros(3)))
        with pytest.raises(InvalidInput, match="in parts"):
            run.store({"w": Sharded("U8", (3,), [commit_shard(b"abc", 0)])})
    (entry,) = stored.entries
    content = counterfoil.Record(tmp_path / "run").object(entry)
    assert content is not None
    assert counterfoil.commit_bytes(content).root == entry.root


WEIGHT = np.arange(16, dtype=np.float32).reshape(4, 4)
HALVES = [commit_block(WEIGHT[:2], (0, 0)), commit_block(WEIGHT[2:], (2, 0))]
IN_BLOCKS = Sharded("F32", (4, 4), HALVES)


def verdict_of(path: Path, step: dict[str, object], checkpoint: dict[str, object]) -> counterfoil.Verdict:
    """Of a run whose step and checkpoint say this of the parameters."""
    of_step = counterfoil.commit_tensors(step)
    with counterfoil.Run.create(path) as run:
        run.record_step(1, {"gradients": of_step, "parameters": of_step})
        run.record_checkpoint(1, {"parameters": counterfoil.commit_tensors(checkpoint)})
    return counterfoil.verify(path)


def test_blocks_of_a_checkpoint_count_as_not_stored(tmp_path: Path, home: Path) -> None:
    """A made-up block without any bytes behind it looked like a whole checkpoint."""
    verdict = verdict_of(tmp_path / "run", {"w": IN_BLOCKS}, {"w": IN_BLOCKS})
    assert any("1 objects are missing" in note for note in verdict.notes)


def test_one_tensor_divided_in_two_ways_is_undecided_not_refuted(tmp_path: Path, home: Path) -> None:
    """Equal weights, gathered for the checkpoint, were called a lie."""
    verdict = verdict_of(tmp_path / "run", {"w": IN_BLOCKS}, {"w": WEIGHT})
    assert verdict.status == "undecided"
    assert "in other blocks" in str(verdict.to_json())


@pytest.mark.parametrize(
    "checkpoint",
    [
        {"v": np.ones(4), "w": IN_BLOCKS},
        {"v": np.ones(4), "w": WEIGHT},
        {"v": np.zeros(4), "w": WEIGHT.reshape(2, 8)},
        {"v": np.zeros(4), "w": WEIGHT.view(np.int32)},
        {"v": np.zeros(4), "x": WEIGHT},
        {"v": np.zeros(4), "w": None},
        {"v": np.zeros(4)},
    ],
)
def test_blocks_excuse_no_other_difference(tmp_path: Path, home: Path, checkpoint: dict[str, object]) -> None:
    """One tensor in blocks made every contradiction between step and checkpoint undecided."""
    with pytest.raises(errors.Refuted, match="its step"):
        verdict_of(tmp_path / "run", {"v": np.zeros(4), "w": IN_BLOCKS}, checkpoint)


def test_wrong_positions_and_paths_are_typed_errors(tmp_path: Path) -> None:
    commitment = counterfoil.commit_bytes(b"abc")
    whole = counterfoil.storage.root(b"abc")
    for refused_call, expected in [
        (lambda: commitment.prove(-1, b"abc"), InvalidInput),
        (lambda: commitment.prove(0, str(tmp_path / "none")), NotFound),
        (lambda: commitment.prove(0, tmp_path), StorageError),
        (lambda: whole.segment_proof(-1), InvalidInput),
        (lambda: counterfoil.commit_bytes(np.array([object()])), InvalidInput),
        (lambda: merge_shards([b""]), InvalidInput),  # type: ignore[list-item]
        (lambda: commit_block(np.zeros(3), 0), InvalidInput),  # type: ignore[arg-type]
    ]:
        with pytest.raises(expected):
            refused_call()
