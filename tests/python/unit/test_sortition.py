"""Draws by weight against eth_utils' Keccak and integers of Python; the vectors that Rust and contracts read as well."""

import json
from itertools import accumulate

import pytest
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.errors import InvalidInput
from counterfoil.sortition import draw
from oracle import ROOT

VECTORS = ROOT / "tests" / "vectors" / "sortition.json"
LAST_SLOT = 2**64 - 1
HEAVY = 2**127 - 1
BEACONS = st.binary(min_size=32, max_size=32)
SLOTS = st.integers(0, LAST_SLOT)
WEIGHTS = st.lists(st.integers(0, 2**120), min_size=1, max_size=40).filter(any)


def number(beacon: bytes, slot: int, total: int) -> int:
    encoded = keccak(text="counterfoil.sortition.v1") + beacon + slot.to_bytes(32, "big")
    return int.from_bytes(keccak(encoded), "big") % total


def winner(weights: list[int], drawn: int) -> int:
    return next(position for position, upto in enumerate(accumulate(weights)) if upto > drawn)


def case(beacon: bytes, slot: int, weights: list[int]) -> dict[str, object]:
    drawn = number(beacon, slot, sum(weights))
    return {
        "beacon": "0x" + beacon.hex(),
        "slot": str(slot),
        "weights": [str(weight) for weight in weights],
        "number": str(drawn),
        "winner": winner(weights, drawn),
    }


def document() -> list[dict[str, object]]:
    """What `tests/vectors/sortition.json` holds."""
    beacons = [bytes(32), b"\xff" * 32, *(keccak(text=f"beacon {each}") for each in range(3))]
    rolls = [
        [1],
        [HEAVY],
        [0, 0, 3, 4],
        [3, 0, 0, 4],
        [3, 4, 0, 0],
        [0, 1, 0, 1, 0],
        [HEAVY, 1, HEAVY],
        [1] * 41,
        [int.from_bytes(keccak(text=f"weight {each}")[:15], "big") for each in range(20)],
    ]
    cases = [case(beacon, 7 * at, roll) for at, beacon in enumerate(beacons) for roll in rolls]
    edges = [case(beacons[2], slot, roll) for slot in (0, 1, LAST_SLOT) for roll in rolls[5:7]]
    return cases + edges


def test_the_vectors_are_what_an_independent_computation_gives() -> None:
    """A vector that was edited, or made by the library itself."""
    assert json.loads(VECTORS.read_text()) == document()
    assert len(document()) == 51


def test_draws_are_those_of_the_vectors() -> None:
    """Another encoding of the slot, an off-by-one at a weight's edge, or a zero that wins."""
    for each in json.loads(VECTORS.read_text()):
        weights = [int(weight) for weight in each["weights"]]
        drawn = draw(bytes.fromhex(each["beacon"][2:]), int(each["slot"]), weights)
        assert drawn == each["winner"], each
        assert weights[drawn] > 0


@given(BEACONS, SLOTS, WEIGHTS)
def test_any_draw_is_the_independent_one(beacon: bytes, slot: int, weights: list[int]) -> None:
    assert draw(beacon, slot, weights) == winner(weights, number(beacon, slot, sum(weights)))


@given(BEACONS, SLOTS, WEIGHTS, st.data())
def test_splitting_a_weight_changes_nothing(
    beacon: bytes, slot: int, weights: list[int], data: st.DataObject
) -> None:
    """A draw that counts identities: the parts of a weight win exactly when it does, and others as before."""
    at = data.draw(st.integers(0, len(weights) - 1))
    part = data.draw(st.integers(0, weights[at]))
    split = [*weights[:at], part, weights[at] - part, *weights[at + 1 :]]
    one, many = draw(beacon, slot, weights), draw(beacon, slot, split)
    assert one == (many if many <= at else many - 1)


@given(BEACONS, SLOTS, WEIGHTS, st.lists(st.just(0), max_size=20))
def test_keys_without_a_weight_change_nothing(
    beacon: bytes, slot: int, weights: list[int], late: list[int]
) -> None:
    """A draw into which the length of the roll goes, which whoever joins late could try keys for."""
    assert draw(beacon, slot, weights + late) == draw(beacon, slot, weights)


@pytest.mark.parametrize(
    ("beacon", "slot", "weights", "where"),
    [
        (bytes(32), 0, [], None),
        (bytes(32), 0, [0, 0], None),
        (bytes(31), 0, [1], "the beacon"),
        (bytes(32), -1, [1], "slot"),
        (bytes(32), 2**64, [1], "slot"),
        (bytes(32), 0, [1, -1], "weights[1]"),
        (bytes(32), 0, [2**128], "weights[0]"),
        (bytes(32), 0, [2**127, 2**127], "weights[1]"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    beacon: bytes, slot: int, weights: list[int], where: str | None
) -> None:
    """A division by zero, a sum that wraps, or an OverflowError of the interpreter."""
    with pytest.raises(InvalidInput) as refused:
        draw(beacon, slot, weights)
    assert refused.value.where == where
