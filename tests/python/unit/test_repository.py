"""Rules of the repository itself, each also seen to fail where one is planted."""

import hashlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import counterfoil
from counterfoil import _native
from oracle import ROOT

PACKAGE = ROOT / "python" / "counterfoil"
# Where a download would come from is the user's configuration, never ours.
REGISTRY_HOSTS = re.compile(
    r"(pypi\.org|pythonhosted\.org|crates\.io/|registry\.npmjs|download\.pytorch|rust-lang\.org/dist)"
)


def lint_imports(package_parent: Path) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [script, "--config", ROOT / "pyproject.toml", "--no-cache"],
        cwd=package_parent,
        env={**os.environ, "PYTHONPATH": str(package_parent), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A copy of the package's sources in which a violation can be planted."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    return Path(shutil.copytree(PACKAGE, tmp_path / "counterfoil", ignore=ignored))


def test_the_import_rules_hold_in_a_copy(planted: Path) -> None:
    """The control of the tests below: without a violation nothing is reported."""
    result = lint_imports(planted.parent)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("errors.py", "from counterfoil import run", "counterfoil.errors"),
        ("verify.py", "import torch", "counterfoil.verify -> torch"),
        ("verify.py", "import counterfoil.cli", "counterfoil.verify"),
        ("run.py", "import torch.nn", "counterfoil.run -> torch"),
        ("commit.py", "from counterfoil.verify import verify", "counterfoil.commit"),
        ("cli/__init__.py", "import torch", "counterfoil.cli -> torch"),
        ("cli/checkpoint.py", "import cryptography", "counterfoil.cli.checkpoint -> cryptography"),
        ("helpers.py", "", "counterfoil.helpers"),
    ],
)
def test_a_planted_import_is_refused(planted: Path, module: str, line: str, complaint: str) -> None:
    source = planted / module
    before = source.read_text() if source.exists() else ""
    source.write_text(f"{before}\n{line}\n")
    result = lint_imports(planted.parent)
    assert result.returncode != 0
    assert complaint in result.stdout + result.stderr


def test_only_run_imports_by_name() -> None:
    """importlib is invisible to import-linter; `Run.attach` is the one lazy call upwards."""
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "import_module(" in path.read_text() or "__import__(" in path.read_text()
    }
    assert {path for path in users if not path.startswith("torch/")} == {"run.py"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "contracts/artifacts").glob("*.json")), ids=lambda path: path.stem
)
def test_a_contract_artifact_belongs_to_its_sources(path: Path) -> None:
    """A contract edited without `make contracts` would leave old bytecode on the chain."""
    artifact = json.loads(path.read_text())
    assert artifact["sources"]
    for name, expected in artifact["sources"].items():
        source = (ROOT / "contracts" / name).read_bytes()
        assert hashlib.sha256(source).hexdigest() == expected, name


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_package_registry_host() -> None:
    assert REGISTRY_HOSTS.search("https://files.pythonhosted.org/x")
    for path in tracked():
        if path == Path(__file__) or path.suffix in {".png", ".ipynb"}:
            continue
        found = REGISTRY_HOSTS.search(path.read_bytes().decode("utf-8", "replace"))
        # Cargo.lock names its registry by cargo's own index identifier.
        allowed = path.name == "Cargo.lock" or found is None
        assert allowed, f"{path.relative_to(ROOT)}: {found and found[0]}"


def test_foreign_vectors_have_a_source() -> None:
    sources = (ROOT / "tests/vectors/SOURCES.md").read_text()
    for path in (ROOT / "tests/vectors").glob("*.json"):
        assert f"`{path.name}`" in sources


def test_the_package_needs_numpy_and_typer_only() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=]", each)[0] for each in project["dependencies"]}
    assert names == {"numpy", "typer"}


def test_every_public_name_of_the_compiled_core_says_what_it_is() -> None:
    """A property without a docstring is missing from help() and from the site's reference."""
    missing = []
    for name in counterfoil.__all__:
        described = getattr(counterfoil, name)
        if isinstance(described, type) and hasattr(_native, name):
            members = {each: vars(described)[each] for each in vars(described) if not each.startswith("_")}
            missing += [f"{name}.{each}" for each, member in members.items() if not inspect.getdoc(member)]
    assert missing == []
