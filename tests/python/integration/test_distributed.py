"""Ranks under DistributedDataParallel on gloo, each with a key and a lane of its own."""

import itertools
import shutil
import socket

import numpy as np
import pytest
import torch

import counterfoil
import ranks as trained
from counterfoil.torch.replay import replay
from training import state_root

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


PAIR = ("ddp", 2)


@pytest.fixture(scope="module", params=[PAIR, ("ddp", 3), ("fsdp", 2), ("fsdp", 3)])
def recorded(request, tmp_path_factory):
    """A folder for each scenario, and how many ranks there were."""
    engine, count = request.param
    folder = tmp_path_factory.mktemp(f"{engine}{count}")
    (folder / "recipe.py").write_text(trained.RECIPE)
    scenarios = ["honest", "noise", "drop", "alone", *["late"] * (request.param is PAIR)]
    for name in scenarios:
        (folder / name).mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(trained.work, (engine, count, port, folder, scenarios), count)
    return folder, count


def opened(path):
    """The opened fields of each step, by lane."""
    record = counterfoil.Record(path)
    lanes = {lane: record.receipts(worker, lane) for worker, lane in record.lanes}
    return {
        lane: [record.opened(r) for r in receipts if r.kind == "step"] for lane, receipts in lanes.items()
    }


def contributions(count):
    """What each rank has to contribute at the first step, by a model that knows no ranks."""
    for rank in range(count):
        model = trained.build()
        images, digits = trained.shard(rank, count)[0]
        torch.nn.functional.cross_entropy(model(images), digits).backward()
        yield {name: parameter.grad for name, parameter in model.named_parameters()}


def clipped(gradients):
    parameters = [torch.nn.Parameter(value) for value in gradients.values()]
    for parameter in parameters:
        parameter.grad = parameter.detach().clone()
    torch.nn.utils.clip_grad_norm_(parameters, 0.5)
    return {name: parameter.grad for name, parameter in zip(gradients, parameters, strict=True)}


def test_contributions_and_the_applied_gradient_are_those_of_a_single_process(recorded):
    torch.set_num_threads(1)
    folder, count = recorded
    lanes = opened(folder / "honest/run")
    assert sorted(lanes) == list(range(count))
    expected = list(contributions(count))
    for rank, gradients in enumerate(expected):
        assert lanes[rank][0]["contribution"].commitment.root == state_root(gradients)
    applied = {each[0]["gradients"].commitment.root for each in lanes.values()}
    # Of two summands the order is nothing; of three, gloo takes another one in each part of a buffer.
    sums = [
        {name: sum(each[name] / count for each in order) for name in expected[0]}
        for order in itertools.permutations(expected)
    ]
    if count == 2:
        assert applied == {state_root(clipped(sums[0]))}
    held = np.load(folder / "honest/0.npz")
    for name in expected[0]:
        close = [np.isclose(held[f"0/{name}"], clipped(each)[name], rtol=1e-5, atol=1e-8) for each in sums]
        assert np.all(np.logical_or.reduce(close))
    for step in range(trained.STEPS):
        # What this rank's optimiser was given, by its own note.
        for rank in range(count):
            note = np.load(folder / f"honest/{rank}.npz")
            values = {name: torch.from_numpy(note[f"{step}/{name}"]) for name in expected[0]}
            assert lanes[rank][step]["gradients"].commitment.root == state_root(values)


def test_honest_ranks_are_verified_and_replayed(recorded):
    folder, count = recorded
    verdict = counterfoil.verify(folder / "honest/run")
    assert verdict.status == "verified"
    note = f"{count} ranks contributed; at {trained.STEPS} steps they are shown to have applied one gradient"
    assert note in verdict.notes
    verdict = replay(folder / "honest/run", recipe=counterfoil.Record(folder / "honest/run").recipe_digest)
    # What all ranks made of their contributions is not executed, so that none of these counts as replayed.
    assert verdict.status == "verified" and "bit-exact" not in verdict.transition
    reproduced = f"its contribution to {trained.STEPS} steps was computed again, bit-exact"
    assert len([note for note in verdict.notes if reproduced in note]) == count


@pytest.mark.parametrize("cheat", ["noise", "drop"])
def test_a_rank_that_contributes_something_else_than_its_batch_gives_is_named(recorded, cheat):
    """Its applied gradients are the others' as well: only executing its step again tells."""
    folder, count = recorded
    assert counterfoil.verify(folder / cheat / "run").status == "verified"
    with pytest.raises(counterfoil.Refuted) as refused:
        replay(folder / cheat / "run", "1", run_untrusted=True)
    (edge,) = refused.value.verdict.broken
    worker = next(w for w, lane in counterfoil.Record(folder / cheat / "run").lanes if lane == count - 1)
    assert f"{worker} lane {count - 1}: contribution" in edge.edge


@pytest.mark.parametrize("recorded", [PAIR], indirect=True)
def test_a_difference_behind_the_first_checkpoint_is_no_accusation(recorded):
    """A recipe may keep what no checkpoint holds, and the steps before are not executed."""
    folder, count = recorded
    verdict = replay(folder / "late/run", "2", run_untrusted=True)
    assert verdict.status == "undecided"
    (named,) = [text for text in verdict.missing if "contribution" in text]
    assert f"lane {count - 1}" in named


def test_a_contribution_that_nobody_shares_hides_no_step_from_replay(tmp_path):
    """Whoever adds one to the receipts of a single process gains nothing: its steps do not count as replayed."""
    torch.set_num_threads(1)
    (tmp_path / "recipe.py").write_text(trained.RECIPE)
    model = trained.build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with counterfoil.Run.create(tmp_path / "run", recipe=tmp_path / "recipe.py") as run:
        run.attach(model, optimizer, every={"contribution": 1}, checkpoint_every=1)
        for images, digits in run.batches(trained.shard(0, 1)):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), digits).backward()
            for parameter in model.parameters():
                parameter.grad.mul_(-7)
            optimizer.step()
    verdict = replay(tmp_path / "run", recipe=counterfoil.Record(tmp_path / "run").recipe_digest)
    assert "bit-exact" not in verdict.transition


def test_a_rank_that_applies_something_else_is_named(recorded):
    folder, count = recorded
    if folder.name.startswith("fsdp"):
        # No rank has the whole gradient: what one changes in its part stands in the root of each, as the docs say.
        assert counterfoil.verify(folder / "alone/run").status == "verified"
        return
    with pytest.raises(counterfoil.Refuted) as refused:
        counterfoil.verify(folder / "alone/run")
    named = [edge.edge for edge in refused.value.verdict.broken if "gradients of step 2" in edge.edge]
    assert len(named) == (2 if count == 2 else 1)
    assert any(f"lane {count - 1}" in edge for edge in named)


def test_a_rank_that_presents_another_ranks_receipts_is_named(recorded, tmp_path):
    folder, count = recorded
    copy = shutil.copytree(folder / "honest/run", tmp_path / "run")
    journals = {
        lane: copy / f"workers/{worker.lower()}/{lane}/journal"
        for worker, lane in counterfoil.Record(copy).lanes
    }
    shutil.copy(journals[0], journals[count - 1])
    with pytest.raises(counterfoil.Refuted) as refused:
        counterfoil.verify(copy)
    assert any(f"lane {count - 1}" in edge.edge for edge in refused.value.verdict.broken)
