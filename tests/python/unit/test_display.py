"""What notebooks show of runs, verdicts and comparisons."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import counterfoil
from counterfoil import Run, commit_tensors
from counterfoil.display import AMBER, GREEN, RED
from counterfoil.errors import Refuted
from counterfoil.testing.tamper import TAMPERINGS

HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    """Elements and their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def is_harmless(html: str) -> None:
    """No script, nothing from elsewhere, every element closed."""
    tags = Tags(html)
    assert not tags.open
    assert {tag for tag, _ in tags.found} <= {"div", "span", "strong", "table", "tr", "th", "td", "code"}
    assert {name for _, attributes in tags.found for name in attributes} <= {"style", "scope"}
    assert "url(" not in html


def rows(html: str) -> list[str]:
    return re.findall(r'<th scope="row"[^>]*>(.*?)</th>', html)


def test_four_lines_stay_four(recorded: Path) -> None:
    """A notebook that merges the lines into one word, or that is green for what was not shown."""
    verdict = counterfoil.verify(recorded)
    html = verdict._repr_html_()
    is_harmless(html)
    assert rows(html)[:4] == ["Integrity", "Signer", "Time", "Transition"]
    assert "verified: integrity only" in html
    assert GREEN in html
    undecided = counterfoil.verify(recorded, require="stranger")._repr_html_()
    assert AMBER in undecided
    assert GREEN not in undecided
    assert undecided.count(">missing<") == len(counterfoil.verify(recorded, require="stranger").missing)


def test_a_broken_edge_is_red_and_said(copy: Path) -> None:
    TAMPERINGS["loss edited"](copy)
    with pytest.raises(Refuted) as refuted:
        counterfoil.verify(copy)
    html = refuted.value.verdict._repr_html_()
    is_harmless(html)
    (edge,) = refuted.value.verdict.broken
    assert GREEN not in html
    assert html.count(RED) == 2
    for text in (edge.expected, edge.actual, "metrics &lt;- opening"):
        assert text in html


def test_a_comparison_and_a_run_are_escaped(tmp_path: Path) -> None:
    """A tensor's name or a folder's name that becomes an element of the notebook."""
    folder = tmp_path / HOSTILE.replace("/", "_")
    for name, value in (("one", 0.5), ("two", 0.25)):
        with Run.create(folder / name) as run:
            run.record_step(1, {"metrics": commit_tensors({HOSTILE: value}, keep=True)})
    found = counterfoil.diff(folder / "one", folder / "two")
    html = found._repr_html_()
    is_harmless(html)
    assert "differs" in html
    assert "0.5 (0x3fe0000000000000)" in html
    assert GREEN not in html
    same = counterfoil.diff(folder / "one", folder / "one")._repr_html_()
    is_harmless(same)
    assert GREEN not in same
    shown = run._repr_html_()
    is_harmless(shown)
    assert run.id in shown
    assert "closed" in shown
    assert GREEN not in shown
