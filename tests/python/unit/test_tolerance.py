"""Thresholds and distances, by which steps are judged where bits differ."""

import dataclasses
import importlib
import json

import pytest
import torch

from counterfoil.errors import InvalidInput
from counterfoil.torch import Calibration, child, hooks
from counterfoil.torch.demo import mlp
from counterfoil.torch.tolerance import LIMIT, MARGIN, distances

# The function of the same name hides the module from `from ... import`.
calibrating = importlib.import_module("counterfoil.torch.calibrate")


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


def test_one_step_at_which_honest_executions_differ_widely_widens_no_threshold():
    """Whoever made the run can make such a step: a batch whose samples cancel is enough."""
    measured = object.__new__(calibrating._Measured)
    measured._noise = {"gradients/a": {1: 1e-7, 2: 2e-7, 3: 0.5}, "gradients/b": {1: 0.0}}
    measured._floors = {"gradients/a": 1e-8, "gradients/b": 1e-8}
    assert measured._usual("gradients/a") == 2e-7 and measured._usual("gradients/b") == 4e-8


def test_a_process_lets_go_of_the_model_that_it_judged_before():
    """Each step is judged with a recipe that is built anew: a hundred large models would fill the memory."""
    before = len(hooks._watched)
    for _ in range(3):
        child.Execution(mlp.recipe, {"seed": 1, "hidden": 4, "learning_rate": 0.1}).end()
    assert len(hooks._watched) == before


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
