"""Fingerprints against a second implementation, to the bit, and what they say of distances."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sketches
from counterfoil import Alias, Sharded, commit_shard
from counterfoil.errors import InvalidInput, UnsupportedDtype
from counterfoil.fingerprints import distance, fingerprint

KEY = bytes(range(32))
ODD = [0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, -1e-310, 1e-45, 6e-8, 1e300, -1e300, 65504.0]
ODD += [
    2.0**15,
    -(2.0**15),
    np.nextafter(2.0**15, 0),
    8.0,
    -8.0,
    np.nextafter(8.0, 0),
    2.0**-49,
    3 * 2.0**-49,
]


def same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for unit, sketch in theirs.items():
        assert ours[unit].dtype == np.int64
        np.testing.assert_array_equal(ours[unit], sketch, err_msg=unit)


def numbers(size: int, dtype: str, seed: int = 0) -> np.ndarray:
    with np.errstate(over="ignore"):
        return (np.random.default_rng(seed).normal(size=size) * 0.3).astype(dtype)


@pytest.mark.parametrize(
    "size", [0, 1, 3, 4, 5, 63, 64, 65, 4095, 4096, 4097, 65_535, 65_536, 65_537, 100_003]
)
def test_sizes_around_every_border(size: int) -> None:
    """A block, piece or unit that begins one element too early or late puts values into other buckets."""
    tensors = {"w": numbers(size, "f4")}
    same(fingerprint(tensors, KEY), sketches.fingerprint(tensors, KEY))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_any_bits_of_a_dtype(dtype: str) -> None:
    """A NaN, infinity, subnormal or huge number, alone among small ones or everywhere, has one meaning."""
    bits = np.frombuffer(np.random.default_rng(1).bytes(5000 * np.dtype(dtype).itemsize), dtype)
    with np.errstate(over="ignore", under="ignore"):
        odd = np.array(ODD).astype(dtype)
    among = numbers(9000, dtype)
    among[17::501] = np.resize(odd, among[17::501].size)
    tensors = {"bits": bits, "odd": odd, "among": among}
    same(fingerprint(tensors, KEY), sketches.fingerprint(tensors, KEY))


def test_bfloat16_is_the_number_that_it_widens_to() -> None:
    """Read as a half-precision number, bfloat16 has other exponents."""
    pattern = np.arange(65_536, dtype=np.uint16)
    tensor = torch.from_numpy(pattern).view(torch.bfloat16)
    wide = (pattern.astype(np.uint32) << 16).view(np.float32)
    same(fingerprint({"w": tensor}, KEY), sketches.fingerprint({"w": wide}, KEY))


def test_layouts_and_scalars() -> None:
    """Elements count by their row-major index, whatever the strides are; a scalar has one."""
    whole = numbers(9000, "f4").reshape(90, 100)
    tensors = {
        "t": whole.T,
        "strided": whole[::2, 1::3],
        "scalar": np.float32(0.5),
        "big": whole.astype(">f4"),
    }
    expected = sketches.fingerprint(
        {name: np.ascontiguousarray(array) for name, array in tensors.items()}, KEY
    )
    same(fingerprint(tensors, KEY), expected)
    same(
        fingerprint({"w": torch.from_numpy(whole).T, "x": 0.5}, KEY),
        sketches.fingerprint({"w": whole.T, "x": 0.5}, KEY),
    )


def test_names_keys_and_the_pool() -> None:
    """One generator for all tensors, or for all keys, would let differences of two tensors cancel."""
    small, large = numbers(4095, "f4"), numbers(4096, "f4")
    tensors = {"β": small, "a": small, "c": large, "d": large, "none": None, "tied": Alias("c")}
    found = fingerprint(tensors, KEY)
    given = {name: tensors[name] for name in ("β", "a", "c", "d")}
    same(found, sketches.fingerprint(given, KEY))
    assert list(found) == ["pool", "tensor/c", "tensor/d"]
    assert not np.array_equal(found["tensor/c"], found["tensor/d"])
    assert not np.array_equal(found["tensor/c"], fingerprint({"c": large}, bytes(32))["tensor/c"])
    assert fingerprint({"none": None}, KEY) == {}


def test_what_has_no_fingerprint_is_named() -> None:
    """Integers, parts of a tensor and short keys must not be sketched as something else."""
    with pytest.raises(UnsupportedDtype, match="I64") as refused:
        fingerprint({"w": np.zeros(3), "steps": np.arange(3)}, KEY)
    assert refused.value.where == "steps"
    shard = commit_shard(bytes(12), 0)
    with pytest.raises(InvalidInput, match="part") as refused:
        fingerprint({"w": Sharded("F32", (3,), [shard])}, KEY)
    assert refused.value.code == "invalid-input"
    with pytest.raises(InvalidInput, match="32 bytes"):
        fingerprint({"w": np.zeros(3)}, bytes(31))


SUMS = """
import sys
import numpy as np
from counterfoil.fingerprints import fingerprint
array = (np.random.default_rng(3).normal(size=1_000_003)).astype("f4")
sys.stdout.buffer.write(fingerprint({"w": array}, bytes(range(32)))["tensor/w"].tobytes())
"""


def test_any_number_of_threads_gives_the_same_bits() -> None:
    """Floating sums, or pieces cut by the number of cores, would depend on the machine."""
    one = str(min(os.sched_getaffinity(0)))
    pinned = ["taskset", "-c", one, sys.executable, "-c", SUMS]
    array = np.random.default_rng(3).normal(size=1_000_003).astype("f4")
    expected = fingerprint({"w": array}, KEY)["tensor/w"].tobytes()
    assert subprocess.run(pinned, capture_output=True, check=True).stdout == expected


VALUES = st.lists(st.integers(-(2**30), 2**30), min_size=1, max_size=40)
NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
KEYS = st.binary(min_size=32, max_size=32)


@settings(deadline=None, max_examples=100)
@given(VALUES, NAMES, KEYS, st.randoms())
def test_sketches_are_linear(values: list[int], name: str, key: bytes, chosen: random.Random) -> None:
    """Verifiers subtract sketches: a sketch of a sum that is not the sum of sketches has no distance."""
    one = np.array(values) / 2.0**20
    other = np.array(chosen.sample(values, len(values))) / 2.0**18
    ours, theirs, both = (fingerprint({name: array}, key)["pool"] for array in (one, other, one + other))
    np.testing.assert_array_equal(ours + theirs, both)
    same({"pool": ours}, sketches.fingerprint({name: one}, key))


@pytest.mark.parametrize("size", [4096, 200_000])
def test_distances_are_near_the_euclidean_ones(size: int) -> None:
    """A sign or bucket that repeats, or a wrong unit, makes the estimate wrong by more than its spread."""
    ours, noise = numbers(size, "f8"), numbers(size, "f8", seed=9) * 1e-6
    for key in range(20):
        word = key.to_bytes(32, "big")
        found = distance(fingerprint({"w": ours}, word), fingerprint({"w": ours + noise}, word))
        # The largest of four rows, each with a relative spread of 1 / sqrt(2 * 64).
        assert 0.85 < found["tensor/w"] / np.linalg.norm(noise) < 1.45
    lone = ours.copy()
    lone[size // 2] += 0.125
    assert distance(fingerprint({"w": ours}, KEY), fingerprint({"w": lone}, KEY)) == pytest.approx(
        {"tensor/w": 0.125}
    )


def test_distances_wrap_and_refuse_other_tensors() -> None:
    """Sums that passed 2^63 on one side must not look far apart; other units must not be skipped."""
    most = {"pool": np.full((4, 64), 2**63 - 1, np.int64)}
    least = {"pool": np.full((4, 64), -(2**63), np.int64)}
    assert distance(most, least) == {"pool": 8 * 2.0**-48}
    with pytest.raises(InvalidInput) as refused:
        distance(most, most | {"tensor/w": most["pool"]})
    assert refused.value.where == "tensor/w"
    with pytest.raises(InvalidInput, match="no sketch"):
        distance(most, {"pool": most["pool"][:, :1]})
