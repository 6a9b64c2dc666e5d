"""`counterfoil simulate economy`: its exit codes, its JSON, and its pictures."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from counterfoil import cli, economy
from counterfoil.economy import CLAIMS, Parameters


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the command with the claims that are quick: (exit code, standard output, error output)."""
    quick = tuple(each for each in CLAIMS if each.name in ("canaries", "flooding", "sortition-splitting"))
    monkeypatch.setattr(economy, "CLAIMS", quick)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["counterfoil", "simulate", "economy", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return run


def test_the_default_market_holds(simulate) -> None:
    code, output, _ = simulate()
    assert code == 0, output
    assert "0 disagree" in output
    assert "0 fail; seed 0" in output
    assert "1500000000000000000" in output, "the parameters are not printed"
    assert "with odds 0.122 instead of 0.1" in " ".join(output.split())


def test_a_deployment_that_fails_ends_with_1_and_says_what_mends_it(simulate, tmp_path: Path) -> None:
    """A failing condition that a script would not notice."""
    file = tmp_path / "deployment.json"
    file.write_text(json.dumps({"stake": 5 * 10**17}))
    code, output, _ = simulate("--parameters", file)
    assert code == 1
    assert "stake 0.5 is not above 1" in output
    assert "set it above 1" in output


def test_a_simulation_that_disagrees_ends_with_1(simulate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disagreement that only the table shows."""
    from dataclasses import replace

    wrong = replace(economy.CLAIMS[0], expected=lambda _: 0.2)
    monkeypatch.setattr(economy, "CLAIMS", (wrong,))
    code, output, _ = simulate()
    assert code == 1
    assert "DISAGREES" in output


def test_json_has_every_number_and_is_the_same_for_a_seed(simulate) -> None:
    code, output, _ = simulate("--json", "--seed", 3)
    document = json.loads(output)
    assert code == 0
    assert document["seed"] == 3
    assert document["parameters"]["reward"] == Parameters().reward
    assert {each["name"] for each in document["claims"]} == {"canaries", "flooding", "sortition-splitting"}
    assert all(each["holds"] for each in document["claims"] + document["conditions"])
    assert simulate("--json", "--seed", 3)[1] == output


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--parameters", "nowhere.json"), "not-found"), (("--plot", "picture.txt"), "invalid-input")],
)
def test_what_cannot_be_read_or_drawn_has_its_error(simulate, arguments: tuple[str, ...], code: str) -> None:
    exit_code, output, _ = simulate(*arguments, "--json")
    assert exit_code == 1
    assert json.loads(output)["error"] == code


def test_without_matplotlib_a_picture_says_what_to_install(simulate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The general hint of this program, which names torch."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, error = simulate("--plot", "picture.svg")
    assert code == 1
    assert "pip install 'counterfoil[plots]'" in error
    assert "torch" not in error


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
@pytest.mark.parametrize(("name", "start"), [("p.svg", b"<?xml"), ("p.png", b"\x89PNG")])
def test_a_picture_is_drawn(simulate, tmp_path: Path, name: str, start: bytes) -> None:
    """A picture whose parts do not fit the claims any more."""
    code, output, error = simulate("--plot", tmp_path / name)
    assert code == 0, output + error
    assert (tmp_path / name).read_bytes().startswith(start)
