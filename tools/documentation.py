"""What the documentation's site makes of the pages while it is built: `make docs`.

- Tables and lists that the code knows better than a page replace a marker, `<!-- generated: NAME -->`.
- A link to a file outside docs/ leads to that file in the repository, and must exist.
- A page that mkdocs.yml does not list stands under "More", so that none is lost.
- The compiled core's docstrings are read from it.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import griffe
import typer.main
from typer.core import TyperGroup

import counterfoil
import counterfoil.merkle
import counterfoil.storage
from counterfoil import _native, errors
from counterfoil.cli import app

ROOT = Path(__file__).resolve().parents[1]
MARKER = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.MULTILINE)
OUTSIDE = re.compile(r"\]\((\.\./[^)#\s]*)(#[^)\s]*)?\)")
SUBMODULES = (
    "torch", "alignment", "market", "contracts", "economy", "sortition", "report", "flower", "interop", "merkle",
    "storage",
)  # fmt: skip


def on_config(config: Any) -> Any:
    """Lists pages under docs/ that nobody has placed."""
    placed = set(_pages(config.nav))
    docs = Path(config.docs_dir)
    unplaced = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    more = [name for name in unplaced if name not in placed]
    if more:
        config.nav.append({"More": more})
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fills the markers of a page and turns its links to other files of the repository."""
    filled = MARKER.sub(lambda marker: GENERATED[marker[1]](), markdown)
    return OUTSIDE.sub(lambda link: _outside(link, page.file.src_uri, config.repo_url), filled)


class Docstrings(griffe.Extension):
    """What griffe cannot see by reading the package's Python files."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Adds the docstrings of the compiled core, whose stubs have none, and renames a heading."""
        compiled = obj.path.removeprefix("counterfoil._native.")
        if obj.docstring is None and compiled != obj.path:
            described: object = _native
            for name in compiled.split("."):
                described = getattr(described, name, None)
            text = inspect.getdoc(described)
            if text and not isinstance(described, str | tuple):  # whose docstring is their type's
                obj.docstring = griffe.Docstring(text, parent=obj)
        if obj.docstring is not None:
            # Griffe knows the heading of examples in the plural alone.
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)


def error_codes() -> str:
    """Every code of `counterfoil.errors`: its class, what it means and what to do."""
    rows = ["| code | class | what happened | what to do |", "|---|---|---|---|"]
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    for each in sorted(classes, key=lambda each: getattr(each, "code", "")):
        if issubclass(each, errors.CounterfoilError):
            meaning = (each.__doc__ or "").splitlines()[0]
            rows.append(f"| `{each.code}` | `{each.__name__}` | {meaning} | {each.remedy} |")
    return "\n".join(rows)


def commands() -> str:
    """Every command of the command line with its arguments and options, as `--help` has them."""
    command = typer.main.get_command(app)
    return "\n\n".join(_command(command, "counterfoil"))


def names() -> str:
    """The public names of the package and of its submodules, for mkdocstrings to describe."""
    parts = ["## counterfoil"]
    described = [
        name for name in counterfoil.__all__ if name not in ("__version__", "errors", "merkle", "storage")
    ]
    parts += [f"::: counterfoil.{name}" for name in described]
    for submodule in SUBMODULES:
        parts.append(f"## counterfoil.{submodule}")
        parts += [f"::: counterfoil.{submodule}.{name}" for name in _exported(submodule)]
    return "\n\n".join(parts)


GENERATED = {"error-codes": error_codes, "commands": commands, "names": names}


def _exported(submodule: str) -> list[str]:
    """What a submodule exports, read and not imported: some need packages that are not installed."""
    folder = ROOT / "python/counterfoil" / submodule
    source = (folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")).read_text()
    listed = re.search(r"^__all__ = \[(.*?)\]", source, re.MULTILINE | re.DOTALL)
    if listed is None:
        raise LookupError(f"counterfoil.{submodule} has no __all__")
    return re.findall(r'"(\w+)"', listed[1])


def _pages(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in _pages(part)]


def _outside(link: re.Match[str], page: str, repository: str) -> str:
    target = (ROOT / "docs" / page).parent / link[1]
    path = target.resolve().relative_to(ROOT)
    if not target.exists():
        raise FileNotFoundError(f"docs/{page} links to {path}, which is not there")
    kind = "tree" if target.is_dir() else "blob"
    return f"]({repository}/{kind}/main/{path.as_posix()}{link[2] or ''})"


def _command(command: Any, path: str) -> list[str]:
    context = typer.Context(command, info_name=path)
    if isinstance(command, TyperGroup):
        own = [f"## {path}", (command.help or "").strip()] if command.invoke_without_command else []
        listed = sorted(command.commands.items())
        return own + [text for name, each in listed for text in _command(each, f"{path} {name}")]
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    parts = [f"## {path}", (command.help or "").strip(), f"```\n{usage}\n```"]
    rows = [record for parameter in command.params if (record := parameter.get_help_record(context))]
    if rows:
        cells = [f"| `{_cell(name)}` | {_cell(text)} |" for name, text in rows]
        parts.append("\n".join(["| argument or option | |", "|---|---|", *cells]))
    return parts


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
