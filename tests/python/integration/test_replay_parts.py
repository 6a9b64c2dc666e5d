"""However the steps of a replay are divided, executed and interrupted, the same is found."""

import importlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import counterfoil
from counterfoil.errors import InvalidInput, Refuted
from counterfoil.torch import collect, replay
from counterfoil.torch.demo import lying, mlp
from counterfoil.torch.execution import Execution, Lane
from counterfoil.torch.process import Child
from replays import MLP, STEPS, record
from training import reason_of

pytestmark = pytest.mark.slow

replaying = importlib.import_module("counterfoil.torch.replay")


def report(path, steps="all", **options):
    return replaying.re_execute(counterfoil.Record(path), steps, 60.0, **options)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return record(tmp_path_factory.mktemp("honest") / "run")


def test_several_processes_find_what_one_does(honest, tmp_path):
    """An answer of one process that is taken for another's, or a part that is forgotten."""
    told = []
    seen = report(honest, "0,2:7", jobs=2, progress=lambda done, total: told.append((done, total)))
    assert sorted(seen.steps) == [2, 3, 4, 5, 6, 7] and seen.begins and not seen.refuted
    assert told == [(done, 7) for done in range(1, 8)]
    liar = record(tmp_path / "liar", lie=lying(5))
    (one,), (other,) = report(liar).refuted, report(liar, jobs=2).refuted
    assert one == other and (one.step, one.field) == (5, "parameters")


def test_another_seed_is_found_in_the_state_before_the_first_step(tmp_path):
    """Every step is honest: only the beginning tells."""
    spec = dict(MLP, seed=2)
    path = tmp_path / "run"
    with counterfoil.Run.create(path, spec=MLP, recipe=mlp.__file__) as run:
        model, optimizer, step = mlp.recipe(spec)
        recorder = run.attach(model, optimizer, every=1)
        for batch in run.batches([[torch.rand(4, 8, 8), torch.arange(4)]]):
            step(batch, 1, recorder.log)
    pin = counterfoil.Record(path).recipe_digest
    assert replay(path, "1", recipe=pin).status == "verified"
    verdict = replay(path, "all", recipe=pin)
    assert verdict.status == "undecided" and "replayed 1 of 1" in verdict.transition
    assert any(
        "did not begin from the state that its recipe makes (parameters 1.bias)" in text
        for text in verdict.missing
    )
    assert any("recipe makes" in text for text in verdict.not_shown)


def test_the_first_element_is_named_where_its_bytes_are_kept(tmp_path):
    path = record(tmp_path / "run", lie=lying(3), every=0)
    with pytest.raises(Refuted) as caught:
        replay(path, "3", run_untrusted=True)
    (edge,) = caught.value.verdict.broken
    assert edge.edge.startswith("step 3: checkpoint parameters '")
    assert "at [" in edge.expected and "chunk 0" in edge.expected and "(0x" in edge.actual


def test_a_lie_between_sparse_states_is_said_to_lie_behind_the_last_one(tmp_path):
    """The step that is named is where it shows, and not always where it was told."""
    path = record(tmp_path / "run", lie=lying(4), every={"gradients": 1, "parameters": 0, "optimizer": 0})
    with pytest.raises(Refuted) as caught:
        replay(path, "all", run_untrusted=True)
    verdict = caught.value.verdict
    assert verdict.broken[0].edge.startswith("step 5: gradients")
    assert any("last compared at step 3: what is false lies behind it" in note for note in verdict.notes)


COUNTING = """
import torch

CALLS = []

def recipe(spec):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(batch, number, log):
        CALLS.append(number)
        optimizer.zero_grad()
        (model(batch[0]).sum() * (1 if len(CALLS) == number else 2)).backward()
        optimizer.step()

    return model, optimizer, step
"""


def test_what_a_recipe_keeps_of_one_lane_accuses_no_other(tmp_path):
    """One process executes all lanes, and modules remember."""
    path, source = tmp_path / "run", tmp_path / "counting.py"
    source.write_text(COUNTING)
    keys = [counterfoil.Key.generate() for _ in range(2)]
    for number, key in enumerate(keys):
        scope = {}
        exec(COUNTING, scope)
        if number == 0:
            run = counterfoil.Run.create(path, key=key, recipe=source)
        else:
            run = counterfoil.Run.join(path, lane=1, key=key)
        with run:
            model, optimizer, step = scope["recipe"]({})
            recorder = run.attach(model, optimizer, every=1, checkpoint_every=2)
            for place, batch in enumerate(run.batches([[torch.rand(2, 3)] for _ in range(3)]), 1):
                step(batch, place, recorder.log)
    seen = report(path)
    assert seen.refuted == () and seen.undecided == ()
    assert seen.steps == (1, 2, 3, 1, 2, 3)


def test_a_step_nobody_asks_for_any_more_leaves_no_answer_behind(honest):
    """The answer to a request that was sent ahead must not be taken for that of the next one."""
    record_ = counterfoil.Record(honest)
    lane = Lane(record_, *record_.lanes[0])
    with Child(record_) as child:
        execution = Execution(lane, child, 60.0)
        for _ in range(2):
            steps = execution.steps(1, STEPS)
            assert next(steps)[0] == 1
            steps.close()
        for number, computed in execution.steps(5, 6):
            execution.compare(number, computed)


def test_an_interrupt_ends_every_process(honest):
    """Ctrl-C while two processes execute steps must not wait for them, or leave them."""

    class Interrupt(Exception):
        pass

    def stop(done, total):
        raise Interrupt

    begin = time.monotonic()
    with pytest.raises(Interrupt):
        report(honest, jobs=2, progress=stop)
    assert time.monotonic() - begin < 60


def test_what_the_runs_process_was_told_is_told_to_the_replaying_one(tmp_path):
    """A capped capability is a choice and no other machine: it must not excuse a lie, nor refute."""
    program = "from replays import *; import sys; record(sys.argv[1], steps=2)"
    subprocess.run(
        [sys.executable, "-c", program, tmp_path / "run"],
        env=os.environ | {"ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": str(Path(__file__).parents[1])},
        check=True,
    )
    seen = report(tmp_path / "run")
    assert seen.steps == (1, 2) and seen.notes == () and seen.refuted == ()


MEMORY = """
import torch

torch_of_the_module = torch.Generator().manual_seed(7)

def recipe(spec):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(batch, number, log):
        optimizer.zero_grad()
        (model(batch[0]).sum() * torch.rand((), generator=torch_of_the_module)).backward()
        optimizer.step()

    return model, optimizer, step
"""


def with_source(path, source, batches, every=1):
    scope = {}
    exec(source, scope)
    file = path.with_suffix(".py")
    file.write_text(source)
    with counterfoil.Run.create(path, recipe=file) as run:
        model, optimizer, step = scope["recipe"](run.spec)
        recorder = run.attach(model, optimizer, every=every, checkpoint_every=2)
        for number, batch in enumerate(run.batches(batches), 1):
            step(batch, number, recorder.log)
    return path


@pytest.mark.parametrize(("steps", "jobs"), [("1:5", 2), ("3,5", 1), ("0:5", 1)])
def test_what_a_module_keeps_accuses_nobody_however_steps_are_divided(tmp_path, steps, jobs):
    """A process that executed other steps before is no witness."""
    path = with_source(tmp_path / "run", MEMORY, [[torch.rand(2, 3)] for _ in range(5)])
    seen = report(path, steps, jobs=jobs)
    assert seen.refuted == () and seen.undecided == ()


SCHEDULED = """
import torch

def recipe(spec):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    def step(batch, number, log):
        optimizer.zero_grad()
        (model(batch[0]) * batch[1]).sum().backward()
        optimizer.step()
        schedule.step()

    return model, optimizer, step
"""


def test_a_difference_that_cannot_be_confirmed_is_no_accusation(tmp_path):
    """Its steps cannot be executed from the first checkpoint on, so what the recipe keeps is not known."""
    batches = [[torch.rand(2, 3), 2.0 if number == 2 else torch.ones(())] for number in range(1, 6)]
    seen = report(with_source(tmp_path / "run", SCHEDULED, batches), "5")
    assert seen.refuted == () and "behind what the recipe keeps" in seen.undecided[0]


def test_a_run_that_went_on_with_other_settings_is_executed_with_both(tmp_path):
    """A resume on another machine: its part is executed as that one did."""
    program = """
import sys, torch, counterfoil
from counterfoil.torch.demo import mlp
from replays import MLP, data
path, begins = sys.argv[1], sys.argv[2] == "begin"
run = counterfoil.Run.create(path, spec=MLP, recipe=mlp.__file__) if begins else counterfoil.Run.open(path)
with run:
    model, optimizer, step = mlp.recipe(MLP)
    recorder = run.attach(model, optimizer, every=1, checkpoint_every=2, restore=not begins)
    loader = torch.utils.data.DataLoader(data(), batch_size=8)
    first = run.step
    for number, batch in zip(range(first + 1, first + 3), run.batches(loader)):
        step(batch, number, recorder.log)
"""
    for phase, variables in (("begin", {}), ("again", {"ATEN_CPU_CAPABILITY": "default"})):
        environment = os.environ | variables | {"PYTHONPATH": str(Path(__file__).parents[1])}
        subprocess.run([sys.executable, "-c", program, tmp_path / "run", phase], env=environment, check=True)
    seen = report(tmp_path / "run")
    assert seen.steps == (1, 2, 3, 4) and seen.refuted == () and seen.undecided == () and seen.notes == ()


def test_the_environment_behind_a_resume_judges_no_step_before_it(tmp_path, monkeypatch):
    """The last step on another machine would be held against a run that went on here."""
    path, real = tmp_path / "run", collect.local_environment
    for lie, extra in ((lying(1), {"cpu_capability": "ABACUS"}), (None, {})):
        monkeypatch.setattr(collect, "local_environment", lambda extra=extra: real() | extra)
        run = counterfoil.Run.open(path) if path.exists() else None
        begins = run is None
        with run or counterfoil.Run.create(path, spec=MLP, recipe=mlp.__file__) as run:
            model, optimizer, step = mlp.recipe(MLP)
            recorder = run.attach(model, optimizer, every=1, checkpoint_every=2, restore=not begins)
            if lie is not None:
                lie(optimizer)
            number = run.step + 1
            for batch in run.batches([[torch.rand(8, 8, 8), torch.zeros(8, dtype=torch.int64)]]):
                step(batch, number, recorder.log)
    monkeypatch.undo()
    seen = report(path, "1:2")
    assert seen.refuted == () and "step 1 differs" in seen.undecided[0]
    assert seen.steps == (2,)


def test_a_step_is_not_taken_for_known_before_its_checkpoint_was_there(tmp_path):
    """Weights that were changed between a step and its checkpoint would pass."""
    for every, whole in ((1, True), ({"parameters": 0}, False)):
        path = record(tmp_path / f"run{whole}", every=every, steps=3)
        found = counterfoil.Record(path)
        lane = Lane(found, *found.lanes[0])
        assert [lane.is_whole(step) for step in (1, 2, 3)] == [True, True, whole]


def test_variables_that_no_process_can_be_started_with_are_left_out(tmp_path, monkeypatch):
    """They are the prover's words, and must not crash a replay."""
    real = collect.local_environment
    monkeypatch.setattr(collect, "local_environment", lambda: real() | {"MKL_CBWR": "x" * 200_000})
    path = record(tmp_path / "run", steps=2)
    monkeypatch.undo()
    seen = report(path, "1")
    assert seen.refuted == () and any("MKL_CBWR differ" in note for note in seen.notes)


def test_steps_that_say_nothing_are_passed_through_and_not_counted(tmp_path):
    """A budget makes gradients rare: the steps between must not keep the others from being replayed."""
    sparse = {"gradients": 2, "parameters": 0, "optimizer": 0, "buffers": 0}
    path = record(tmp_path / "run", every=sparse, steps=5)
    seen = report(path, "1:2,4")
    assert seen.steps == (2, 4) and seen.refuted == ()
    assert seen.notes == ("step 1 not replayed: neither gradients nor parameters are recorded",)
    (mismatch,) = report(record(tmp_path / "liar", lie=lying(1), every=sparse, steps=5), "2").refuted
    assert (mismatch.step, mismatch.field) == (2, "gradients")


def test_no_process_is_no_replay(honest):
    with pytest.raises(InvalidInput, match="at least one"):
        report(honest, "1", jobs=0)


def test_an_observers_lane_changes_no_line_of_the_run(honest, tmp_path):
    """Whoever attests in a copy of the folder must not take its time or its end from it."""
    path = shutil.copytree(honest, tmp_path / "run")
    before = counterfoil.verify(path)
    lane = counterfoil.Run.join(path, lane=0, key=counterfoil.Key.generate(), observes=True)
    lane.flush()
    after = counterfoil.verify(path)
    assert (after.integrity, after.time, after.notes) == (before.integrity, before.time, before.notes)
    lane.close()
    assert reason_of(path) == 0
