"""A run that is killed goes on from what it stored, and from nothing else."""

import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint
from torch.utils.data import DataLoader, TensorDataset

import counterfoil
from counterfoil.errors import InvalidInput, NotFound, Refuted
from counterfoil.torch import replay

resume = importlib.import_module("counterfoil.torch.resume")

STEPS = 40

RECIPE = """
import torch


def recipe(spec):
    torch.manual_seed(spec["seed"])
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.3), torch.nn.Linear(16, 2)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.9)

    def step(batch, number, log):
        optimizer.zero_grad()
        loss = (model(batch[0]) - batch[1]).square().mean()
        loss.backward()
        log(loss=loss)
        optimizer.step()
        schedule.step()

    step.schedule = schedule
    return model, optimizer, step
"""

SCRIPT = """
import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

import counterfoil

folder, threads, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
sys.path.insert(0, str(folder))
import recipe

torch.set_num_threads(threads)
generator = torch.Generator().manual_seed(3)
data = TensorDataset(torch.randn(56, 6, generator=generator), torch.randn(56, 2, generator=generator))
model, optimizer, step = recipe.recipe({"seed": 1})
path = folder / "run"
begun = path.exists()
run = counterfoil.Run.open(path) if begun else counterfoil.Run.create(
    path, spec={"seed": 1}, recipe=folder / "recipe.py"
)
with run:
    recorder = run.attach(
        model, optimizer, every=4, checkpoint_every=8, also={"schedule": step.schedule}, restore=begun
    )
    loader = DataLoader(data, batch_size=8, shuffle=True)
    while run.step < last:
        for batch in run.batches(loader):
            step(batch, run.step + 1, recorder.log)
            print(run.step, flush=True)
            if run.step == last:
                break
torch.save(model.state_dict(), folder / "final.pt")
"""


def start(folder: Path, threads: int = 1) -> subprocess.Popen[str]:
    (folder / "recipe.py").write_text(RECIPE)
    (folder / "train.py").write_text(SCRIPT)
    command = [sys.executable, str(folder / "train.py"), str(folder), str(threads), str(STEPS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(folder: Path, threads: int = 1) -> None:
    process = start(folder, threads)
    process.communicate(timeout=240)
    assert process.returncode == 0


def kill(folder: Path, at: int) -> None:
    """Kills the training a moment after it has said a step's number."""
    process = start(folder)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= at:
            time.sleep(random.random() / 500)
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of a training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    finish(folder)
    return torch.load(folder / "final.pt")


def test_a_run_that_is_killed_anywhere_is_continued_and_ends_with_the_same_bits(tmp_path, whole):
    """Lost batches, another epoch's order, other dropout, moments or running means would all show."""
    seed = int(os.environ.get("RESUME_SEED", time.time_ns() % 100_000))
    print(f"RESUME_SEED={seed}")
    random.seed(seed)
    moments = sorted(random.randint(1, STEPS - 1) for _ in range(int(os.environ.get("RESUME_KILLS", "2"))))
    for moment in moments:
        kill(tmp_path, moment)
        assert counterfoil.verify(tmp_path / "run").status in ("verified", "undecided")
    finish(tmp_path)
    run = tmp_path / "run"
    verdict = counterfoil.verify(run)
    assert verdict.status == "verified" and verdict.integrity.startswith("intact;")
    final = torch.load(tmp_path / "final.pt")
    assert all(torch.equal(value, final[name]) for name, value in whole.items()), moments
    replayed = replay(run, "all", recipe=counterfoil.Record(run).recipe_digest)
    assert replayed.transition.startswith(f"replayed {STEPS} of {STEPS} by you, bit-exact")


def test_a_process_with_other_threads_may_go_on_and_is_replayed(tmp_path):
    """Replay that kept the first process's threads would refute honest work."""
    kill(tmp_path, 20)
    finish(tmp_path, threads=2)
    run = tmp_path / "run"
    verdict = replay(run, "all", recipe=counterfoil.Record(run).recipe_digest)
    assert verdict.transition.startswith(f"replayed {STEPS} of {STEPS} by you, bit-exact")
    environments = [
        counterfoil.Record(run).opened(receipt)["environment"].scalars()["threads"]
        for receipt in counterfoil.Record(run).receipts()
        if receipt.kind == "checkpoint"
    ]
    assert set(environments) == {1, 2}


def net(seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    return model, torch.optim.Adam(model.parameters(), lr=0.01)


def train(run, model, optimizer, steps, **options):
    run.attach(model, optimizer, every=2, checkpoint_every=2, **options)
    for x in run.batches([torch.randn(5, 3) for _ in range(steps)]):
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture
def begun(tmp_path):
    """A run of five steps, and what it trained."""
    model, optimizer = net()
    with counterfoil.Run.create(tmp_path / "run") as run:
        train(run, model, optimizer, 5)
    return run.path, model, optimizer


def other_weights(model, optimizer):
    del optimizer
    torch.nn.init.ones_(model[0].weight)


def other_moments(model, optimizer):
    optimizer.state[model[0].weight]["exp_avg"].mul_(2)


def other_means(model, optimizer):
    del optimizer
    model[1].running_mean.add_(1)


LOADS = {other_weights: "parameters", other_moments: "optimizer", other_means: "buffers"}


@pytest.mark.parametrize("load", LOADS)
def test_a_resume_from_another_checkpoint_is_refuted(begun, monkeypatch, load):
    """Whoever trains elsewhere, or longer, and hangs the result onto a recorded beginning."""
    path, model, optimizer = begun
    load(model, optimizer)
    monkeypatch.setattr(resume, "check", lambda run, fields: None)
    with counterfoil.Run.open(path) as run:
        train(run, model, optimizer, 3)
    with pytest.raises(Refuted) as refuted:
        counterfoil.verify(path)
    assert refuted.value.verdict.broken[0].edge.endswith(f"{LOADS[load]} <- its step")


@pytest.mark.parametrize("load", LOADS)
def test_the_recorder_never_writes_what_would_be_refuted(begun, load):
    path, model, optimizer = begun
    load(model, optimizer)
    with counterfoil.Run.open(path) as run:
        with pytest.raises(InvalidInput, match="restore=True") as refused:
            run.attach(model, optimizer)
        assert refused.value.where.startswith(f"{LOADS[load]}/")
        assert refused.value.expected != refused.value.actual
    assert counterfoil.verify(path).status == "verified"
    with counterfoil.Run.open(path) as run:
        train(run, model, optimizer, 2, restore=True)
        assert run.step == 7
    assert counterfoil.verify(path).status == "verified"


def test_the_same_process_goes_on_where_it_stands(begun):
    path, model, optimizer = begun
    with counterfoil.Run.open(path) as run:
        train(run, model, optimizer, 2)
        assert run.step == 7
    assert counterfoil.verify(path).status == "verified"


def test_a_step_without_a_recorded_state_is_no_place_to_go_on_from(begun):
    path, model, optimizer = begun
    with counterfoil.Run.open(path) as run:
        run.record_policy(6, {"gradients": 1})
        run.record_step(6, {"gradients": counterfoil.commit_tensors({"w": torch.ones(2)})})
        with pytest.raises(InvalidInput, match="state after step 6 is not recorded"):
            run.attach(model, optimizer)
        run.attach(model, optimizer, restore=True)
        assert run.step == 5
    verdict = counterfoil.verify(path)
    assert verdict.status == "verified"
    assert any(note.startswith("1 more recorded steps were abandoned") for note in verdict.notes)


def test_a_checkpoint_that_is_not_whole_is_named(begun, tmp_path):
    path, model, optimizer = begun
    with counterfoil.Run.create(tmp_path / "new") as run:
        run.record_policy(1, {"gradients": 1})
        run.record_step(1, {"gradients": counterfoil.commit_tensors({"w": torch.ones(2)})})
        with pytest.raises(NotFound, match="no stored checkpoint"):
            run.attach(model, optimizer, restore=True)
    with counterfoil.Run.open(path) as run:
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        with pytest.raises(InvalidInput, match="'schedule'"):
            run.attach(model, optimizer, restore=True, also={"schedule": schedule})
        smaller = torch.nn.Sequential(torch.nn.Linear(3, 4))
        with pytest.raises(InvalidInput, match="differ in"):
            run.attach(smaller, torch.optim.Adam(smaller.parameters()), restore=True)
        for stored in (path / "objects").iterdir():
            stored.unlink()
        with pytest.raises(NotFound, match="not stored any more"):
            run.attach(model, optimizer, restore=True)


def test_what_else_is_stored_comes_back(tmp_path):
    """A scheduler that is a step behind, or a scale that begins anew, gives other weights."""

    def made():
        model, optimizer = net()
        scaler = torch.amp.GradScaler("cpu", init_scale=512.0, growth_interval=2)
        return (
            model,
            optimizer,
            {
                "schedule": torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5]),
                "scaler": scaler,
            },
        )

    def steps(run, model, optimizer, also, count, **options):
        run.attach(model, optimizer, every=1, checkpoint_every=3, also=also, **options)
        scaler = also["scaler"]
        generator = torch.Generator().manual_seed(1)
        data = TensorDataset(torch.randn(20, 3, generator=generator))
        loader = DataLoader(data, batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(2))
        while run.step < count:
            for (x,) in run.batches(loader):
                scaler.scale(model(x).square().mean()).backward()
                scaler.step(optimizer)
                scaler.update()
                also["schedule"].step()
                optimizer.zero_grad()
                if run.step == count:
                    break

    torch.manual_seed(8)
    model, optimizer, also = made()
    with counterfoil.Run.create(tmp_path / "whole") as run:
        steps(run, model, optimizer, also, 9)
    torch.manual_seed(8)
    first = made()
    with counterfoil.Run.create(tmp_path / "parts") as run:
        steps(run, *first, 6)
    torch.manual_seed(99)
    second = made()
    with counterfoil.Run.open(tmp_path / "parts") as run:
        steps(run, *second, 9, restore=True)
    assert second[2]["scaler"].state_dict() == also["scaler"].state_dict()
    assert second[2]["schedule"].state_dict() == also["schedule"].state_dict()
    for one, two in zip(model.parameters(), second[0].parameters(), strict=True):
        assert torch.equal(one, two)
    assert counterfoil.verify(tmp_path / "parts").status == "verified"


def test_numbers_of_an_optimiser_come_back_as_numbers(tmp_path):
    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    count = self.state[parameter].get("count", 0)
                    assert type(count) is int
                    self.state[parameter]["count"] = count + 1
            return super().step(closure)

    model, _ = net()
    with counterfoil.Run.create(tmp_path / "run") as run:
        train(run, model, Counting(model.parameters(), lr=0.1), 3)
    with counterfoil.Run.open(tmp_path / "run") as run:
        optimizer = Counting(model.parameters(), lr=0.1)
        train(run, model, optimizer, 2, restore=True)
    assert optimizer.state[model[0].weight]["count"] == 5


def test_what_could_not_be_restored_is_refused_when_it_is_attached(tmp_path):
    model, optimizer = net()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: np.cos(epoch))
    with counterfoil.Run.create(tmp_path / "run") as run, pytest.raises(InvalidInput, match="'schedule'"):
        run.attach(model, optimizer, also={"schedule": schedule})


def test_files_of_a_checkpoint_are_bound_by_their_bytes(begun, tmp_path):
    path, model, optimizer = begun
    saved = tmp_path / "saved"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of torch's, about its own ways
        torch.distributed.checkpoint.save(
            {"model": model.state_dict()}, checkpoint_id=saved / "dcp", no_dist=True
        )
    torch.save(optimizer.state_dict(), saved / "optimizer.pt")
    with counterfoil.Run.open(path) as run:
        train(run, model, optimizer, 1)
        run.record_files(saved)
        run.record_files(saved / "optimizer.pt")
        with pytest.raises(NotFound):
            run.record_files(tmp_path / "missing")
    assert counterfoil.saved_at(path, saved) == counterfoil.saved_at(path, saved / "optimizer.pt") == 6
    moved = Path(shutil.copytree(saved, tmp_path / "moved"))
    counterfoil.export(path, tmp_path / "x.counterfoil", tensors=["extensions"])
    assert counterfoil.saved_at(tmp_path / "x.counterfoil", moved) == 6
    changed = moved / "optimizer.pt"
    changed.write_bytes(changed.read_bytes()[:-1] + b"!")
    with pytest.raises(NotFound, match="not what this run recorded"):
        counterfoil.saved_at(path, moved)
    with counterfoil.Run.join(path, key=counterfoil.Key.generate(), lane=0) as stranger:
        stranger.record_files(changed)
    with pytest.raises(NotFound, match="not what this run recorded"):
        counterfoil.saved_at(path, changed)
    with counterfoil.Run.open(path) as run:
        train(run, model, optimizer, 1, restore=True)
    assert counterfoil.verify(path).status == "verified"
