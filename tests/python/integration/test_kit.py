"""What `counterfoil new` writes trains, verifies and refutes as it is; what it may not write, it says."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from counterfoil import errors
from counterfoil.cli.new import write
from oracle import ROOT

LINES = 40
"""Most lines of the training script, which a newcomer reads first."""


def run(*arguments: str | Path, cwd: Path, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "COUNTERFOIL_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    write(tmp_path / "digits")
    return tmp_path / "digits"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_kit_runs_as_it_is_written(kit: Path, tmp_path: Path) -> None:
    """Each command that is printed; and a second training, which must not fail for the first one's folder."""
    for script, said in [
        ("train.py", "runs/1 is recorded"),
        ("verify.py", "replayed 10 of 60"),
        ("train.py", "runs/2 is recorded"),
    ]:
        result = run(script, cwd=kit, home=tmp_path / "home")
        assert result.returncode == 0, result.stdout + result.stderr
        assert said in result.stdout
    result = run("-m", "pytest", "-q", cwd=kit, home=tmp_path / "home")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "9 passed" in result.stdout


def test_the_exit_codes_of_the_kits_verifier(kit: Path, tmp_path: Path) -> None:
    """An error must not read as an accusation, nor a bundle without steps as a pass."""
    recorded = ROOT / "examples/recorded"
    (kit / "published.json").write_text(
        f'{{"run": "{recorded}", "signer": null, "recipe": null, "network": "dev"}}'
    )
    result = run("verify.py", cwd=kit, home=tmp_path / "home")
    assert (result.returncode, result.stdout) == (1, ""), result.stderr
    assert "the recipe is the prover's code and was not run" in result.stderr
    stranger = "0x" + "11" * 20
    (kit / "published.json").write_text(
        f'{{"run": "{recorded}", "signer": "{stranger}", "recipe": null, "network": "dev"}}'
    )
    result = run("verify.py", cwd=kit, home=tmp_path / "home")
    assert result.returncode == 3, result.stderr
    assert result.stdout.startswith("refuted")


def test_the_training_script_is_short_and_the_kit_is_clean(kit: Path) -> None:
    assert len((kit / "train.py").read_text().splitlines()) <= LINES
    for command in (
        ["check", "--select=B,C4,E,F,I,N,PIE,RET,RUF,SIM,UP,W"],
        ["format", "--check"],
    ):
        result = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length=110", "."],
            cwd=kit,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr


def test_nothing_is_left_to_fill_in(kit: Path) -> None:
    """A placeholder that no name replaced would reach the reader."""
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    assert f"counterfoil[torch]>={version}\n" in (kit / "requirements.txt").read_text()
    files = [path for path in kit.rglob("*") if path.is_file()]
    assert {path.relative_to(kit).as_posix() for path in files} == {
        ".github/workflows/evidence.yml", ".gitignore", "README.md", "recipe.py", "requirements.txt",
        "test_evidence.py", "train.py", "verify.py",
    }  # fmt: skip
    for path in files:
        assert "@NAME@" not in path.read_text() and "@VERSION@" not in path.read_text()
    readme = (kit / "README.md").read_text()
    assert readme.startswith("# digits\n")
    for name in ("recipe.py", "train.py", "verify.py", "test_evidence.py", "requirements.txt"):
        assert f"| `{name}` |" in readme


@pytest.mark.parametrize("name", ["-rf", "a b", ".", "..", "", "x;y", "x" * 101, "sub/.git", "a\nb"])
def test_a_name_that_a_shell_would_read_otherwise_is_refused(tmp_path: Path, name: str) -> None:
    """The name stands in commands that people paste."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(errors.InvalidInput, match="type: counterfoil new"):
        write(tmp_path / name if name not in ("", ".", "..") else Path(name))
    assert sorted(tmp_path.rglob("*")) == before


def test_what_exists_is_left_as_it_is_and_a_free_name_is_offered(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    with pytest.raises(errors.RunExists) as refused:
        write(tmp_path / "empty")
    assert refused.value.where == str(tmp_path / "empty")
    assert str(refused.value).endswith(f"type: counterfoil new {tmp_path / 'empty-2'}")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "file-2").write_text("mine too")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name, free in [("file", "file-3"), ("link", "link-2")]:
        with pytest.raises(errors.RunExists, match=f"{free}$"):
            write(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(errors.StorageError, match="cannot be written"):
        write(tmp_path / "file" / "below")
