"""Two real trainings with PyTorch, one of which has a fault: where it began is found, and from what it comes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import counterfoil
from training import tensor_bytes

STEPS, AT = 6, 4


class Training:
    """A small training into which a fault can be put at step `AT`."""

    seed, threads, swapped, autocast, rate, nudged, steps = 0, 1, False, False, 1.0, False, STEPS

    def __init__(self, spec: dict[str, object] | None = None, **changes: object) -> None:
        self.spec = spec
        vars(self).update(changes)

    def record(self, path: Path, **options: object) -> list[dict[str, torch.Tensor]]:
        """Returns the parameters behind each step."""
        torch.manual_seed(self.seed)
        torch.set_num_threads(self.threads)
        net = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.Tanh(), torch.nn.Linear(40, 3))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        states, made = [], 0
        draw = torch.Generator().manual_seed(3)
        inputs = torch.randn(8 * STEPS, 30, generator=draw)
        order = list(range(8 * STEPS))
        if self.swapped:
            first, other = 8 * (AT - 1), 8 * AT
            order[first:other], order[other : other + 8] = order[other : other + 8], order[first:other]
        loader = DataLoader(TensorDataset(inputs, inputs[:, :3].sin()), batch_size=8, sampler=order)

        def nudge(*_: object) -> None:
            if made + 1 == AT and self.nudged:
                with torch.no_grad():
                    net[2].weight.view(torch.int32)[1, 7] += 1

        with counterfoil.Run.create(path, spec=self.spec) as run:
            recorder = run.attach(net, optimizer, **({"every": 1, "checkpoint_every": 1} | options))
            # Before the recorder's own hook: a lie must stand when the state is hashed.
            handle = optimizer.register_step_post_hook(nudge)
            optimizer._optimizer_step_post_hooks.move_to_end(handle.id, last=False)
            for x, y in run.batches(loader):
                is_faulty = made + 1 == AT
                for group in optimizer.param_groups:
                    group["lr"] = 0.05 * (self.rate if is_faulty else 1)
                with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast and is_faulty):
                    loss = (net(x) - y).square().mean()
                loss.backward()
                recorder.log(loss=loss)
                optimizer.step()
                optimizer.zero_grad()
                made += 1
                states.append({name: value.detach().clone() for name, value in net.named_parameters()})
                if made == self.steps:
                    break
        return states


@pytest.fixture(autouse=True)
def threads():
    """Leaves the number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def honest(home, tmp_path_factory):
    path = tmp_path_factory.mktemp("honest") / "run"
    return path, Training().record(path)


def compare(honest, tmp_path: Path, **changes: object):
    """The first difference, both ways round."""
    path, _ = honest
    states = Training(**changes).record(tmp_path / "run")
    found, turned = (
        counterfoil.diff(path, tmp_path / "run").first,
        counterfoil.diff(tmp_path / "run", path).first,
    )
    assert (found.ours, found.theirs) == (turned.theirs, turned.ours)
    assert (found.step, found.field, found.tensor, found.index) == (
        turned.step, turned.field, turned.tensor, turned.index,
    )  # fmt: skip
    return found, states


def test_the_same_training_twice(honest, tmp_path) -> None:
    """A field that differs by itself, run by run, would accuse everybody."""
    path, _ = honest
    Training().record(tmp_path / "run")
    found = counterfoil.diff(path, tmp_path / "run")
    assert (found.first, found.steps, found.gaps) == (None, STEPS, ())


def test_another_seed_is_found_in_the_initial_state(honest, tmp_path) -> None:
    found, _ = compare(honest, tmp_path, seed=1, spec={"seed": 1})
    assert (found.kind, found.step, found.field, found.tensor) == ("checkpoint", 0, "parameters", "0.bias")
    assert found.index == (0,) and found.chunk == 0
    assert found.diagnosis.startswith(
        "the trainings began from other values: other seed or other initial weights"
    )
    assert found.diagnosis.endswith("the specifications differ in seed (none | 1)")


def test_a_swapped_batch_is_found(honest, tmp_path) -> None:
    found, _ = compare(honest, tmp_path, swapped=True)
    assert (found.step, found.field, found.tensor) == (AT, "batch", "0")
    assert found.ours == "its bytes are not stored"
    assert found.diagnosis == "batch differs: other data or order"


def test_another_learning_rate_is_found(honest, tmp_path) -> None:
    found, _ = compare(honest, tmp_path, rate=1.0001)
    assert (found.step, found.field, found.tensor) == (AT, "hyperparameters", "0/lr")
    assert found.diagnosis == f"hyperparameters 0/lr differ: 0.05 | {0.05 * 1.0001}"
    assert found.theirs.startswith(f"{0.05 * 1.0001} (0x")


def test_one_bit_of_one_parameter_is_found(honest, tmp_path) -> None:
    """The smallest lie that there is, with all inputs equal: the update was not the recorded one."""
    found, states = compare(honest, tmp_path, nudged=True)
    assert (found.step, found.kind, found.field, found.tensor) == (AT, "step", "parameters", "2.weight")
    assert (found.index, found.chunk, found.ulps, found.differing) == ((1, 7), 0, 1, 1)
    lie = states[AT - 1]["2.weight"][1, 7]
    assert found.theirs == f"{lie.numpy()[()]!s} (0x{tensor_bytes(lie.reshape(1))[::-1].hex()})"
    assert found.diagnosis.startswith("gradients and everything before are equal, parameters differ")


def test_one_step_in_lower_precision_is_found(honest, tmp_path) -> None:
    found, _ = compare(honest, tmp_path, autocast=True)
    assert (found.step, found.field, found.tensor) == (AT, "gradients", "0.bias")
    assert (
        found.diagnosis
        == "gradients differ: everything before is equal: forged, other code or precision, or nondeterminism"
    )


def test_threads_are_named_where_bits_differ(tmp_path) -> None:
    """On a machine where they give other bits; equal bits must not be called different."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one thread is all there is")
    paths, products = [], []
    inputs = torch.randn(1_000_001, generator=torch.Generator().manual_seed(1))
    for threads in (1, 2):
        torch.set_num_threads(threads)
        weight = torch.nn.Parameter(torch.zeros(4, 4))
        model = torch.nn.ParameterList([weight])
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        with counterfoil.Run.create(tmp_path / str(threads)) as run:
            run.attach(model, optimizer, every=1, checkpoint_every=1)
            for (batch,) in run.batches([(inputs,)]):
                (weight.sum() * batch.sum()).backward()
                optimizer.step()
        paths.append(run.path)
        products.append(weight.detach().clone())
    found = counterfoil.diff(*paths).first
    different = np.argwhere((products[0] != products[1]).numpy())
    if not len(different):
        assert found is None
        return
    assert (found.step, found.field) == (1, "gradients")
    assert "the environments differ in threads (1 | 2): expect other bits" in found.diagnosis


def test_a_run_that_was_continued_equals_one_that_was_not(honest, tmp_path) -> None:
    """The checkpoint at which it was continued stands twice, and a resume lies between."""
    path, _ = honest
    Training(steps=3).record(tmp_path / "run")
    found = counterfoil.diff(path, tmp_path / "run")
    assert (found.first.step, found.first.theirs) == (4, "not recorded: 3 is the last")
    draw = torch.Generator().manual_seed(3)
    inputs = torch.randn(8 * STEPS, 30, generator=draw)
    data = TensorDataset(inputs, inputs[:, :3].sin())
    net = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.Tanh(), torch.nn.Linear(40, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    torch.set_num_threads(1)
    with counterfoil.Run.open(tmp_path / "run") as run:
        recorder = run.attach(net, optimizer, every=1, checkpoint_every=1, restore=True)
        for x, y in run.batches(DataLoader(data, batch_size=8, sampler=range(8 * STEPS))):
            loss = (net(x) - y).square().mean()
            loss.backward()
            recorder.log(loss=loss)
            optimizer.step()
            optimizer.zero_grad()
            if run.step == STEPS:
                break
    assert run.step == STEPS
    found = counterfoil.diff(path, tmp_path / "run")
    assert (found.first, found.steps) == (None, STEPS), found
