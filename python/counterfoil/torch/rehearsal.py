"""Proves before a long run that its recipe replays: records a few real steps and executes them again."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from counterfoil import Key, Record, Run
from counterfoil.errors import InvalidInput
from counterfoil.lookup import Finding
from counterfoil.torch.execution import Differs, Execution, Lane
from counterfoil.torch.process import Child, NotReplayable
from counterfoil.torch.recipes import locked, pins

SECONDS = 120.0
"""What a step may take."""


def rehearse(
    recipe: str | os.PathLike[str],
    spec: Mapping[str, Any] | None = None,
    batches: Iterable[Any] | None = None,
    *,
    steps: int = 4,
) -> list[Finding]:
    """Records a few steps of a recipe into a run that is thrown away, and replays each from its nearest checkpoint.

    The recipe is run in this process, which training would do as well, and again in the confined child. Nothing is
    signed with a key of yours.

    Args:
        recipe: A Python file, or a folder with `recipe.py`.
        spec: As of `Run.create`.
        batches: What training is fed; by default what the recipe's function `batches(spec)` returns.
        steps: How many to record; a checkpoint stands at every second. What a recipe keeps for longer than that,
            such as a schedule that begins later, does not show.

    Returns:
        What was found, one line each: whether training and each step went well, locked versions, what to pin.

    Raises:
        InvalidInput: There is no such recipe, or `steps` is below 1.

    Example:
        >>> from counterfoil.torch.demo import mlp
        >>> print(rehearse(mlp.__file__, {"seed": 1, "hidden": 8, "learning_rate": 0.05})[0].detail)
        4 of 4 steps came out bit for bit, each from the nearest checkpoint
    """
    if steps < 1:
        raise InvalidInput("at least one step is rehearsed", actual=str(steps), where="steps")
    with _own_keys() as folder:
        run = Run.create(folder / "run", key=Key.generate(), spec=spec, recipe=recipe)
        try:
            with run, imported(Path(recipe)) as module:
                _train(run, module, batches, steps)
        except Exception as error:  # the recipe's, whatever it is
            findings = [Finding("training", False, f"{type(error).__name__}: {error}")]
        else:
            findings = _replayed(Record(run.path))
        record = Record(run.path)
        return [*findings, *_versions(record), _files(record)]


@contextmanager
def _own_keys() -> Iterator[Path]:
    """A folder that is thrown away, below which this process keeps its keys meanwhile."""
    with tempfile.TemporaryDirectory(prefix="counterfoil-") as folder:
        before = os.environ.get("COUNTERFOIL_HOME")
        os.environ["COUNTERFOIL_HOME"] = str(Path(folder, "home"))
        try:
            yield Path(folder)
        finally:
            del os.environ["COUNTERFOIL_HOME"]
            os.environ |= {} if before is None else {"COUNTERFOIL_HOME": before}


@contextmanager
def imported(path: Path) -> Iterator[ModuleType]:
    """The recipe as a module of this process, with the modules beside it, which are forgotten afterwards."""
    file = (path / "recipe.py" if path.is_dir() else path).resolve()
    description = importlib.util.spec_from_file_location("recipe", file)
    assert description is not None and description.loader is not None, "a recipe is a Python file"
    module = importlib.util.module_from_spec(description)
    known = dict(sys.modules)
    sys.modules["recipe"] = module
    sys.path.insert(0, str(file.parent))
    try:
        description.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(file.parent))
        tops = {name: sys.modules.get(name.partition(".")[0]) for name in sys.modules.keys() - known.keys()}
        for name, top in tops.items():
            if Path(getattr(top, "__file__", None) or "/").is_relative_to(file.parent):
                del sys.modules[name]
        sys.modules |= {name: known[name] for name in known.keys() & {"recipe"}}


def _train(run: Run, module: ModuleType, batches: Iterable[Any] | None, steps: int) -> None:
    model, optimizer, step = module.recipe(run.spec)
    recorder = run.attach(model, optimizer, every=1, checkpoint_every=2)
    if batches is None and not hasattr(module, "batches"):
        raise InvalidInput("the recipe has no function batches(spec), and none are given", where="batches")
    loader = run.batches(module.batches(run.spec) if batches is None else batches)
    number, begun = 0, -1
    while begun < number < steps:  # an epoch without a batch is the last
        begun = number
        for batch in loader:
            number += 1
            step(batch, number, recorder.log)
            if number == steps:
                break


def _replayed(record: Record) -> list[Finding]:
    found: dict[str, Finding] = {}
    (place,) = record.lanes
    lane, replayed = Lane(record, *place), 0
    with Child(record) as child:
        execution = Execution(lane, child, SECONDS)
        # Backwards, so that each begins at its own checkpoint.
        for step in sorted({0, *lane.steps}, reverse=True):
            name = f"step {step}" if step else "beginning"
            try:
                if step == 0:
                    execution.begin()
                    found[name] = Finding(name, True, "the recipe makes the state from which it trained")
                    continue
                try:
                    execution.reach(step)
                    replayed += 1
                    continue
                except Differs as differs:
                    execution.confirm(differs)
                text = "comes out from the run's first checkpoint only: the recipe keeps what no checkpoint holds, such as "
                text += "a schedule; let it follow from the step's number"
            except NotReplayable as reason:
                text = f"was not executed again: {reason}"
                if reason.fatal:
                    found["sandbox"] = Finding("sandbox", False, f"{name} {text}")
                    break
            except Differs as differs:
                wrong = differs.found
                name = f"step {wrong.step}" if wrong.step else name
                text = f"differs in {wrong.field} {wrong.tensor}: recorded {wrong.ours}, then {wrong.theirs}"
            child.stands = None
            found[name] = Finding(name, False, text)
        text = f"{replayed} of {len(lane.steps)} steps came out bit for bit, each from the nearest checkpoint"
        notes = [Finding("note", "metrics" not in note, note) for note in execution.notes + child.notes]
    return [Finding("replay", 0 < replayed == len(lane.steps), text), *found.values(), *notes]


def _versions(record: Record) -> list[Finding]:
    different = locked(record.recipe)
    names, _ = pins(record.recipe)
    text = f"{len(names)} are locked, and none of them is installed otherwise"
    if not names:
        text = "none are locked: put requirements.txt, pylock.toml or uv.lock beside recipe.py"
    return [Finding("versions", False, each) for each in different] or [Finding("versions", True, text)]


def _files(record: Record) -> Finding:
    return Finding("recipe", True, f"{', '.join(sorted(record.recipe))}: pin {record.recipe_digest}")
