"""Steps are drawn so that nobody who gains by it can choose them, and the odds that are printed are true."""

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.errors import InvalidInput
from counterfoil.sampling import choose, draw, odds


@pytest.mark.parametrize(
    "steps",
    [
        "some",
        "sample:x",
        "9",
        "0:9",
        [],
        [-1],
        [8],
        "7:9",
        "sample:0",
        "beacon:2",
        "3,",
        ",",
        "2:1",
        "1:999999999",
    ],
)
def test_steps_that_do_not_exist_are_refused(steps):
    with pytest.raises(InvalidInput):
        choose(steps, 7)


def test_chosen_steps_are_the_ones_asked_for():
    assert choose("all", 3) == [0, 1, 2, 3]
    assert choose("2:4", 7) == [2, 3, 4]
    assert choose("0,7,2:3,3", 7) == [0, 2, 3, 7]
    assert choose([5, 1, 5], 7) == [1, 5]
    assert choose("beacon:2", 7, [6, 3]) == [3, 6]


def test_a_sample_is_of_distinct_steps_and_never_of_the_beginning():
    seen = {tuple(choose("sample:3", 7)) for _ in range(50)}
    assert all(len(set(drawn)) == 3 and 1 <= min(drawn) <= max(drawn) <= 7 for drawn in seen)
    assert len(seen) > 1, "it is drawn, and not always the same"
    assert choose("sample:99", 7) == [1, 2, 3, 4, 5, 6, 7]


def drawn_by_the_page(beacon, head, n, k):
    """Section 15 of docs/format.md, written a second time."""
    eight = lambda number: bytes.fromhex(f"{number:016x}")  # noqa: E731
    seed = hashlib.sha256(b"counterfoil.sample.v1" + beacon + head + eight(n) + eight(k)).digest()
    words = (int(hashlib.sha256(seed + eight(i)).hexdigest()[:16], 16) for i in itertools.count())
    steps = (word % n + 1 for word in words if word // n < 2**64 // n)
    found = []
    while len(found) < min(k, n):
        step = next(steps)
        found += [step] * (step not in found)
    return found


@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
    st.integers(1, 300),
    st.integers(0, 40),
)
def test_a_beacon_draws_what_the_page_says(beacon, head, last, count):
    assert draw(beacon, head, last, count) == drawn_by_the_page(beacon, head, last, count)


def test_a_known_draw():
    assert draw(b"\x01" * 32, b"\x02" * 32, 1000, 5) == drawn_by_the_page(b"\x01" * 32, b"\x02" * 32, 1000, 5)
    assert draw(b"\x01" * 32, b"\x02" * 32, 1000, 5) == [410, 937, 15, 35, 859]


def test_each_step_is_drawn_as_often_as_any_other():
    counts = [0] * 10
    for number in range(2000):
        for step in draw(number.to_bytes(32, "big"), bytes(32), 10, 3):
            counts[step - 1] += 1
    expected = 600
    chi = sum((count - expected) ** 2 / expected for count in counts)
    assert chi < 27.9, "nine degrees of freedom, one in a thousand"


def test_the_odds_are_those_of_drawing_without_replacement():
    assert "odds of 0.597, and once in 1,000,000 signings of such a run with odds of 1" in odds(1000, 50)
    words = odds(200, 100)
    assert "if 2 were false" in words and f"{(100 * 99) / (200 * 199):.3g}" in words
    assert "odds of 0, and" in odds(5, 5)
