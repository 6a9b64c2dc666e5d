"""Runs that several machines record without a common folder."""

import numpy as np
import pytest

import counterfoil
from counterfoil.errors import InvalidInput
from counterfoil.invitation import invite, join, journal_name, place


@pytest.fixture
def owner(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text("def build():\n    pass\n")
    with counterfoil.Run.create(tmp_path / "owner", spec={"seed": 1}, recipe=recipe) as run:
        yield run


def test_a_lane_is_joined_from_the_invitation_and_continued(owner, tmp_path):
    files = invite(owner)
    assert sorted(files) == ["recipe/recipe.py", "spec.json", journal_name(owner.worker, 0)]
    key, state = counterfoil.Key.generate(), counterfoil.commit_tensors({"w": np.zeros(2, np.float32)})
    for step in (1, 2):
        with join(tmp_path / "other", owner.id, files, lane=1, key=key) as run:
            run.record_step(step, {"gradients": state})
    assert counterfoil.Record(tmp_path / "other").run == owner.id
    assert counterfoil.verify(tmp_path / "other").status == "verified"


def test_the_invitation_does_not_grow_with_the_run(owner):
    before = invite(owner)
    owner.record_step(1, {"gradients": counterfoil.commit_tensors({"w": np.zeros(2, np.float32)})})
    assert invite(owner) == before


def test_a_folder_of_another_run_is_refused(owner, tmp_path):
    with counterfoil.Run.create(tmp_path / "third") as third:
        files = invite(third)
        with join(tmp_path / "other", third.id, files, lane=1):
            pass
    with pytest.raises(InvalidInput, match="another run") as refused:
        join(tmp_path / "other", owner.id, invite(owner), lane=1)
    assert refused.value.expected == owner.id


def test_a_folder_of_something_else_is_left_alone(owner, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="not empty"):
        join(tmp_path / "other", owner.id, invite(owner), lane=1)


@pytest.mark.parametrize(
    "name",
    [
        "../out",
        "/out",
        "recipe/../../out",
        "recipe/./x.py",
        "recipe/..",
        "recipe//x.py",
        "recipe\\x.py",
        "recipe/x.py\n",
        "workers/0x00/0/journal",
        "workers/" + "0x" + "0" * 40 + "/../journal",
        "objects/" + "0" * 64,
        "",
    ],
)
def test_a_file_that_is_none_of_a_run_is_not_written(tmp_path, name):
    with pytest.raises(InvalidInput, match="no file of a run"):
        place(tmp_path / "folder", {name: b"x", "spec.json": b"{}"})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
