"""The versions that a recipe locks, beside those that are installed."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePosixPath
from typing import Any, NamedTuple

_PIN = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9._-]*) ?(\[[a-z0-9._, -]*\])? ?={2,3} ?(?P<version>[a-z0-9.!+_-]+) ?(?P<marker>;.*)?",
    re.IGNORECASE | re.ASCII,
)


class Pin(NamedTuple):
    """One exact version; conditional where it need not be installed on this machine."""

    name: str
    version: str
    conditional: bool


def locked(files: Mapping[str, bytes]) -> list[str]:
    """What differs between the exact versions that a recipe's files lock and those that are installed.

    Args:
        files: The recipe's files by their paths: of these, `requirements.txt`, `pylock.toml`, `uv.lock` and the
            metadata in `recipe.py` are read. They may be anybody's.

    Returns:
        `name: locked X, installed Y`, and the files that cannot be read.

    Source:
        PEP 440, PEP 508, PEP 723, PEP 751.
    """
    found, unreadable = pins(files)
    different = []
    for name, pinned in sorted(found.items()):
        versions = " or ".join(sorted({pin.version for pin in pinned}))
        try:
            installed = version(name)
        except PackageNotFoundError:
            if not all(pin.conditional for pin in pinned):
                different.append(f"{name}: locked {versions}, not installed")
            continue
        if not any(_is_same(pin.version, installed) for pin in pinned):
            different.append(f"{name}: locked {versions}, installed {installed}")
    return different + unreadable


def pins(files: Mapping[str, bytes]) -> tuple[dict[str, list[Pin]], list[str]]:
    """The exact versions that a recipe's files lock, by name, and which of them cannot be read."""
    found: dict[str, list[Pin]] = defaultdict(list)
    unreadable = []
    for path, content in files.items():
        read = _READERS.get(PurePosixPath(path).name)
        try:
            for pin in read(content.decode(errors="replace")) if read else ():
                found[re.sub(r"[-_.]+", "-", pin.name).lower()].append(pin)
        except (ValueError, RecursionError):
            unreadable.append(f"{path!a} cannot be read")
    return found, unreadable


def _requirements(text: str) -> Iterator[Pin]:
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        # A comment, and options such as hashes, stand behind a blank.
        plain = re.split(r"(?:^|\s)(?:#|--)", line, maxsplit=1)[0]
        pin = _PIN.fullmatch(" ".join(plain.split()))
        if pin is not None:
            yield Pin(pin["name"], pin["version"], pin["marker"] is not None)


def _script(text: str) -> Iterator[Pin]:
    lines = iter(text.splitlines())
    if "# /// script" in lines:  # which leaves those behind it
        block = itertools.takewhile(lambda line: line != "# ///", lines)
        listed = tomllib.loads("\n".join(line[2:] for line in block)).get("dependencies")
        texts = [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []
        yield from _requirements("\n".join(texts))


def _pylock(text: str) -> Iterator[Pin]:
    return _packages(tomllib.loads(text).get("packages"), lambda package: "marker" in package)


def _uv(text: str) -> Iterator[Pin]:
    # Its packages are those of all platforms, and the markers are elsewhere.
    return _packages(tomllib.loads(text).get("package"), lambda _: True)


def _packages(listed: Any, is_conditional: Callable[[dict[str, Any]], bool]) -> Iterator[Pin]:
    for package in listed if isinstance(listed, list) else ():
        if isinstance(package, dict):
            pin = _PIN.fullmatch(f"{package.get('name')}=={package.get('version')}")
            if pin is not None and pin["marker"] is None and "version" in package:
                yield Pin(pin["name"], pin["version"], is_conditional(package))


_READERS = {
    "requirements.txt": _requirements, "pylock.toml": _pylock, "uv.lock": _uv, "recipe.py": _script,
}  # fmt: skip


def _is_same(pinned: str, installed: str) -> bool:
    """Whether an installed version is the pinned one; a build's own suffix counts only where it is pinned."""
    ours, theirs = pinned.lower().removeprefix("v"), installed.lower()
    return _plain(ours) == _plain(theirs if "+" in ours else theirs.partition("+")[0])


def _plain(text: str) -> list[str]:
    """The parts of a version, of which zeros at the end say nothing."""
    parts = text.split(".")
    while len(parts) > 1 and not parts[-1].strip("0"):
        parts.pop()
    return parts
