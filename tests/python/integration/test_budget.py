"""A budget is kept by signed policies, never below the floor; and the clock counts each second once."""

import itertools

import pytest
import torch

import counterfoil
from counterfoil.errors import InvalidInput, RunClosed
from counterfoil.torch import budget
from counterfoil.torch.budget import STATE, Budget, Spent
from training import steps_of

USUAL = {"gradients": 1, "parameters": 1, "optimizer": 1, "buffers": 1, "checkpoint": 50, "environment": 50}


class Clock:
    """Time that passes when a test says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(budget, "time", made)
    return made


def simulate(clock, share, floor, costs, steps=4000, training=1.0, usual=USUAL):
    """A training whose parts cost so many seconds each time; what it spent, and every cadence it had."""
    steered, spent, cadence, changes = Budget(share, usual, floor), Spent(), dict(usual), []
    for step in range(1, steps + 1):
        clock.now += training
        with spent.on("receipt"):
            clock.now += costs["receipt"]
        for part, name in (("gradients", "gradients"), ("state", "parameters"), ("checkpoint", "checkpoint")):
            if cadence[name] and step % cadence[name] == 0:
                with spent.on(part):
                    clock.now += costs[part]
                    spent.did(part)
        spent.steps += 1
        chosen = steered.review(spent, cadence)
        if chosen != cadence:
            changes.append((step, chosen))
        cadence = chosen
    return spent.summary(cadence), changes


@pytest.mark.parametrize("share", [0.005, 0.02, 0.1])
@pytest.mark.parametrize("heavy", [0.001, 0.02, 0.3])
def test_what_is_spent_comes_to_the_share_and_not_beyond(clock, share, heavy):
    """Dear checkpoints, or a dear beginning, must be saved again; a cheap training is recorded as usual."""
    costs = {"receipt": 0.0005, "gradients": heavy, "state": 3 * heavy, "checkpoint": 10 * heavy}
    summary, changes = simulate(clock, share, {}, costs)
    assert summary.overhead < 1.05 * share
    usual = 0.0005 + heavy + 3 * heavy + 10 * heavy / 50
    assert summary.overhead > 0.6 * min(share, usual)
    assert len(changes) < 60


def test_no_part_goes_below_the_floor_and_none_above_what_is_usual(clock):
    floor = {"gradients": 7, "parameters": 20}
    costs = {"receipt": 0.001, "gradients": 1.0, "state": 1.0, "checkpoint": 1.0}
    _, changes = simulate(clock, 0.001, floor, costs, usual=USUAL | {"buffers": 0})
    assert changes
    for _, cadence in changes:
        assert 1 <= cadence["gradients"] <= 7 and 1 <= cadence["parameters"] <= 20
        assert cadence["buffers"] == 0 and cadence["checkpoint"] >= 50
    summary, changes = simulate(clock, 0.5, {}, dict.fromkeys(costs, 0.0001))
    assert changes == [] and summary.overhead < 0.001


def test_every_second_counts_for_one_part(clock):
    spent = Spent()
    clock.now += 5
    with spent.on("gradients"):
        clock.now += 2
        with spent.on("receipt"):
            clock.now += 3
        clock.now += 1
    clock.now += 4
    spent.steps = 2
    summary = spent.summary({})
    assert (summary.training, dict(summary.recording)) == (9, {"gradients": 3, "receipt": 3})
    assert summary.overhead == 6 / 9
    assert str(summary).splitlines()[0] == "2 steps: 9.00 s of training, 6.00 s of recording (66.7%)"
    with pytest.raises(ZeroDivisionError), spent.on("gradients"):
        raise ZeroDivisionError
    clock.now += 1
    assert spent.summary({}).training == 10


def net():
    model = torch.nn.Linear(4, 2)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def train(model, optimizer, steps):
    for _ in range(steps):
        model(torch.randn(3, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_budget_is_announced_before_it_is_used(tmp_path, monkeypatch):
    """A cadence that is chosen after the step it speaks of lets a liar leave out what it likes."""
    ticks = itertools.count()
    monkeypatch.setattr(budget, "time", type("", (), {"perf_counter": lambda: next(ticks) * 1.0}))
    model, optimizer = net()
    with counterfoil.Run.create(tmp_path / "run", policy={"gradients": 6}) as run:
        run.attach(model, optimizer, every=2, checkpoint_every=10, budget=0.01)
        train(model, optimizer, 60)
        summary = run.summary()
    receipts = run.receipts()
    names = ("firstStep", "gradientsEvery", "parametersEvery")
    policies = [tuple(r.fields[name] for name in names) for r in receipts if r.kind == "policy"]
    assert len(policies) > 1 and max(every for _, every, _ in policies) <= 6
    for place, receipt in enumerate(receipts):
        if receipt.kind == "policy":
            before = [r.fields["step"] for r in receipts[:place] if r.kind == "step"]
            assert receipt.fields["firstStep"] == max(before, default=0) + 1
    in_force = {first: every for first, every, _ in policies}
    every = 1
    for receipt, opened in steps_of(run.path):
        every = in_force.get(receipt.fields["step"], every)
        assert ("gradients" in opened) == (receipt.fields["step"] % every == 0)
    assert summary.cadence["gradients"] == every > 1
    assert run.summary().steps == summary.steps == 60
    assert counterfoil.verify(run.path).status == "verified"


def test_each_part_has_its_own_cadence(tmp_path):
    model, optimizer = net()
    with counterfoil.Run.create(tmp_path / "run") as run:
        with pytest.raises(InvalidInput, match="no part 'weights'"):
            run.attach(model, optimizer, every={"weights": 2})
        for number in (-1, 2**32, 1.5):
            with pytest.raises(InvalidInput, match="parameters: every"):
                run.attach(model, optimizer, every={"parameters": number})
        for share in (0, 1, -0.5, float("nan")):
            with pytest.raises(InvalidInput, match="between 0 and 1"):
                run.attach(model, optimizer, budget=share)
        with pytest.raises(InvalidInput, match="nothing was attached"):
            run.summary()
        run.attach(
            model, optimizer, every={"gradients": 2, "parameters": 3, "optimizer": 0}, checkpoint_every=0
        )
        train(model, optimizer, 6)
    found = [{name for name in ("gradients", *STATE) if name in opened} for _, opened in steps_of(run.path)]
    assert found == [
        set(), {"gradients"}, {"parameters"}, {"gradients"}, set(), {"gradients", "parameters"},
    ]  # fmt: skip
    assert counterfoil.verify(run.path).status == "verified"
    with pytest.raises(RunClosed):
        run.attach(model, optimizer)
