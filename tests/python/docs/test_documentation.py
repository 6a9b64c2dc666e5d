"""Everything shown is executed: Python blocks of the pages, examples of the docstrings."""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import counterfoil
from oracle import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
MODULES = ["counterfoil"] + [
    module.name
    for module in pkgutil.walk_packages(counterfoil.__path__, "counterfoil.")
    # What needs flwr has no examples to run: `make test-flower` tests it.
    if not module.name.endswith("_native") and not module.name.startswith("counterfoil.flower")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    """The blocks of a page are one program, run from an empty folder."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    if not blocks:
        return
    program = tmp_path / "page.py"
    program.write_text("\n\n".join(blocks), encoding="utf-8")
    (tmp_path / "home").mkdir()
    result = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", program],
        cwd=tmp_path,
        env={**os.environ, "COUNTERFOIL_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert result.returncode == 0, f"{page.name}:\n{result.stdout}{result.stderr}"


def training(folder: Path) -> dict[str, object]:
    """What the examples of `counterfoil.torch` take as given: a run, a loader and a step."""
    import torch

    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = counterfoil.Run.create(folder / "example")
    run.attach(model, optimizer)
    data = torch.utils.data.TensorDataset(torch.randn(8, 3), torch.randn(8, 1))

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()

    loader = torch.utils.data.DataLoader(data, batch_size=4)
    return {"run": run, "loader": loader, "step": step, "model": model, "optimizer": optimizer}


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    names = {**vars(module), "tmp_path": tmp_path}
    if name.startswith("counterfoil.torch."):
        names |= training(tmp_path)
    for example in finder.find(module, name, globs=names):
        runner.run(example)
    assert runner.failures == 0


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda e: e.name)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    """Each example runs from a folder of its own, into which it writes."""
    copy = tmp_path / example.name
    copy.write_text(example.read_text(encoding="utf-8"), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, copy], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
