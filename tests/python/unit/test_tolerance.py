"""Thresholds and distances, by which steps are judged where bits differ."""

import dataclasses
import json

import pytest
import torch

from counterfoil.errors import InvalidInput
from counterfoil.torch import Calibration
from counterfoil.torch.tolerance import LIMIT, MARGIN, distances


@pytest.fixture
def thresholds():
    return Calibration(
        recipe="0x" + "11" * 32,
        spec="22" * 32,
        recorded={"torch": "2.15", "ATEN_CPU_CAPABILITY": None},
        local={"torch": "2.15", "threads": 2},
        environments=("threads=1", "roundings"),
        steps={"0xab lane 0": (1, 4)},
        noise={"gradients/a": 3e-7, "gradients/b": 1e-8, "update/a": 0.5, "metrics/loss": 4.8e-7},
        cheats={"one sample of a batch left out": 900.0},
    )


def test_thresholds_are_read_as_they_were_written(tmp_path, thresholds):
    file = tmp_path / "calibration.json"
    thresholds.save(file)
    assert Calibration.load(file) == thresholds and Calibration.load(file).digest == thresholds.digest
    document = json.loads(file.read_text())
    for damaged in (
        {"noise": {"gradients/x": "1"}},
        {"noise": {"gradients/x": float("nan")}},
        {"steps": {"": [float("inf")]}},
        {"recorded": 5},
        {"local": [1]},
        {"recipe": None},
        {"steps": 3},
        {"more": 1},
        {"noise": 1},
    ):
        file.write_text(json.dumps(document | damaged))
        with pytest.raises(InvalidInput, match="is no calibration"):
            Calibration.load(file)
    file.write_text("[" * 100_000)
    with pytest.raises(InvalidInput, match="is no calibration"):
        Calibration.load(file)


def test_whoever_made_the_run_cannot_widen_the_thresholds_beyond_the_limit(thresholds):
    """The states at which honest executions differ are the prover's."""
    wide = dataclasses.replace(thresholds, noise=dict.fromkeys(thresholds.noise, 1.0))
    assert {wide.accepted(unit) for unit in wide.noise if not unit.startswith("update/")} == {LIMIT}


def test_thresholds_say_what_they_hide(thresholds):
    """In a coarse precision a sample can be left out unseen, and the verdict has to say so."""
    coarse = dataclasses.replace(thresholds, cheats={"one sample of a batch left out": 0.7, "other": 50.0})
    assert coarse.not_seen()[1:] == ["any update of a", "one sample of a batch left out"]
    assert (
        "one sample of a batch left out (not tried)"
        in dataclasses.replace(thresholds, cheats={"one sample of a batch left out": None}).not_seen()
    )
    assert thresholds.accepted("gradients/b") == MARGIN * 1e-8
    assert (
        thresholds.accepted("gradients/unknown") == MARGIN * 3e-7
        and thresholds.accepted("buffers/unknown") == 0
    )


def test_distances_of_what_is_no_number_or_another_shape_are_infinite():
    """A NaN compares false with every threshold, and so would pass."""
    ours = {"gradients": {"a": torch.tensor([1.0, 2.0]), "b": None}}
    for theirs in (torch.tensor([1.0, float("nan")]), torch.tensor([1.0]), torch.tensor([1, 2]), None):
        assert distances(ours, {"gradients": {"a": theirs, "b": None}})["gradients/a"] == float("inf")
    assert distances(ours, {"gradients": {"a": ours["gradients"]["a"]}}) == {
        "gradients/a": 0.0,
        "gradients/b": 0.0,
    }
    nan = {"gradients": {"a": torch.tensor([float("nan")])}}
    assert distances(nan, {"gradients": {"a": torch.tensor([float("nan")])}})["gradients/a"] == 0.0
    assert distances(nan, {"gradients": {"a": torch.tensor([1.0])}})["gradients/a"] == float("inf")
