"""The command line in processes of its own, forked from one that has imported it, so that a moment can be
chosen at which one of them is killed."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import os
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Nothing else is imported here: each child does it again.
from counterfoil import cli

_numbers = itertools.count()


@dataclass(frozen=True)
class Ended:
    """How a command ended: by itself with an exit code, or killed, with a negative one."""

    code: int
    seconds: float
    output: str


def run_cli(home: Path, *arguments: str | Path, kill_after: float | None = None) -> Ended:
    """Runs the command line in a process of its own, killed as a whole after so many seconds."""
    process, output = start_cli(home, *arguments)
    begin = time.monotonic()
    process.join(kill_after)
    if kill_after is None:
        seconds = time.monotonic() - begin
    else:
        seconds = kill_after
        process.kill()
        process.join()
    assert process.exitcode is not None
    return Ended(process.exitcode, seconds, output.read_text() if output.exists() else "")


def start_cli(home: Path, *arguments: str | Path) -> tuple[Any, Path]:
    """Begins a command; returns its process and the file into which it prints."""
    output = home / f"output-{next(_numbers)}"
    process = _context().Process(target=_main, args=(home, output, [str(word) for word in arguments]))
    process.start()
    return process, output


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    # The second is what typer imports first when it is called; where it is missing that does no harm.
    context.set_forkserver_preload(["counterfoil.cli", "typer._adapters"])
    return context


def _main(home: Path, output: Path, arguments: list[str]) -> None:
    os.environ["COUNTERFOIL_HOME"] = str(home)
    sys.argv = ["counterfoil", *arguments]
    text = io.StringIO()
    code: Any = 0
    with redirect_stdout(text), redirect_stderr(text):
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
    output.write_text(text.getvalue())
    sys.exit(code)
