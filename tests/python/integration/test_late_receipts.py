"""No step is lost, moved or swapped when its receipt waits for a device, and somebody interferes.

With `cpu` nothing waits; the same must hold.
"""

import gc
import sys
import threading
import weakref

import numpy as np
import pytest
import torch

import counterfoil
from counterfoil import cuda
from counterfoil.errors import DeviceError, InvalidInput
from counterfoil.torch import collect
from training import check, model, reason_of, steps_of, train

FINISHED, INCOMPLETE = 0, 1
module = sys.modules["counterfoil.torch.attach"]


@pytest.fixture(autouse=True, params=["cpu", "device"])
def engine(request):
    if request.param == "device":
        request.getfixturevalue("device")
    return request.param


@pytest.fixture
def run(tmp_path):
    return counterfoil.Run.create(tmp_path / "run")


def attached(run, rate=0.1, **options):
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, **options)
    return net, optimizer, run.attach(net, optimizer)


def interrupt(*_, **__):
    raise KeyboardInterrupt


def gradients(net):
    return {name: parameter.grad.numpy().copy() for name, parameter in net.named_parameters()}


def backward(net):
    net.zero_grad()
    net(torch.randn(6, 50)).square().mean().backward()
    return gradients(net)


def committed(path):
    return [opened["gradients"].commitment for _, opened in steps_of(path)]


def test_nesterov_by_torchs_own_choice_commits_the_applied_gradient(run, monkeypatch):
    """Without `foreach=`, torch steps over lists on a GPU, and writes over the gradients it applied."""
    torchs = sys.modules["torch.optim.optimizer"]
    chosen = torchs._get_foreach_kernels_supported_devices()
    monkeypatch.setattr(torchs, "_get_foreach_kernels_supported_devices", lambda: [*chosen, "cpu"])
    net, optimizer, _ = attached(run, momentum=0.9, nesterov=True)
    applied = []
    with run:
        for _ in range(3):
            applied.append(backward(net))
            optimizer.step()
            assert any((applied[-1][name] != after).any() for name, after in gradients(net).items())
    assert committed(run.path) == [counterfoil.commit_tensors(each) for each in applied]


def test_a_checkpoint_of_the_users_own_names_the_step_just_taken(run):
    """The ledger still stands one step before while a receipt waits."""
    net, optimizer, recorder = attached(run)
    with run:
        applied = train(net, optimizer, recorder, 3)
        weights = {name: parameter.detach() for name, parameter in net.named_parameters()}
        run.record_checkpoint(run.step, {"parameters": run.store(weights)})
        assert run.step == 3
        run.on_close(lambda _: run.record_policy(run.step + 1, {"gradients": 1}))
        applied += train(net, optimizer, recorder, 1)
    check(run.path, applied)
    steps = [r.fields["step"] for r in counterfoil.Record(run.path).receipts() if r.kind == "checkpoint"]
    assert steps == [0, 3, 4]
    assert reason_of(run.path) == FINISHED


@pytest.mark.parametrize("way", ["hooks", "by hand"])
@pytest.mark.parametrize("place", ["hyperparameters", "randomness"])
def test_a_step_whose_recording_was_interrupted_stops_the_recorder(run, monkeypatch, way, place):
    """The lost step's number goes to no other step, its metrics to no other receipt."""
    net, optimizer, recorder = attached(run)
    owner = collect if place == "randomness" else recorder._collect

    def step(loss):
        held = backward(net)
        recorder.log(loss=loss)
        (optimizer.step if way == "hooks" else recorder.record)()
        return held

    with run:
        applied = [step(1.0)]
        with monkeypatch.context() as patch:
            patch.setattr(owner, place, interrupt)
            with pytest.raises(KeyboardInterrupt):
                step(2.0)
        for loss in (3.0, 4.0):
            with pytest.raises(InvalidInput, match=r"not (completed|recorded)"):
                step(loss)
    assert committed(run.path) == [counterfoil.commit_tensors(each) for each in applied]
    assert [opened["metrics"].scalars() for _, opened in steps_of(run.path)] == [{"loss": 1.0}]
    assert reason_of(run.path) == INCOMPLETE


def test_an_interrupted_wait_is_repeated(run, monkeypatch, engine):
    """Ctrl-C while `flush` waits for the device: the receipt comes with the next flush, step or close."""
    net, optimizer, recorder = attached(run)
    with run:
        applied = train(net, optimizer, recorder, 3)
        with monkeypatch.context() as patch:
            patch.setattr(cuda.Roots, "get", interrupt)
            if engine == "device":
                with pytest.raises(KeyboardInterrupt):
                    run.flush()
        applied += train(net, optimizer, recorder, 2)
        with monkeypatch.context() as patch:
            patch.setattr(run, "record_step", interrupt)
            if engine == "device":
                with pytest.raises(KeyboardInterrupt):
                    run.flush()
    check(run.path, applied)
    assert reason_of(run.path) == FINISHED


def test_a_device_that_fails_loses_its_step_and_says_so(run, monkeypatch, engine):
    """A step that can have no receipt ends the recording, and the run does not count as finished."""
    if engine == "cpu":
        return
    net, optimizer, recorder = attached(run)

    def fail(*_):
        raise DeviceError("the device is gone")

    applied = train(net, optimizer, recorder, 2)
    monkeypatch.setattr(cuda.Roots, "get", fail)
    with pytest.raises(DeviceError, match="gone"):
        train(net, optimizer, recorder, 1)
    with pytest.raises(InvalidInput, match="not completed"):
        train(net, optimizer, recorder, 1)
    with pytest.raises(DeviceError, match="gone"):
        run.close()
    check(run.path, applied[:1])
    assert reason_of(run.path) == INCOMPLETE


def test_flushes_of_another_thread_disturb_nothing(run):
    """A thread that anchors the run while it trains must not take a receipt from under the recorder."""
    net, optimizer, recorder = attached(run)
    over = threading.Event()

    def watch():
        while not over.is_set():
            run.tree_head()

    thread = threading.Thread(target=watch)
    with run:
        thread.start()
        applied = train(net, optimizer, recorder, 60)
        over.set()
        thread.join()
    check(run.path, applied)


def test_an_overwriting_optimiser_is_read_before_its_step_whether_or_not_it_calls_the_closure(run):
    """One that leaves its closure alone applies the gradient that stands there already."""

    class Overwriting(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            for parameter in self.param_groups[0]["params"]:
                parameter.grad.mul_(2)
                parameter.add_(parameter.grad, alpha=-0.1)

    net = model()
    optimizer = Overwriting(net.parameters(), lr=0.1)
    with run:
        run.attach(net, optimizer)
        applied = [backward(net)]
        optimizer.step()
        applied.append(backward(net))
        optimizer.step(lambda: None)
    assert committed(run.path) == [counterfoil.commit_tensors(each) for each in applied]


def test_a_gradient_that_may_be_overwritten_is_not_recorded_by_hand(run):
    """After the step nobody can tell what it was before."""
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, foreach=True)
    with run:
        recorder = run.attach(net, optimizer)
        backward(net)
        with pytest.raises(InvalidInput, match="SGD may have overwritten"):
            recorder.record()
        optimizer.step()
    assert len(steps_of(run.path)) == 1


def test_every_callback_is_called_though_one_of_them_fails(run):
    """A callback of the user's own that raises must not keep the last step from being recorded."""
    net, optimizer, recorder = attached(run)
    applied = train(net, optimizer, recorder, 3)

    def fail(_):
        raise ValueError("mine")

    run.on_close(fail)
    with pytest.raises(ValueError, match="mine"):
        run.close()
    check(run.path, applied)
    assert reason_of(run.path) == INCOMPLETE


def test_the_end_of_the_process_writes_the_last_step(run):
    """A script that neither closes nor flushes its run; a copy of the process writes nothing."""
    net, optimizer, recorder = attached(run)
    train(net, optimizer, recorder, 3)
    recorder._process += 1
    module._write_what_waits()
    recorder._process -= 1
    waiting = recorder._unwritten
    module._write_what_waits()
    assert recorder._unwritten is None
    assert waiting is None or waiting.number == 3
    assert "step=3" in repr(run)
    run.close()


def test_a_closed_run_lets_go_of_the_model(run):
    """Its memory is the GPU's, and in a notebook the run's name lives on."""
    net, optimizer, recorder = attached(run)
    train(net, optimizer, recorder, 2)
    seen = weakref.ref(net)
    run.close()
    del net, optimizer, recorder
    gc.collect()
    assert seen() is None


def test_a_found_inf_that_is_no_tensor(run):
    """Optimisers from elsewhere keep what they like under this name."""

    class Own(torch.optim.SGD):
        found_inf = np.True_

        @torch.no_grad()
        def step(self, closure=None):
            pass

    net = model()
    optimizer = Own(net.parameters(), lr=0.1)
    with run:
        recorder = run.attach(net, optimizer)
        train(net, optimizer, recorder, 1)
    assert steps_of(run.path)[0][0].fields["flags"] == 1


def test_a_view_of_a_freed_storage_is_refused():
    """Its address is its offset: reading there ends the process, or a GPU's context."""
    flat = torch.ones(9000)
    view = flat[2000:7000]
    flat.untyped_storage().resize_(0)
    for keep in (False, True):
        with pytest.raises(InvalidInput, match="no memory of its own") as refused:
            counterfoil.commit_tensors({"view": view}, keep=keep)
    assert refused.value.where == "view"


def test_booleans_of_odd_bytes_are_zeros_and_ones():
    """A view of other bytes may hold more; format.md knows two values."""
    odd = torch.tensor([0, 1, 2, 255], dtype=torch.uint8).view(torch.bool)
    expected = counterfoil.commit_tensors({"b": np.array([False, True, True, True])})
    assert counterfoil.commit_tensors({"b": odd}) == expected
    assert counterfoil.commit_tensors({"b": odd}, keep=True) == expected


def test_values_that_are_kept_are_flagged_too(run, monkeypatch, engine):
    """A kept batch of a device that cannot hash is copied without a word otherwise."""
    if engine == "cpu":
        return
    monkeypatch.setattr(cuda.engine, "takes", lambda device: False)
    with pytest.warns(RuntimeWarning, match="no NVIDIA GPU"):
        pending = module.start({"x": torch.ones(3)}, keep=True)
    assert pending.fallback
    assert pending.finish() == counterfoil.commit_tensors({"x": np.ones(3, np.float32)})
    run.close()
