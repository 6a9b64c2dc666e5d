"""Attacks that are not mounted here, each with why: they are claimed to be caught by nobody."""

UNMOUNTED: tuple[tuple[str, str, str], ...] = ()
"""Name, `open` or `out of scope`, and the reason."""
