"""Commitments against the second implementation in oracle.py, and openings of their parts."""

import json
import math
import random
from collections.abc import Iterator

import numpy as np
import pytest

import counterfoil
import oracle
from counterfoil.errors import CounterfoilError, InvalidInput, ProofError, UnsupportedDtype
from oracle import CHUNK, Entry

SIZES = [0, 1, 31, 1023, 1024, 1025, 2047, 2048, 2049, 3 * CHUNK, 7 * CHUNK + 5, 64 * CHUNK]
DTYPES = [np.dtype(name) for name in oracle.TAGS]
SHAPES = [(), (0,), (1,), (3, 0, 2), (5,), (2, 3), (4, 1, 5), (257,), (33, 65)]
BLIND = bytes(range(32))


def some(dtype: np.dtype, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Any bit pattern of this dtype, NaN payloads and negative zeros among them."""
    chosen = np.random.default_rng(seed)
    if dtype == np.bool_:
        return chosen.integers(0, 2, shape).astype(np.bool_)
    raw = chosen.bytes(math.prod(shape) * dtype.itemsize)
    return np.frombuffer(raw, dtype).reshape(shape)


def state_root(tensors: dict[str, np.ndarray]) -> bytes:
    return oracle.state_root([Entry.of(name, array) for name, array in tensors.items()])


@pytest.mark.parametrize("size", SIZES)
def test_bytes_around_chunk_edges(size: int) -> None:
    """A padded last chunk, or a chunk too many at a whole multiple, shows here."""
    data = random.Random(size).randbytes(size)
    commitment = counterfoil.commit_bytes(data)
    assert commitment.algorithm == "tensor/sha256-rfc9162/1024"
    assert commitment.kind == "bytes"
    assert commitment.size == size
    assert commitment.count == math.ceil(size / CHUNK)
    assert commitment.root == oracle.root(oracle.chunks(data))
    assert commitment.digest() == oracle.bytes_digest(data)
    assert commitment.digest(BLIND) == oracle.bytes_digest(data, BLIND)


@pytest.mark.parametrize("make", [bytearray, memoryview, lambda data: np.frombuffer(data, "u1")])
def test_any_buffer_of_bytes(make: type) -> None:
    data = random.Random(1).randbytes(5000)
    assert counterfoil.commit_bytes(make(data)) == counterfoil.commit_bytes(data)


def test_larger_than_one_task_of_the_pool() -> None:
    """Several tasks of the thread pool must join at subtree borders."""
    for size in (1 << 20, (1 << 20) + 1, 5_000_000):
        data = random.Random(size).randbytes(size)
        assert counterfoil.commit_bytes(data).root == oracle.root(oracle.chunks(data))


@pytest.mark.parametrize("size", [0, 1, 1024, 5000, 3_000_000])
def test_a_file_commits_like_its_bytes(tmp_path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    (tmp_path / "data").write_bytes(data)
    expected = counterfoil.commit_bytes(data)
    assert counterfoil.commit_file(tmp_path / "data") == expected
    assert counterfoil.commit_file(str(tmp_path / "data")) == expected


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_and_shapes(dtype: np.dtype) -> None:
    """Every dtype in every shape: tag, dimensions, length and raw bits enter the entry."""
    for shape in SHAPES:
        array = some(dtype, shape)
        commitment = counterfoil.commit_tensors({"w": array})
        assert commitment.algorithm == "state/sha256-rfc9162"
        assert commitment.kind == "state"
        assert (commitment.count, commitment.size) == (1, array.nbytes)
        assert commitment.root == state_root({"w": array})
        (entry,) = commitment.entries
        expected = Entry.of("w", array)
        assert (entry.name, entry.kind, entry.dtype) == ("w", "dense", expected.dtype)
        assert (tuple(entry.shape), entry.size) == (shape, array.nbytes)
        assert entry.root == expected.root
        assert commitment.digest(BLIND) == oracle.state_digest([expected], BLIND)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.itemsize > 1], ids=str)
def test_byte_order_does_not_show(dtype: np.dtype) -> None:
    array = some(dtype, (7, 11))
    big = array.astype(dtype.newbyteorder(">"))
    if dtype.kind != "f":  # a conversion may quiet a NaN; the bytes below do not
        assert counterfoil.commit_tensors({"w": big}) == counterfoil.commit_tensors({"w": array})
    raw = np.frombuffer(array.tobytes(), dtype.newbyteorder(">")).reshape(7, 11)
    assert counterfoil.commit_tensors({"w": raw}).root == state_root({"w": raw})


def test_strides_and_offsets_do_not_show() -> None:
    """A view commits like its contiguous copy: transposed, stepped, reversed, broadcast."""
    base = some(np.dtype("float32"), (40, 60))
    views = [
        base.T,
        base[::2, 1::3],
        base[::-1, ::-1],
        base[5:6, 7:],
        np.broadcast_to(base[0], (3, 60)),
        np.asfortranarray(base),
        base.reshape(4, 10, 60).transpose(2, 0, 1),
    ]
    for view in views:
        expected = counterfoil.commit_tensors({"w": np.ascontiguousarray(view)})
        assert counterfoil.commit_tensors({"w": view}) == expected
        assert expected.root == state_root({"w": view})


def test_raw_bits_are_kept() -> None:
    """Different NaN payloads, and the two zeros, are different values here."""
    patterns = np.array([0x7FC00000, 0x7FC00001, 0x7F800001, 0xFFC00000, 0, 0x80000000], "<u4")
    roots = {counterfoil.commit_tensors({"w": each.view("<f4")}).root for each in patterns[:, None]}
    assert len(roots) == len(patterns)


def test_dtype_shape_and_name_are_bound() -> None:
    """Equal bytes under another dtype, shape or name are another state."""
    array = np.zeros((2, 6), np.int32)
    others = [{"w": array.reshape(6, 2)}, {"w": array.view(np.float32)}, {"v": array}]
    roots = {counterfoil.commit_tensors(each).root for each in [{"w": array}, *others]}
    assert len(roots) == 4


def test_many_tensors_in_any_order() -> None:
    chosen = random.Random(3)
    tensors = {
        f"layer.{index}.{'wb'[index % 2]}é": some(chosen.choice(DTYPES), chosen.choice(SHAPES), index)
        for index in range(150)
    }
    expected = state_root(tensors)
    names = list(tensors)
    for _ in range(3):
        chosen.shuffle(names)
        commitment = counterfoil.commit_tensors({name: tensors[name] for name in names})
        assert commitment.root == expected
        assert [e.name for e in commitment.entries] == sorted(tensors, key=str.encode)


def test_names_sort_as_bytes() -> None:
    """UTF-16 order and UTF-8 order differ for these two names."""
    tensors = {"\U00010000": np.uint8([1]), "\uffee": np.uint8([2])}
    assert counterfoil.commit_tensors(tensors).root == state_root(tensors)


def test_empty_state() -> None:
    commitment = counterfoil.commit_tensors({})
    assert (commitment.count, commitment.size) == (0, 0)
    assert commitment.digest() == oracle.state_digest([])


def test_scalars_strings_and_none() -> None:
    values = {"a": True, "b": -5, "c": 0.1, "d": "née", "e": None, "f": -0.0}
    expected = [
        Entry.of("a", np.array(True)),
        Entry.of("b", np.array(-5, np.int64)),
        Entry.of("c", np.array(0.1)),
        Entry.of("d", np.frombuffer("née".encode(), np.uint8)),
        Entry("e", kind=1),
        Entry.of("f", np.array(-0.0)),
    ]
    commitment = counterfoil.commit_tensors(values)
    assert commitment.root == oracle.state_root(expected)
    assert [entry.kind for entry in commitment.entries][4] == "absent"


def test_tied_tensors() -> None:
    tensor = some(np.dtype("float32"), (3, 4))
    values = {"embedding": tensor, "head": counterfoil.Alias("embedding")}
    expected = [Entry.of("embedding", tensor), Entry("head", kind=2, target="embedding")]
    commitment = counterfoil.commit_tensors(values)
    assert commitment.root == oracle.state_root(expected)
    assert commitment.size == tensor.nbytes
    assert commitment.entries[1].target == "embedding"


@pytest.mark.parametrize(
    "values",
    [
        {"head": counterfoil.Alias("missing")},
        {"a": counterfoil.Alias("b"), "b": np.zeros(1)},  # the target must be the smaller name
        {"a": np.zeros(1), "b": counterfoil.Alias("a"), "c": counterfoil.Alias("b")},
        {"a": None, "b": counterfoil.Alias("a")},
        {"a": counterfoil.Alias("a")},
        {"": np.zeros(1)},
        {"x" * 1025: np.zeros(1)},
        {"line\nbreak": np.zeros(1)},
        {"del\x7f": np.zeros(1)},
        {"c1\x85": np.zeros(1)},
        {"surrogate\ud800": np.zeros(1)},
        {"big": 2**63},
        {"small": -(2**63) - 1},
    ],
    ids=repr,
)
def test_refused_states(values: dict) -> None:
    with pytest.raises(InvalidInput):
        counterfoil.commit_tensors(values)


def test_the_longest_name_and_the_extreme_integers_are_accepted() -> None:
    values = {"x" * 1024: 2**63 - 1, "é": -(2**63)}
    expected = [Entry.of(n, np.array(v, np.int64)) for n, v in values.items()]
    assert counterfoil.commit_tensors(values).root == oracle.state_root(expected)


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a"], object),
        np.array(["a"]),
        np.array([b"a"]),
        np.zeros(2, np.complex128),
        np.zeros(2, np.longdouble),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.zeros(2, [("a", "i4")]),
    ],
    ids=lambda a: str(a.dtype),
)
def test_other_dtypes_are_refused_by_name(array: np.ndarray) -> None:
    """Nothing is silently cast, and the error names the tensor."""
    with pytest.raises(UnsupportedDtype) as caught:
        counterfoil.commit_tensors({"good": np.zeros(1), "bad tensor": array})
    assert "bad tensor" in str(caught.value.where)


def test_a_value_that_is_no_tensor_is_refused() -> None:
    for value in (object(), {"a": 1}, 1j, b"raw bytes", lambda: 0):
        with pytest.raises(CounterfoilError):
            counterfoil.commit_tensors({"w": value})


def test_first_difference_names_the_tensor() -> None:
    left = {"a": np.zeros(3), "b": np.zeros(2000), "c": np.ones(2)}
    right = {**left, "b": np.zeros(2000) + np.eye(1, 2000, 1999)[0] * 1e-300}
    a, b = counterfoil.commit_tensors(left), counterfoil.commit_tensors(right)
    assert a.first_difference(a) is None
    name, expected, actual = a.first_difference(b)
    assert (name, expected.root, actual.root) == ("b", a.entries[1].root, b.entries[1].root)
    name, expected, actual = a.first_difference(counterfoil.commit_tensors({}))
    assert (name, expected.name, actual) == ("a", "a", None)


@pytest.mark.parametrize("size", [1, 1024, 1025, 9 * CHUNK + 3])
def test_open_one_chunk_of_bytes(size: int) -> None:
    data = random.Random(size).randbytes(size)
    commitment = counterfoil.commit_bytes(data)
    for index in range(commitment.count):
        opening = commitment.prove(index, data)
        opening.verify(commitment.digest())
        with pytest.raises(ProofError):
            opening.verify(commitment.digest(BLIND))
        opening.verify(commitment.digest(BLIND), BLIND)
        again = counterfoil.Opening.from_json(opening.to_json())
        again.verify(commitment.digest())
    with pytest.raises(ProofError):
        commitment.prove(commitment.count, data)


def test_open_one_chunk_of_a_file(tmp_path) -> None:
    data = random.Random(5).randbytes(5000)
    (tmp_path / "data").write_bytes(data)
    commitment = counterfoil.commit_file(tmp_path / "data")
    commitment.prove(4, tmp_path / "data").verify(commitment.digest())
    with pytest.raises(CounterfoilError):  # other bytes than the committed ones open nothing
        commitment.prove(0, data[:-1] + b"?").verify(commitment.digest())


def test_open_one_tensor_and_one_chunk_of_it() -> None:
    tensors = {f"t{index}": some(np.dtype("float32"), (40, 40), index) for index in range(9)}
    tensors["none"] = None
    commitment = counterfoil.commit_tensors(tensors)
    digest = commitment.digest()
    for name in tensors:
        commitment.prove(name).verify(digest)
    for chunk in range(7):
        commitment.prove("t3", chunk=chunk, tensor=tensors["t3"]).verify(digest)
    with pytest.raises(ProofError):
        commitment.prove("t3").verify(counterfoil.commit_tensors({"t3": tensors["t3"]}).digest())
    with pytest.raises(CounterfoilError):
        commitment.prove("t3", chunk=0, tensor=tensors["t4"]).verify(digest)
    with pytest.raises(CounterfoilError):
        commitment.prove("missing")


def _mutations(value: object) -> Iterator[object]:
    """Every value one small change away: a number more, a hex digit changed, an item dropped."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield {other: value[other] for other in value if other != key}
            yield from ({**value, key: changed} for changed in _mutations(each))
    elif isinstance(value, list):
        yield [*value, value[-1] if value else "0x" + "00" * 32]
        for index, each in enumerate(value):
            yield value[:index] + value[index + 1 :]
            yield from ([*value[:index], new, *value[index + 1 :]] for new in _mutations(each))
    elif isinstance(value, bool) or value is None:
        yield not value
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, str):
        yield from (value + "0", value[:-1], value[:-1] + ("1" if value[-1:] == "0" else "0"))


def _without_null(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_null(each) for key, each in value.items() if each is not None}
    return value


def test_no_changed_opening_verifies() -> None:
    """Index, size, proof, entry, chunk: every single change of the JSON form is refused."""
    tensors = {"a": some(np.dtype("float32"), (40, 10)), "b": some(np.dtype("int8"), (5,))}
    state, data = counterfoil.commit_tensors(tensors), random.Random(8).randbytes(2500)
    single = counterfoil.commit_bytes(data)
    for opening, digest in [
        (state.prove("a", chunk=1, tensor=tensors["a"]), state.digest()),
        (state.prove("b"), state.digest()),
        (single.prove(2, data), single.digest()),
    ]:
        original = json.loads(opening.to_json())
        for changed in _mutations(original):
            if changed.get("chunk") is None and original["entry"] is not None:
                changed["chunk"] = original["chunk"]  # without it: a true opening of the tensor
            if _without_null(changed) != _without_null(original):
                with pytest.raises(CounterfoilError):
                    counterfoil.Opening.from_json(json.dumps(changed)).verify(digest)


def test_torch_tensors_commit_like_numpy_arrays() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    array = some(np.dtype("float32"), (6, 50))
    tensor = torch.from_numpy(array.copy())
    for tensors, arrays in [
        ({"w": tensor}, {"w": array}),
        ({"w": tensor.T}, {"w": array.T}),
        ({"w": tensor[2:, ::7]}, {"w": array[2:, ::7]}),
        ({"w": tensor.reshape(-1)[3]}, {"w": array.reshape(-1)[3].reshape(())}),
        ({"w": tensor[:0]}, {"w": array[:0]}),
    ]:
        assert counterfoil.commit_tensors(tensors).root == state_root(arrays)


def test_torch_dtypes_without_a_numpy_twin() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    raw = torch.arange(250, dtype=torch.uint8)
    for dtype, tag in [
        (torch.bfloat16, "BF16"),
        (torch.float8_e4m3fn, "F8_E4M3"),
        (torch.float8_e5m2, "F8_E5M2"),
        (torch.float8_e8m0fnu, "F8_E8M0"),
    ]:
        tensor = raw.view(dtype)
        data = raw.numpy().tobytes()
        entry = Entry("w", 0, tag, tuple(tensor.shape), 250, oracle.root(oracle.chunks(data)))
        assert counterfoil.commit_tensors({"w": tensor}).root == oracle.state_root([entry])


def test_lazy_torch_views_are_resolved() -> None:
    """`conj()` and `imag` of a conjugate only set a bit; the bytes must be those seen."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    values = torch.complex(torch.arange(6.0), torch.arange(6.0) + 1)
    for view in (values.conj(), values.conj().imag):
        expected = view.resolve_conj().resolve_neg().contiguous().numpy()
        assert counterfoil.commit_tensors({"w": view}).root == state_root({"w": expected})


def test_commitments_are_values() -> None:
    first, second = counterfoil.commit_bytes(b"abc"), counterfoil.commit_bytes(b"abc")
    assert first == second
    assert hash(first) == hash(second)
    assert first != counterfoil.commit_bytes(b"abd")
    with pytest.raises(AttributeError):
        first.size = 4


def test_a_tensor_without_memory_is_refused_by_name() -> None:
    """A freed storage has the address 0, which a read does not survive."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.ones(300)
    tensor.untyped_storage().resize_(0)
    with pytest.raises(InvalidInput, match="has no memory") as refused:
        counterfoil.commit_tensors({"freed": tensor})
    assert refused.value.where == "freed"
