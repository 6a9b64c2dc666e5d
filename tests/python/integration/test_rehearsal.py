"""A rehearsal finds, in a few steps, what would keep a long run from being replayed."""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import counterfoil
from counterfoil import cli
from counterfoil.errors import InvalidInput
from counterfoil.torch import rehearse

SOURCE = """
import os
import torch

def recipe(spec):
    torch.manual_seed(spec.get("seed", 0))
    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Dropout(0.1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    def step(batch, number, log):
        optimizer.zero_grad()
        loss = model(batch).square().sum()
        loss.backward()
        log(loss=loss)
        optimizer.step()

    return model, optimizer, step

def batches(spec):
    return torch.utils.data.DataLoader(torch.rand(9, 8), batch_size=4, shuffle=True)
"""
STEP = "        optimizer.step()\n"


def findings(folder, source, steps=3, **options):
    (folder / "recipe.py").write_text(source)
    return rehearse(folder / "recipe.py", {"seed": 3}, steps=steps, **options)


def bad(found):
    return [(each.what, each.detail) for each in found if not each.ok]


def test_a_recipe_that_replays_is_said_to_and_leaves_no_trace(tmp_path, monkeypatch, capsys):
    """A rehearsal that fails whatever it is given, writes into the user's key folder, or forgets to tell the pin."""
    monkeypatch.setenv("COUNTERFOIL_HOME", str(tmp_path / "home"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "recipe.py").write_text("import layers\n" + SOURCE.replace("torch.nn.Linear", "layers.Linear"))
    (folder / "layers.py").write_text("from torch.nn import Linear\n")
    (folder / "requirements.txt").write_text(f"torch=={version('torch')}")
    before = (list(sys.path), set(sys.modules))
    monkeypatch.setattr(
        sys, "argv", ["counterfoil", "doctor", "recipe", str(folder), "--spec", '{"seed": 3}', "--json"]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    found = json.loads(capsys.readouterr().out)
    with counterfoil.Run.create(tmp_path / "run", recipe=folder, key=counterfoil.Key.generate()) as run:
        digest = counterfoil.Record(run.path).recipe_digest
    assert ended.value.code == 0, found
    assert [(each["what"], each["detail"]) for each in found] == [
        ("replay", "4 of 4 steps came out bit for bit, each from the nearest checkpoint"),
        ("beginning", "the recipe makes the state from which it trained"),
        ("versions", "1 are locked, and none of them is installed otherwise"),
        ("recipe", f"layers.py, recipe.py, requirements.txt: pin {digest}"),
    ]
    assert sys.path == before[0] and not {"recipe", "layers"} & (set(sys.modules) - before[1])
    assert not (tmp_path / "home/device.key").exists()


def test_a_schedule_that_the_recipe_keeps_is_found(tmp_path):
    """From the first checkpoint on it replays, and after a week nobody would wait for that."""
    found = bad(findings(tmp_path, SOURCE.replace(STEP, STEP + "        schedule.step()\n")))
    assert [what for what, _ in found] == ["replay", "step 3"]
    assert found[0][1].startswith("2 of 3 steps") and "first checkpoint only" in found[1][1]


def test_a_module_that_is_no_part_of_the_recipe_is_found(tmp_path):
    """Here it is imported from beside the file, and the confined child has the file alone."""
    (tmp_path / "neighbour.py").write_text("")
    found = bad(findings(tmp_path, "import neighbour\n" + SOURCE, steps=1))
    assert [what for what, _ in found] == ["replay", "sandbox"]
    assert "No module named 'neighbour'" in found[1][1]


def test_what_no_state_explains_is_found_at_its_step_and_tensor(tmp_path):
    noise = "        model[0].bias.grad += os.urandom(1)[0] + 1\n"
    found = bad(findings(tmp_path, SOURCE.replace(STEP, noise + STEP), steps=2))
    assert [what for what, _ in found] == ["replay", "step 1"]
    assert found[0][1].startswith("0 of 2 steps") and "gradients 0.bias" in found[1][1]


def test_a_metric_of_one_machine_and_an_other_version_are_found(tmp_path):
    """The step replays; what was logged beside it does not."""
    metric = "        if os.environ.get('HOME'): log(loss=loss, extra=1)\n"
    script = '# /// script\n# dependencies = ["numpy==0.1"]\n# ///\n'
    (metrics, versions) = bad(findings(tmp_path, script + SOURCE.replace(STEP, metric + STEP), steps=1))
    assert metrics == ("note", "the recipe does not compute the metrics extra")
    assert versions[0] == "versions" and versions[1].startswith("numpy: locked 0.1, installed")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("def batches", "def others", "no function batches(spec)"),
        (STEP, "        raise KeyError('lost')\n", "KeyError: 'lost'"),
        ("import os\n", "import unheard_of\n", "No module named 'unheard_of'"),
        ("    return torch.utils", "    return []\n    torch.utils", "0 of 0 steps"),
    ],
)
def test_a_recipe_that_does_not_train_is_found(tmp_path, old, new, said):
    """An empty rehearsal is no success, and a recipe's own mistake is no fault of this program."""
    (only,) = bad(findings(tmp_path, SOURCE.replace(old, new)))
    assert said in only[1]


def test_data_that_are_not_in_the_recipe_are_handed_over(tmp_path):
    own = findings(tmp_path, SOURCE.replace("def batches", "def others"), 1, batches=iter([torch.ones(2, 8)]))
    assert bad(own) == [] and own[0].detail.startswith("1 of 1 steps")


def test_what_is_no_recipe_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(InvalidInput, match="neither a Python file nor a folder"):
        rehearse(tmp_path)
    with pytest.raises(InvalidInput, match="at least one step"):
        rehearse(tmp_path, steps=0)
    for arguments in (["recipe", "x.py", "--spec", "[1]"], ["recipe", "x.py", "--repair"], ["run", "x.py"]):
        monkeypatch.setattr(sys, "argv", ["counterfoil", "doctor", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2, arguments
    assert "no JSON object" in capsys.readouterr().err


def test_the_users_key_folder_is_in_force_again(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERFOIL_HOME", "before")
    findings(tmp_path, SOURCE.replace(STEP, "        raise KeyError('lost')\n"))
    assert os.environ["COUNTERFOIL_HOME"] == "before" and Path("before").exists() is False
