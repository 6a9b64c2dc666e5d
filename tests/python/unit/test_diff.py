"""The first difference between two records: planted ones are found where they were planted, and nowhere else."""

import contextlib
import json
import random
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import counterfoil
import forgery
import oracle
import samples
from counterfoil import _native
from counterfoil.errors import CorruptJournal, InvalidInput, NotFound

STEPS = 4
FIELDS = (
    "hyperparameters", "batch", "samples", "randomness", "contribution", "gradients", "metrics", "parameters", "optimizer",
    "buffers",
)  # fmt: skip
KEPT = ("hyperparameters", "metrics", "batch")
SHAPES = {"hyperparameters": {"0/lr": (), "0/betas": (2,)}, "metrics": {"loss": ()}}
WHOLE = {"a": (7, 3), "b.weight": (20, 31), "c": (1,)}
ITEMS = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4,
    "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
NUMPY = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "I32": "<i4", "U32": "<u4", "F32": "<f4",
    "I64": "<i8", "U64": "<u8", "F64": "<f8", "C64": "<c8",
}  # fmt: skip


def states(step: int) -> dict[str, dict[str, np.ndarray]]:
    """What the fields of a step hold; the same in every run."""
    draw = np.random.default_rng(step)
    return {
        field: {
            name: draw.normal(size=shape).astype(np.float32)
            for name, shape in SHAPES.get(field, WHOLE).items()
        }
        for field in FIELDS
    }


def record(
    path: Path, plant=lambda step, fields: None, steps: int = STEPS, stored=("parameters", "buffers")
) -> Path:
    """Records a training without torch, into which `plant` may put a difference.

    Hyperparameters, metrics and batches are kept by value, the fields of `stored` as objects, of the others the roots.
    """
    with counterfoil.Run.create(path) as run:
        add(run, range(1, steps + 1), plant, stored)
    return path


def add(run, steps, plant=lambda step, fields: None, stored=()) -> None:
    for step in steps:
        fields = states(step)
        plant(step, fields)
        run.record_step(step, {name: commit(run, name, state, stored) for name, state in fields.items()})


def commit(run, name, state, stored):
    if name in stored:
        return run.store(state)
    return counterfoil.commit_tensors(state, keep=name in KEPT)


def plus_one(array: np.ndarray, index: tuple[int, ...]) -> None:
    """The next number of the same sign away from zero."""
    array.view(np.uint32)[index] += 1


@pytest.fixture(scope="module")
def base(home, tmp_path_factory) -> Path:
    return record(tmp_path_factory.mktemp("base") / "run", stored=FIELDS)


@pytest.fixture(scope="module")
def twin(home, tmp_path_factory) -> Path:
    """The same training in another run, so that no two receipts are equal."""
    return record(tmp_path_factory.mktemp("twin") / "run", stored=FIELDS)


# The elements


def widened(tag: str, raw: bytes) -> float | complex | int:
    """The number that these bytes are, by numpy; BF16 is the upper half of a float32."""
    if tag == "BF16":
        return np.frombuffer(bytes(2) + raw, "<f4")[0]
    return np.frombuffer(raw, NUMPY[tag])[0]


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(sorted(ITEMS)), st.lists(st.integers(0, 9), max_size=3), st.data())
def test_the_first_element_is_numpys(tag: str, shape: list[int], data: st.DataObject) -> None:
    """A wrong chunk, index, count, value or distance of any dtype would differ from what numpy says."""
    item, count = ITEMS[tag], int(np.prod(shape, dtype=int))
    seed, many = data.draw(st.integers(0, 2**32)), data.draw(st.integers(0, 3))
    draw = np.random.default_rng(seed)
    ours = bytearray(
        draw.bytes(count * item) if tag != "BOOL" else draw.integers(0, 2, count, np.uint8).tobytes()
    )
    theirs = bytearray(ours)
    for _ in range(many if count else 0):
        place = int(draw.integers(0, count * item))
        theirs[place] ^= 1 if tag == "BOOL" else int(draw.integers(1, 256))
    found = _native.first_element(tag, shape, bytes(ours), bytes(theirs))
    one, other = (np.frombuffer(bytes(side), f"V{item}") for side in (ours, theirs))
    different = np.flatnonzero(one != other)
    if not len(different):
        assert found is None
        return
    position = int(different[0])
    assert found["differing"] == len(different)
    assert found["chunk"] == position * item // 1024
    assert (
        tuple(found["index"])
        == tuple(int(i) for i in np.unravel_index(position, shape or (1,)))[: len(shape)]
    )
    raws = [side[position * item : (position + 1) * item] for side in (ours, theirs)]
    for raw, text in zip(raws, (found["ours"], found["theirs"]), strict=True):
        check_value(tag, bytes(raw), text)
    assert found["ulps"] == distance(tag, *map(bytes, raws))


def check_value(tag: str, raw: bytes, text: str) -> None:
    bits = int.from_bytes(raw, "little")
    if tag.startswith("F8"):
        assert text == f"0x{bits:02x}"
    elif tag == "C64":
        shown, _, hexadecimal = text.partition(" (")
        assert hexadecimal == f"0x{bits & 0xFFFFFFFF:08x} 0x{bits >> 32:08x})"
        assert shown.endswith("j")
    elif "F" in tag:
        shown, _, hexadecimal = text.partition(" (")
        assert hexadecimal == f"0x{bits:0{2 * len(raw)}x})"
        number = widened(tag, raw)
        kind = np.float32 if tag == "BF16" else np.dtype(NUMPY[tag]).type
        with np.errstate(over="ignore"):
            assert kind(shown) == number or (np.isnan(number) and shown == "NaN")
    elif tag == "BOOL":
        assert text == str(bool(bits)).lower()
    else:
        assert int(text) == widened(tag, raw)


def distance(tag: str, one: bytes, other: bytes) -> int | None:
    if tag not in ("F16", "BF16", "F32", "F64"):
        return None
    numbers = [float(widened(tag, raw)) for raw in (one, other)]
    if not np.isfinite(numbers).all() or np.signbit(numbers[0]) != np.signbit(numbers[1]):
        return None
    return abs(int.from_bytes(one, "little") - int.from_bytes(other, "little"))


def test_known_elements() -> None:
    """A shortest decimal that is not the shortest, or half-precision numbers that are read as others."""

    def values(tag: str, one: int, other: int) -> tuple[str, str]:
        raw = [bits.to_bytes(ITEMS[tag], "little") for bits in (one, other)]
        found = _native.first_element(tag, [], *raw)
        return found["ours"], found["theirs"]

    assert values("F32", 0x3DCCCCCD, 0x7F800000) == ("0.1 (0x3dcccccd)", "inf (0x7f800000)")
    assert values("F16", 0x0001, 0x7BFF) == ("5.9604645e-8 (0x0001)", "65504.0 (0x7bff)")
    assert values("F16", 0xFC00, 0x7E01) == ("-inf (0xfc00)", "NaN (0x7e01)")
    assert values("BF16", 0x3F80, 0x8000) == ("1.0 (0x3f80)", "-0.0 (0x8000)")
    assert values("C64", 0x400000003F800000, 0xC00000003F800000) == (
        "1.0+2.0j (0x3f800000 0x40000000)", "1.0-2.0j (0x3f800000 0xc0000000)",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "shape", "ours", "theirs"),
    [
        ("F32", [2], bytes(8), bytes(7)),
        ("F32", [2**62, 8], b"", b""),
        ("F99", [1], b"1", b"2"),
        ("U8", [0], b"1", b"2"),
    ],
)
def test_bytes_that_are_no_such_tensors_are_refused(dtype, shape, ours, theirs) -> None:
    with pytest.raises(InvalidInput):
        _native.first_element(dtype, shape, ours, theirs)


# Records


def test_equal_trainings_do_not_differ(base: Path, tmp_path: Path) -> None:
    """Nonces, times and blinds differ in every receipt, and are no difference."""
    again = record(tmp_path / "again")
    found = counterfoil.diff(base, again)
    assert (found.first, found.steps, found.gaps) == (None, STEPS, ())
    assert found.fields == STEPS * (len(FIELDS) + 1)
    assert str(found) == f"nothing differs in {STEPS} steps ({STEPS * (len(FIELDS) + 1)} fields)"


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_planted_element_is_located(base: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Any field, tensor and element of any step; one that is found elsewhere, or one step later, is wrong."""
    at, field = data.draw(st.integers(1, STEPS)), data.draw(st.sampled_from(FIELDS))
    name, shape = data.draw(st.sampled_from(sorted(SHAPES.get(field, WHOLE).items())))
    position = data.draw(st.integers(0, int(np.prod(shape, dtype=int)) - 1))
    index = tuple(int(i) for i in np.unravel_index(position, shape)) if shape else ()

    def plant(step: int, fields: dict) -> None:
        if step == at:
            if shape:
                plus_one(fields[field][name], index)
            else:
                fields[field][name] = np.nextafter(fields[field][name], np.float32(9e9))

    shutil.rmtree(tmp_path / "planted", ignore_errors=True)
    # Of what is kept by value, one side's bytes may be an object and the other's stand in the journal.
    stored = () if field in KEPT and data.draw(st.booleans()) else (field,)
    other = record(tmp_path / "planted", plant, stored=stored)
    for one, two in ((base, other), (other, base)):
        found = counterfoil.diff(one, two).first
        assert (found.step, found.kind, found.field, found.tensor) == (at, "step", field, name)
        assert (found.chunk, found.index, found.ulps, found.differing) == (position * 4 // 1024, index, 1, 1)
        assert found.notes == ()
    honest, planted = states(at)[field][name][index], found.ours
    changed = states(at)
    plant(at, changed)
    assert struct.pack("<f", changed[field][name][index])[::-1].hex() in planted
    assert struct.pack("<f", honest)[::-1].hex() in found.theirs


def test_the_first_of_several_differences_counts(base: Path, tmp_path: Path) -> None:
    """Fields in the order of the receipt's type would name the parameters before the learning rate."""

    def plant(step: int, fields: dict) -> None:
        if step >= 2:
            for state in fields.values():
                for name in state:
                    state[name] = state[name] + np.float32(1)

    found = counterfoil.diff(base, record(tmp_path / "run", plant)).first
    assert (found.step, found.field, found.tensor) == (2, "hyperparameters", "0/betas")


def test_a_forged_loss_alone_is_found(base: Path, tmp_path: Path) -> None:
    """It changes no state: who compares states at midpoints never sees it."""

    def plant(step: int, fields: dict) -> None:
        if step == 2:
            fields["metrics"]["loss"] = np.float32(0.125)

    found = counterfoil.diff(base, record(tmp_path / "run", plant)).first
    assert (found.step, found.field, found.tensor, found.theirs) == (
        2,
        "metrics",
        "loss",
        "0.125 (0x3e000000)",
    )
    assert found.diagnosis.endswith(
        "everything before is equal: forged, other code or precision, or nondeterminism"
    )


@pytest.mark.parametrize(
    ("change", "ours", "theirs"),
    [
        (lambda state: state.pop("b.weight"), "F32 [20, 31]", "no such tensor"),
        (lambda state: state.update(a=state["a"].astype(np.float64)), "F32 [7, 3]", "F64 [7, 3]"),
        (lambda state: state.update(a=state["a"].reshape(3, 7)), "F32 [7, 3]", "F32 [3, 7]"),
        (lambda state: state.update(c=None), "F32 [1]", "absent"),
        (lambda state: state.update(z=counterfoil.Alias("a")), "no such tensor", "the same as a"),
    ],
)
def test_names_dtypes_and_shapes_are_compared(
    base: Path, tmp_path: Path, change, ours: str, theirs: str
) -> None:
    """Equal bytes under another shape, or a name that only one side has, must not pass as equal."""

    def plant(step: int, fields: dict) -> None:
        if step == 3:
            change(fields["gradients"])

    found = counterfoil.diff(base, record(tmp_path / "run", plant)).first
    assert (found.step, found.field, found.ours, found.theirs) == (3, "gradients", ours, theirs)
    assert found.index is None


def test_bytes_that_one_side_lacks_are_named(base: Path, tmp_path: Path) -> None:
    """The tensor is known by its roots, and no element is invented."""

    def plant(step: int, fields: dict) -> None:
        if step == 3:
            plus_one(fields["gradients"]["b.weight"], (4, 5))

    found = counterfoil.diff(base, record(tmp_path / "run", plant)).first
    assert (found.tensor, found.index, found.ulps) == ("b.weight", None, None)
    assert found.ours == "its bytes are stored"
    assert found.theirs == "its bytes are not stored: attach with checkpoint_every=1 and store_gradients=True"
    assert found.ours_root != found.theirs_root


def test_a_skipped_step_is_a_difference(tmp_path: Path) -> None:
    """Flags that speak of the recorder are none: one run had no recipe."""
    for name, flags in (("made", 0), ("remarked", 6), ("skipped", 1)):
        with counterfoil.Run.create(tmp_path / name) as run:
            run.record_step(1, {"metrics": counterfoil.commit_tensors({"loss": 1.0}, keep=True)}, flags=flags)
    assert counterfoil.diff(tmp_path / "made", tmp_path / "remarked").first is None
    found = counterfoil.diff(tmp_path / "made", tmp_path / "skipped").first
    assert (found.field, found.ours, found.theirs) == ("flags", "made", "skipped")


def test_a_training_that_ended_earlier_differs_behind_its_end(base: Path, tmp_path: Path) -> None:
    found = counterfoil.diff(base, record(tmp_path / "run", steps=2))
    assert (found.steps, found.first.step, found.first.field) == (2, 3, "")
    assert (found.first.ours, found.first.theirs) == ("recorded", "not recorded: 2 is the last")


def test_other_cadences_are_gaps(tmp_path: Path) -> None:
    """A field that only one side commits to is no difference, and must not pass in silence."""
    fields = {"metrics": counterfoil.commit_tensors({"loss": 1.0}, keep=True)}
    for name, more in (("one", {}), ("two", {"parameters": counterfoil.commit_tensors({"w": 1.0})})):
        with counterfoil.Run.create(tmp_path / name) as run:
            run.record_step(1, fields | more)
            if more:
                run.record_checkpoint(1, more)
    found = counterfoil.diff(tmp_path / "one", tmp_path / "two")
    assert found.first is None
    assert found.gaps == (
        "1 checkpoint: only one record shows them",
        "parameters of 1 step: only one record commits to them",
    )


def test_initial_states_are_compared_first(tmp_path: Path) -> None:
    """Other weights at the beginning are the cause, whatever step 1 shows."""
    for name, seed in (("one", 1), ("two", 2)):
        with counterfoil.Run.create(tmp_path / name, spec={"seed": seed}) as run:
            weights = run.store({"w": np.float32([0, seed, 3])})
            run.record_checkpoint(0, {"parameters": weights})
            run.record_step(
                1, {"hyperparameters": counterfoil.commit_tensors({"0/lr": 0.1 * seed}, keep=True)}
            )
    found = counterfoil.diff(tmp_path / "one", tmp_path / "two").first
    assert (found.step, found.kind, found.tensor, found.index) == (0, "checkpoint", "w", (1,))
    assert found.diagnosis == (
        "the trainings began from other values: other seed or other initial weights; "
        "the specifications differ in seed (1 | 2)"
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_environments_are_context_and_no_difference(tmp_path: Path, threads: int) -> None:
    """Of the nearest checkpoint: what was loaded later is no cause of an earlier step."""

    def begin(path: Path, used: int, gradient: float) -> Path:
        same = {"batch": counterfoil.commit_tensors({"x": 1.0}, keep=True)}
        state = counterfoil.commit_tensors({"w": 1.0}, keep=True)
        with counterfoil.Run.create(path) as run:
            for step, count in enumerate((used, 7), 0):
                environment = counterfoil.commit_tensors({"threads": count, "torch": "2.15"}, keep=True)
                run.record_checkpoint(step, {"parameters": state, "environment": environment})
                found = counterfoil.commit_tensors({"w": gradient}, keep=True)
                run.record_step(step + 1, same | {"gradients": found, "parameters": state})
        return path

    one, same, other = (
        begin(tmp_path / name, count, gradient)
        for name, count, gradient in (("one", 1, 0.5), ("same", threads, 0.5), ("other", threads, 0.75))
    )
    assert counterfoil.diff(one, same).first is None
    found = counterfoil.diff(one, other).first
    assert (found.step, found.field) == (1, "gradients")
    assert found.diagnosis == (
        "gradients differ: everything before is equal: forged, other code or precision, or nondeterminism"
        if threads == 1
        else "gradients differ: the inputs are equal and the environments differ in threads (1 | 2): expect other bits"
    )


def test_steps_that_a_resume_left_behind_are_not_compared(base: Path, tmp_path: Path) -> None:
    """They led nowhere; what was computed again counts, and a difference there is found."""

    def wrong(step: int, fields: dict) -> None:
        plus_one(fields["gradients"]["a"], (0, 0))

    def resumed(path: Path, plant) -> Path:
        with counterfoil.Run.create(path) as run:
            add(run, [1, 2])
            add(run, [3, 4], wrong)
            run.record_resume(2, 2)
            add(run, [3], plant)
            run.record_resume(2, 2)
            add(run, [3, 4])
        return path

    assert counterfoil.diff(base, resumed(tmp_path / "good", wrong)).first is None
    again = resumed(tmp_path / "again", wrong)
    with counterfoil.Run.open(again) as run:
        run.record_resume(3, 2)
        add(run, [4], wrong)
    found = counterfoil.diff(base, again).first
    assert (found.step, found.field, found.tensor) == (4, "gradients", "a")


# Lanes


def ranked(path: Path, values: list[float], keys=None) -> Path:
    """One lane for each value, with these keys or the device's."""
    keys = keys or [None] * len(values)
    runs = [counterfoil.Run.create(path, key=keys[0])]
    runs += [
        counterfoil.Run.join(path, lane=lane, rank=lane, key=key) for lane, key in enumerate(keys[1:], 1)
    ]
    for lane, (run, value) in enumerate(zip(runs, values, strict=True)):
        for step in (1, 2):
            number = value if step == 2 else float(lane)
            run.record_step(step, {"gradients": counterfoil.commit_tensors({"w": number}, keep=True)})
        run.close()
    return path


def test_the_earliest_difference_of_all_lanes_counts(tmp_path: Path) -> None:
    """A lane that is looked at first and differs later must not hide it; the lane is named."""
    one = ranked(tmp_path / "one", [1.0, 1.0, 1.0])
    found = counterfoil.diff(one, ranked(tmp_path / "two", [1.0, 1.0, 3.0])).first
    assert (found.step, found.lane.rpartition("/")[2], found.theirs.split()[0]) == (2, "2", "3.0")
    late = ranked(tmp_path / "late", [2.0, 1.0, 1.0])
    with counterfoil.Run.join(late, lane=3) as run:
        run.record_step(1, {"gradients": counterfoil.commit_tensors({"w": 5.0}, keep=True)})
    early = ranked(tmp_path / "early", [1.0, 1.0, 1.0])
    with counterfoil.Run.join(early, lane=3) as run:
        run.record_step(1, {"gradients": counterfoil.commit_tensors({"w": 6.0}, keep=True)})
    found = counterfoil.diff(late, early).first
    assert (found.step, found.lane.rpartition("/")[2]) == (1, "3")


def test_lanes_of_other_keys_are_paired_by_number(tmp_path: Path) -> None:
    """Keys that are made for each run sort anyhow: lane 1 must not be compared with lane 2."""
    for attempt in range(3):
        one, two = (
            ranked(
                tmp_path / f"{name}{attempt}", [1.0, 2.0, 3.0], [counterfoil.Key.generate() for _ in range(3)]
            )
            for name in ("one", "two")
        )
        found = counterfoil.diff(one, two)
        assert (found.first, found.steps, found.gaps) == (None, 6, ())


def test_a_lane_that_only_one_record_has_is_a_difference(tmp_path: Path) -> None:
    one, two = ranked(tmp_path / "one", [1.0, 1.0]), ranked(tmp_path / "two", [9.0])
    found = counterfoil.diff(one, two).first
    assert (found.kind, found.lane.rpartition("/")[2]) == ("lane", "1")
    assert (found.ours, found.theirs) == ("recorded", "no such lane")
    assert counterfoil.diff(two, one).first.ours == "no such lane"


def test_rounds_of_a_federation_are_compared(tmp_path: Path) -> None:
    """A run without steps would otherwise be equal to any other one."""
    for name, value in (("one", 1.0), ("two", 1.0), ("three", 2.0)):
        with counterfoil.Run.create(tmp_path / name) as run:
            for number in (1, 2):
                sent = counterfoil.commit_tensors({"w": value if number == 2 else 0.0}, keep=True)
                run.record_round(number, 0, received=sent, sent=sent, metrics=sent)
    assert counterfoil.diff(tmp_path / "one", tmp_path / "two").first is None
    found = counterfoil.diff(tmp_path / "one", tmp_path / "three").first
    assert (found.kind, found.step, found.field) == ("round", 2, "received")


# Bundles


def export(path: Path, to: Path, **options) -> Path:
    counterfoil.export(path, to, **options)
    return to


def test_bundles_are_compared_as_far_as_they_show(base: Path, tmp_path: Path) -> None:
    """A withheld step is no missing one, and what is not shown is said."""

    def plant(step: int, fields: dict) -> None:
        if step == 3:
            fields["metrics"]["loss"] = np.float32(2)

    other = record(tmp_path / "run", plant)
    whole = export(other, tmp_path / "whole")
    assert counterfoil.diff(base, whole).first.step == 3
    shown = export(other, tmp_path / "shown", steps=[1, 2, 4])
    found = counterfoil.diff(base, shown)
    assert (found.first, found.steps) == (None, 3)
    assert found.gaps == (
        "1 receipt: the second record withholds them",
        "1 step: only one record shows them",
    )
    sealed = export(other, tmp_path / "sealed", tensors=())
    found = counterfoil.diff(sealed, base)
    assert (found.first, found.fields) == (None, STEPS)
    assert f"gradients of {STEPS} steps: only one record opens them" in found.gaps


def test_single_tensors_of_a_bundle_are_compared(base: Path, tmp_path: Path) -> None:
    """A bundle that opens one tensor shows a difference in it, and none in those it does not show."""

    def plant(step: int, fields: dict) -> None:
        if step == 3:
            plus_one(fields["parameters"]["a"], (1, 1))

    other = record(tmp_path / "run", plant)
    one = export(other, tmp_path / "one", tensors=["parameters/a"])
    found = counterfoil.diff(one, base).first
    assert (found.step, found.field, found.tensor) == (3, "parameters", "a")
    chunk = export(other, tmp_path / "chunk", tensors={"parameters/a": 0})
    assert counterfoil.diff(chunk, base).first.tensor == "a"
    another = counterfoil.diff(export(other, tmp_path / "another", tensors=["parameters/c"]), base)
    assert another.first is None
    assert f"parameters of {STEPS} steps: not all tensors are opened as wholes" in another.gaps


def test_blocks_of_two_divisions_are_a_gap(tmp_path: Path) -> None:
    """Equal tensors that were divided otherwise have other roots."""
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    divisions = {
        "rows": [counterfoil.commit_block(matrix[:2], (0, 0)), counterfoil.commit_block(matrix[2:], (2, 0))],
        "columns": [
            counterfoil.commit_block(matrix[:, :1], (0, 0)),
            counterfoil.commit_block(matrix[:, 1:], (0, 1)),
        ],
    }
    for name, blocks in divisions.items():
        with counterfoil.Run.create(tmp_path / name) as run:
            whole = counterfoil.Sharded("F32", (4, 3), blocks)
            run.record_step(1, {"parameters": counterfoil.commit_tensors({"w": whole})})
    found = counterfoil.diff(tmp_path / "rows", tmp_path / "columns")
    assert (found.first, found.gaps) == (
        None,
        ("parameters of 1 step: not all tensors are opened as wholes",),
    )


# What is not to be believed


def test_an_opening_that_was_not_signed_is_named(base: Path, twin: Path, tmp_path: Path) -> None:
    """Who changes an opening would otherwise accuse a training of what its receipts do not say."""
    forged = Path(shutil.copytree(twin, tmp_path / "forged"))
    receipts = [r for r in counterfoil.Record(forged).receipts() if r.kind == "step"]

    def change(payloads: list[bytes]) -> list[bytes]:
        at = next(
            place
            for place, payload in enumerate(payloads)
            if payload[:1] == b"O" and payload[1:33] == receipts[1].digest
        )
        frame = oracle.OpeningFrame.decode(payloads[at])
        (index,) = [i for i, field in enumerate(frame.fields) if len(field.payload) == 32]
        fields = list(frame.fields)
        fields[index] = replace(fields[index], payload=bytes(32))
        return [*payloads[:at], replace(frame, fields=tuple(fields)).encode(), *payloads[at + 1 :]]

    forgery.rewrite(forged, change)
    found = counterfoil.diff(forged, base).first
    assert (found.step, found.field) == (2, "metrics")
    (note,) = found.notes
    assert note.startswith("the first record: the opening of metrics is not the signed one")
    (note,) = counterfoil.diff(base, forged).first.notes
    assert note.startswith("the second record: ")


def test_stored_bytes_that_are_not_the_tensors_are_named(base: Path, tmp_path: Path) -> None:
    def plant(step: int, fields: dict) -> None:
        if step == 3:
            plus_one(fields["parameters"]["a"], (1, 1))

    other = record(tmp_path / "run", plant)
    root = counterfoil.diff(base, other).first.theirs_root
    (other / "objects" / root[2:]).write_bytes(bytes(7 * 3 * 4))
    found = counterfoil.diff(base, other).first
    assert (found.tensor, found.index, found.ours) == ("a", None, "its bytes are stored")
    assert found.theirs.startswith("its bytes are damaged: ")


def test_damage_anywhere_is_an_error_or_a_finding(base: Path, twin: Path, tmp_path: Path) -> None:
    """A damaged byte may hide steps, and is then named; it never ends the program or passes as equality of all."""
    draw = random.Random(5)
    original = samples.journal(twin).read_bytes()
    copy = Path(shutil.copytree(twin, tmp_path / "copy"))
    for _ in range(150):
        damaged = bytearray(original)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        samples.journal(copy).write_bytes(damaged)
        found = counterfoil.diff(base, copy)
        # What is lost at the end of a journal may be its close alone.
        assert found.first is not None or found.gaps or counterfoil.Record(copy).dropped_bytes
        assert found.first is None or found.first.kind == "step"
    samples.journal(copy).write_bytes(original)
    (copy / "spec.json").write_bytes(b"[" * 100_000)
    assert counterfoil.diff(base, copy).first is None


def test_payloads_changed_at_random_never_end_the_program(base: Path, twin: Path, tmp_path: Path) -> None:
    """Frames that are whole and mean nonsense: lengths, counts and names as a liar would write them."""
    draw = random.Random(6)
    original = oracle.frames(samples.journal(twin).read_bytes())
    copy = Path(shutil.copytree(twin, tmp_path / "copy"))
    compared = 0
    for _ in range(300):
        payloads = list(original)
        at = draw.randrange(1, len(payloads))
        changed = bytearray(payloads[at])
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(len(changed))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
        payloads[at] = bytes(changed)
        samples.journal(copy).write_bytes(oracle.journal(payloads))
        with contextlib.suppress(CorruptJournal, NotFound, InvalidInput):  # a panic is an InternalError
            str(counterfoil.diff(base, copy)), counterfoil.diff(copy, base)
            compared += 1
    assert compared > 100


def test_the_story_has_ten_lines_at_most(base: Path, tmp_path: Path) -> None:
    def plant(step: int, fields: dict) -> None:
        if step == 3:
            plus_one(fields["parameters"]["b.weight"], (11, 2))

    other = record(tmp_path / "run", plant)
    lines = str(counterfoil.diff(base, other)).splitlines()
    assert lines[0] == "first difference: step 3: parameters 'b.weight' at [11, 2] (chunk 1)"
    assert lines[2].endswith("(1 ulp apart; elements that differ: 1)")
    assert lines[3] == (
        "  gradients and everything before are equal, parameters differ: "
        "the update is not the one of the recorded hyperparameters"
    )
    hidden = export(other, tmp_path / "hidden", steps=[1], tensors=["parameters/a"])
    lines = str(counterfoil.diff(hidden, base)).splitlines()
    assert len(lines) <= 10
    assert lines[-1].startswith("  not compared: ") and lines[-1].endswith(" more")
    json.dumps(lines)
