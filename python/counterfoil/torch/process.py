"""The confined process that executes a recipe, from the side that asks.

The recipe is the prover's code: the process is started anew when it fails, given up when it fails too often, and says
what it computes with before it reads the recipe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

import counterfoil
from counterfoil import Record
from counterfoil.errors import CounterfoilError
from counterfoil.torch import confine, wire
from counterfoil.torch.collect import State

ROOM = 64 << 20
LIVES = 4
START = 120.0
"""Bytes a child may answer beyond its state, how often it may end, and seconds in which it has to stand."""


class NotReplayable(Exception):
    """Why a step was not executed again; `fatal` when the child can execute no more."""

    def __init__(self, reason: str, *, fatal: bool = False) -> None:
        super().__init__(reason)
        self.fatal = fatal


class Child:
    """The process that executes a recipe; started when it is first needed.

    Attributes:
        notes: What it could not be cut off from.
        stands: Which execution it serves, and the step that it executed last.
        begun: What it executed since it was started: for which execution, from which checkpoint on.
    """

    def __init__(self, record: Record, variables: Mapping[str, str] = MappingProxyType({})) -> None:
        self.notes: list[str] = []
        self.stands: tuple[object, int] | None = None
        self.begun: list[tuple[object, int]] = []
        self._record, self._lives = record, LIVES
        self._given = dict(variables)
        self._variables = dict(variables)
        self._process: subprocess.Popen[bytes] | None = None
        self._environment: State | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def choose(self, variables: Mapping[str, str]) -> bool:
        """Has it run with these variables and those that it was made with; returns whether a new process is needed."""
        wanted = {**variables, **self._given}
        if self._process is not None and wanted != self._variables:
            self.end()
        self._variables = wanted
        return self._process is None

    def end(self) -> None:
        """Ends the process, if there is one, and whatever it has started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                pipe.close()  # not read to its end: a process left behind may hold the other one
        self._process.wait()
        self._folder.cleanup()
        self._process, self._environment, self.stands = None, None, None
        self.begun.clear()

    def send(self, message: Iterable[memoryview], seconds: float) -> None:
        """Sends a request, to a new process if the last one ended.

        Raises:
            NotReplayable: It ended too often, or takes nothing.
        """
        if self._lives == 0:
            raise NotReplayable("the recipe's process ended too often", fatal=True)
        self.environment()
        with self._failures(seconds):
            self._pipe.send(message, seconds)

    def receive(self, limit: int, seconds: float) -> dict[str, State]:
        """The answer to the request: named states, of at most `limit` bytes.

        Raises:
            NotReplayable: None came, or nonsense.
        """
        with self._failures(seconds):
            return self._pipe.receive(limit, seconds)[1]

    def environment(self) -> State:
        """What the process computes with, as it says before it reads the recipe.

        Raises:
            NotReplayable: It does not start.
        """
        if self._environment is None:
            self._environment = self._start()
        return self._environment

    def fail(self) -> None:
        """Ends a process that is of no use any more; a few are allowed, since other steps are none of its business."""
        self.end()
        self._lives -= 1

    @contextlib.contextmanager
    def _failures(self, seconds: float) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            reason = f"the recipe gave no answer within {seconds:g} s"
        except (EOFError, OSError):
            self._errors.seek(0)
            lines = self._errors.read(1 << 16).decode(errors="replace").strip().splitlines()
            reason = (
                f"the recipe's process ended: {lines[-1][:200]!a}" if lines else "the recipe's process ended"
            )
        except CounterfoilError as error:
            reason = f"the recipe's process answered nonsense: {error}"
        else:
            return
        raise NotReplayable(reason, fatal=True)

    def launch(self) -> None:
        """Starts the process without waiting until it stands, so that several start at the same time."""
        self._folder = tempfile.TemporaryDirectory(prefix="counterfoil-")
        for name, content in self._record.recipe.items():
            file = Path(self._folder.name, "recipe", name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", confine.__file__, *_libraries()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, cwd=self._folder.name,
            env=self._variables | {"OMP_WAIT_POLICY": "PASSIVE", "TMPDIR": self._folder.name}, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._pipe = wire.Pipe(self._process.stdout.fileno(), self._process.stdin.fileno())

    def _start(self) -> State:
        if self._process is None:
            self.launch()
        run = Path(self._record.path).resolve()
        hidden = not any(run.is_relative_to(path) for path in confine.visible(_libraries()))
        with self._failures(START):
            cut, _ = self._pipe.receive(ROOM, START)
        for kept, what in (
            (cut.get("network"), "the network"),
            (cut.get("files") and hidden, "the run folder"),
        ):
            note = f"the recipe's process could not be cut off from {what} on this machine"
            self.notes += [note] * (kept is not True and note not in self.notes)
        local: State = cut["environment"]
        return local


def _libraries() -> list[str]:
    """The folders from which the child imports what this process imported."""
    return sorted({str(Path(module.__path__[0]).parent) for module in (counterfoil, torch, np)})
