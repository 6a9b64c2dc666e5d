"""Training whose tensors a device hashes: receipts come a step late, and nothing waits inside a step.

Here the device is the kernel compiled for the CPU, which treats every tensor as a GPU's; what only a
real one can show is measured by `make gpu`.
"""

import warnings
import weakref

import numpy as np
import pytest
import torch

import counterfoil
import host_kernel
from counterfoil import _native, commit, cuda
from counterfoil.errors import DeviceError, InvalidInput
from training import check, model, steps_of, train

FALLBACK = 4


def test_receipts_come_one_step_late_and_hold_their_own_step(tmp_path, device):
    """A receipt of the next step's gradient, or of a gradient that was zeroed meanwhile."""
    net = model()
    optimizer = torch.optim.AdamW(net.parameters())
    with counterfoil.Run.create(tmp_path / "run") as run:
        recorder = run.attach(net, optimizer)
        applied = train(net, optimizer, recorder, 1)
        assert "step=0" in repr(run)
        applied += train(net, optimizer, recorder, 2)
        assert "step=2" in repr(run)
        run.flush()
        assert "step=3" in repr(run)
        applied += train(net, optimizer, recorder, 2)
        assert run.tree_head().size == len(run.receipts())
        applied += train(net, optimizer, recorder, 1)
        assert "step=5" in repr(run)
        assert run.step == 6
    assert device.launched > 6
    check(run.path, applied)
    assert counterfoil.verify(run.path).status == "verified"


def test_no_step_waits_for_its_own_roots(tmp_path, device, monkeypatch):
    """A wait inside the step would drain the device at every step, which costs more than hashing."""
    events = []
    mark = device.mark

    def marked(where):
        number, wait = len(events), mark(where)
        events.append("mark")
        return lambda: (events.append(number), wait())[1]

    monkeypatch.setattr(device, "mark", marked)
    net = model()
    optimizer = torch.optim.AdamW(net.parameters())
    with counterfoil.Run.create(tmp_path / "run") as run:
        recorder = run.attach(net, optimizer, every=2, checkpoint_every=0)
        for _ in range(6):
            loss = net(torch.randn(6, 50)).square().mean()
            loss.backward()
            begun = len(events)
            recorder.log(loss=loss)
            optimizer.step()
            waited = [event for event in events[begun:] if event != "mark"]
            assert all(number < begun for number in waited)
            assert "mark" in events[begun:]


def test_tensors_are_not_kept_until_their_roots_arrive(device):
    """Holding gradients for a step more would double their memory."""
    tensor = torch.randn(1000)
    seen = weakref.ref(tensor)
    pending = commit.start({"w": tensor, "n": np.zeros(3)})
    expected = counterfoil.commit_tensors({"w": tensor.numpy(), "n": np.zeros(3)})
    assert not pending.done
    del tensor
    assert seen() is None
    assert pending.finish() == pending.finish() == expected
    assert pending.done and device.launched


def test_what_lies_on_the_host_is_hashed_before_it_changes(device):
    """In a mixed state the host's tensors change at once, a device's in the order of its stream."""
    host, small = np.arange(5000.0), np.arange(4)
    expected = counterfoil.commit_tensors({"host": host, "t": np.ones(3, np.float32)})
    pending = commit.start({"host": host, "t": torch.ones(3)})
    kept = commit.start({"small": small, "t": torch.ones(3)}, keep=True)
    host[:] = 0
    small[:] = 0
    assert pending.finish() == expected
    assert kept.finish() == counterfoil.commit_tensors({"small": np.arange(4), "t": np.ones(3, np.float32)})
    assert device.launched


def test_every_kind_of_value_beside_a_devices(device):
    """An alias, an absent or empty value, a scalar, a string and a view all keep their meaning."""
    base = torch.randn(6, 8, dtype=torch.complex64)
    state = {
        "a": torch.randn(3, 700).to(torch.bfloat16), "b": counterfoil.Alias("a"), "c": None, "d": 3, "e": "text",
        "f": torch.zeros(0, 4), "g": torch.tensor(2.5), "h": base.conj(), "i": base.conj().imag, "j": base.mT,
        "k": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last), "l": torch.arange(9)[::2],
        "m": (torch.arange(12) % 5 < 2).reshape(3, 4).mT,
        "n": torch.randn(1).expand(300), "o": torch.nn.Parameter(torch.ones(2)),
    }  # fmt: skip
    found = counterfoil.commit_tensors(state)
    kept = counterfoil.commit_tensors(state, keep=True)
    assert device.launched
    cuda.engine = cuda.TorchStreams()
    assert found == kept == counterfoil.commit_tensors(state)


@pytest.mark.parametrize("value", [torch.zeros(2).to_sparse(), torch.zeros(2, dtype=torch.complex128)])
def test_what_cannot_be_committed_is_refused_by_name_on_a_device_too(device, value):
    """A refused value must not become an absent one."""
    with pytest.raises(InvalidInput) as refused:
        counterfoil.commit_tensors({"fine": torch.ones(2), "bad": value})
    assert refused.value.where == "bad"
    with pytest.raises(InvalidInput, match="names are str"):
        counterfoil.commit_tensors({3: torch.ones(2)})
    del device


def test_a_logged_negated_view_keeps_its_sign(tmp_path, device):
    """The imaginary part of a conjugate is negated when it is read; a late copy must not lose that."""
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with counterfoil.Run.create(tmp_path / "run") as run:
        recorder = run.attach(net, optimizer)
        net(torch.randn(6, 50)).square().mean().backward()
        recorder.log(loss=torch.tensor([1 + 2j]).conj().imag[0])
        optimizer.step()
    assert steps_of(run.path)[0][1]["metrics"].scalars() == {"loss": -2.0}
    assert device.launched


def test_pytorchs_own_stream_of_the_tensors_device_is_used(monkeypatch):
    """Another stream or device, or an event that nobody waits for, would read what is not there yet."""
    told = []

    class Stream:
        def __init__(self, device):
            self.device, self.cuda_stream = device, 5000 + device.index

    class Event:
        def record(self, stream):
            told.append(("record", stream.device.index, stream.cuda_stream))

        def synchronize(self):
            told.append(("wait",))

    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(_native, "cuda_launch", lambda *given: told.append(given))
    engine, second = cuda.TorchStreams(), torch.device("cuda", 1)
    engine.launch(second, [(1, 2, 3, 0, 4)])
    wait = engine.mark(second)
    assert told == [(1, 5001, [(1, 2, 3, 0, 4)]), ("record", 1, 5001)]
    wait()
    assert told[2:] == [("wait",)]
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert (
        engine.takes(second)
        and not engine.takes(torch.device("mps"))
        and engine.away(torch.ones(1).to("meta"))
    )
    monkeypatch.setattr(torch.version, "cuda", None)
    assert not engine.takes(second) and not engine.away(torch.ones(1)) and not engine.away(np.ones(1))


class Broken(host_kernel.HostEngine):
    """A device that cannot hash, or that hashes wrongly."""

    problem = ""

    def takes(self, device):
        return self.problem != "other"

    def launch(self, device, launches):
        if self.problem == "driver":
            raise DeviceError("cuModuleLoadData failed with CUDA_ERROR_UNSUPPORTED_PTX_VERSION")
        super().launch(device, launches)
        if self.problem == "wrong":
            np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint8 * 1).from_address(launches[-1][4]))[0] ^= 1


@pytest.mark.parametrize(
    ("problem", "text"),
    [("other", "no NVIDIA GPU"), ("driver", "UNSUPPORTED_PTX"), ("wrong", "answers to a known question")],
)
def test_a_device_that_cannot_hash_is_named_and_its_steps_are_flagged(
    tmp_path, compiled, monkeypatch, problem, text
):
    """A silent fallback would hide a slow path; a kernel that computes nonsense would sign it."""
    engine = Broken(compiled)
    engine.problem = problem
    monkeypatch.setattr(cuda, "engine", engine)
    monkeypatch.setattr(cuda, "_problems", {})
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with counterfoil.Run.create(tmp_path / "run") as run:
        with pytest.warns(RuntimeWarning, match=text):
            recorder = run.attach(net, optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # said once
            applied = train(net, optimizer, recorder)
    check(run.path, applied, FALLBACK)
    verdict = counterfoil.verify(run.path)
    assert verdict.status == "verified"
    assert any("4 of 4 steps were copied from their device" in note for note in verdict.notes)


def test_the_last_step_is_recorded_when_training_ends_by_an_exception(tmp_path, device):
    """A run that is interrupted right after a step has that step's receipt."""
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(KeyboardInterrupt), counterfoil.Run.create(tmp_path / "run") as run:
        applied = train(net, optimizer, run.attach(net, optimizer), 3)
        raise KeyboardInterrupt
    check(run.path, applied)
    assert device.launched


def test_a_step_without_hooks_is_recorded_on_request(tmp_path, device):
    """The replay of a CUDA graph calls no Python: its steps are recorded by hand, none twice."""
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    applied = []
    with counterfoil.Run.create(tmp_path / "run") as run:
        recorder = run.attach(net, optimizer)
        for _ in range(3):
            net(torch.randn(6, 50)).square().mean().backward()
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter -= 0.1 * parameter.grad
            recorder.log(loss=0.5)
            recorder.record()
            applied.append({name: p.grad.clone() for name, p in net.named_parameters()} | {"loss": 0.5})
            optimizer.zero_grad(set_to_none=False)
    check(run.path, applied)
    assert device.launched


def test_nothing_is_hashed_inside_the_capture_of_a_graph(tmp_path, device, monkeypatch):
    """A captured hash would be computed at every replay and recorded at none."""
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with counterfoil.Run.create(tmp_path / "run") as run:
        recorder = run.attach(net, optimizer)
        net(torch.randn(6, 50)).square().mean().backward()
        launched = device.launched
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_initialized", lambda: True)
            patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
            with pytest.raises(InvalidInput, match="attach after the capture"):
                optimizer.step()
            for keep in (False, True):
                with pytest.raises(InvalidInput, match="attach after the capture"):
                    counterfoil.commit_tensors({"w": torch.ones(3)}, keep=keep)
            for attempt in (recorder.record, lambda: run.attach(net, optimizer)):
                with pytest.raises(InvalidInput, match="attach after the capture"):
                    attempt()
        assert device.launched == launched
        optimizer.step()
    assert len(steps_of(run.path)) == 1
