"""The documentation's site: nothing dangles, and what it takes from the code is complete."""

import html
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import counterfoil
from counterfoil import errors
from counterfoil.cli import app
from oracle import ROOT

TAG = re.compile(r"<[^>]+>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "python"), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """What the site's build calls, tools/documentation.py."""
    location = importlib.util.spec_from_file_location("documentation", ROOT / "tools/documentation.py")
    assert location is not None and location.loader is not None
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


def text(page: Path) -> str:
    return html.unescape(TAG.sub("", page.read_text(encoding="utf-8")))


def test_every_page_has_a_place(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
        assert (site / ("index.html" if name == "index" else f"{name}/index.html")).exists(), name
        assert f'href="{name}/"' in (site / "index.html").read_text() or name == "index", name


def test_every_error_code_is_listed_with_what_to_do(site: Path) -> None:
    """Page and code are held together: a new class without a row, or a row that says nothing, fails here."""
    shown = " ".join(text(site / "error-codes/index.html").replace("`", "").split())
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    classes = [each for each in classes if issubclass(each, errors.CounterfoilError)]
    assert len(classes) >= 17
    for each in classes:
        row = [each.code, each.__name__, str(each.__doc__).splitlines()[0], each.remedy]
        assert " ".join(" ".join(row).replace("`", "").split()) in shown, each.code


def test_every_command_is_listed_with_its_options(site: Path) -> None:
    """typer has its own copy of click: a reference that asks click for the commands finds none."""
    shown = text(site / "command-line/index.html")
    names = [
        each.name or (each.callback.__name__ if each.callback else "") for each in app.registered_commands
    ]
    groups = {
        each.name: [
            inner.name or inner.callback.__name__ for inner in each.typer_instance.registered_commands
        ]
        for each in app.registered_groups
        if each.typer_instance is not None
    }
    names += [f"{group} {name}" for group, inner in groups.items() for name in inner]
    assert len(names) > 25
    for name in names:
        assert f"counterfoil {name.replace('_', '-')} " in shown, name
    assert "--run-untrusted" in shown and "Run the prover's code without pinning it." in shown


def test_every_public_name_is_described(site: Path) -> None:
    page = (site / "python/index.html").read_text(encoding="utf-8")
    described = set(re.findall(r'id="(counterfoil\.[\w.]+)"', page))
    modules = {"__version__", "errors", "merkle", "storage"}
    assert {f"counterfoil.{name}" for name in counterfoil.__all__ if name not in modules} <= described
    for name in (
        "torch.replay",
        "torch.attach",
        "flower.recompute",
        "interop.export_checkpoint",
        "merkle.root",
    ):
        assert f"counterfoil.{name}" in described
    # Of the compiled core, whose docstrings no Python file holds; and an example, shown as code.
    assert "A run folder, read once and not believed." in page
    assert "Examples:</" in page


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        content = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", content):
            loaded = 'rel="canonical"' not in tag and re.search(r'(?:src|href)="(?:https?:)?//', tag)
            assert not loaded, f"{page.name}: {tag}"
        assert "fonts.googleapis" not in content


def test_a_link_out_of_the_docs_leads_into_the_repository(hooks: ModuleType) -> None:
    def turned(markdown: str) -> str:
        page = SimpleNamespace(file=SimpleNamespace(src_uri="recorder.md"))
        return hooks.on_page_markdown(markdown, page, SimpleNamespace(repo_url="https://host/repo"), None)

    assert turned("[a](../BENCHMARKS.md#b)") == "[a](https://host/repo/blob/main/BENCHMARKS.md#b)"
    assert turned("[a](../examples)") == "[a](https://host/repo/tree/main/examples)"
    assert turned("[a](replay.md)") == "[a](replay.md)"
    with pytest.raises(FileNotFoundError, match=r"recorder.md links to nowhere.md"):
        turned("[a](../nowhere.md)")
    with pytest.raises(KeyError, match="unheard-of"):
        turned("<!-- generated: unheard-of -->")


def test_a_page_that_nobody_placed_stands_under_more(hooks: ModuleType, tmp_path: Path) -> None:
    for name in ("index.md", "placed.md", "new.md"):
        (tmp_path / name).write_text("# A page\n")
    nav = ["index.md", {"Group": [{"Placed": "placed.md"}]}]
    config = hooks.on_config(SimpleNamespace(nav=nav, docs_dir=str(tmp_path)))
    assert config.nav == ["index.md", {"Group": [{"Placed": "placed.md"}]}, {"More": ["new.md"]}]
