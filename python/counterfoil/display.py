"""How a notebook shows things: small HTML without scripts, readable on light and on dark ground.

Whatever comes from a run is escaped. Only badges have colours, white on a ground of their own, so that no
theme hides them; what a colour says stands beside it in words.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

GREEN, RED, AMBER, GREY = "#14692f", "#b3161b", "#7a4d00", "#555e68"
STATUS = {"verified": ("✓", GREEN), "refuted": ("✕", RED), "undecided": ("?", AMBER)}
"""Sign and colour of a verdict's status."""

Row = tuple[str, str]


def badge(word: str, colour: str) -> str:
    """A word on a coloured ground."""
    style = f"background:{colour};color:#fff;border-radius:3px;padding:1px 6px;font-weight:600"
    return f'<span style="{style}">{escape(word)}</span>'


def card(title: str, rows: Iterable[Row], *, mark: str = "", footer: Iterable[str] = ()) -> str:
    """A title, named lines and remarks below them.

    Args:
        title: Text of the first line.
        rows: Name and text of each line.
        mark: A badge before the title.
        footer: HTML of further lines, which the caller has escaped.
    """
    cell = "text-align:left;vertical-align:top;padding:1px 12px 1px 0;background:transparent;color:inherit"
    lines = "".join(
        f'<tr style="background:transparent"><th scope="row" style="{cell};white-space:nowrap">{escape(name)}</th>'
        f'<td style="{cell}">{escape(text)}</td></tr>'
        for name, text in rows
    )
    more = "".join(f"<div>{line}</div>" for line in footer)
    head = f"{mark} <strong>{escape(title)}</strong>" if mark else f"<strong>{escape(title)}</strong>"
    frame = "border-left:4px solid currentColor;padding:2px 0 2px 10px;overflow-wrap:anywhere"
    return f'<div style="{frame}"><div>{head}</div><table style="margin:4px 0;color:inherit">{lines}</table>{more}</div>'
