"""A replay refutes every lie it is shown, accuses nobody it could not check, and runs no code unasked."""

import fcntl
import importlib
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import counterfoil
from counterfoil.errors import InvalidInput, Refuted
from counterfoil.torch import collect, confine, replay, wire
from counterfoil.torch.demo import lying, mlp, transformer
from replays import MLP, STEPS, TRANSFORMER, data, record

# The functions of the same names hide these two modules from `from ... import`.
attach = importlib.import_module("counterfoil.torch.attach")
replaying = importlib.import_module("counterfoil.torch.replay")


def report(path, steps="all", timeout=60.0):
    return replaying.re_execute(counterfoil.Record(path), steps, timeout)


@pytest.mark.parametrize(("module", "spec"), [(mlp, MLP), (transformer, TRANSFORMER)])
def test_an_honest_run_replays_bit_for_bit(tmp_path, module, spec):
    seen = report(record(tmp_path / "run", module, spec))
    assert seen.refuted == () and seen.steps == tuple(range(1, STEPS + 1))
    assert seen.notes == ()


def test_chosen_steps_start_from_the_nearest_checkpoint_with_sparse_states(tmp_path):
    path = record(tmp_path / "run", every=3)
    seen = report(path, [2, 5, 6])
    assert seen.steps == (2, 5, 6) and seen.refuted == ()
    digest = counterfoil.Record(path).recipe_digest
    verdict = replay(path, "sample:2", recipe=digest)
    assert verdict.status == "verified"


def test_a_learning_rate_lie_is_named_at_its_step_and_tensor(tmp_path):
    path = record(tmp_path / "run", lie=lying(5))
    assert counterfoil.verify(path).status == "verified"
    with pytest.raises(Refuted) as caught:
        replay(path, "2:7", run_untrusted=True)
    assert "5" in str(caught.value)
    (mismatch,) = report(path, "2:7").refuted
    assert (mismatch.step, mismatch.field) == (5, "parameters")
    assert mismatch.tensor in dict(mlp.recipe(MLP)[0].named_parameters())


def test_a_lie_between_sparse_parameters_is_found_at_the_checkpoint_behind_it(tmp_path):
    (mismatch,) = report(record(tmp_path / "run", lie=lying(3), every=0), [7, 3]).refuted
    assert (mismatch.step, mismatch.field) == (3, "checkpoint parameters")


def zeros(recorder):
    real = recorder._collect.gradients
    recorder._collect.gradients = lambda of: {
        name: torch.zeros_like(value) if isinstance(value, torch.Tensor) else value for name, value in real(of).items()
    }  # fmt: skip


def skipped(recorder):
    real = recorder._collect.gradients
    recorder._collect.gradients = lambda of: dict.fromkeys(real(of))


def ignored_batch(recorder):
    real = recorder.feed
    first = []

    def feed(batch, samples):
        first.append(batch)
        real(first[0], samples)

    recorder.feed = feed


def state_before(recorder):
    real = recorder._collect.parameters
    kept = [{name: value.clone() for name, value in real().items()}]

    def parameters():
        kept.append({name: value.clone() for name, value in real().items()})
        return kept.pop(0)

    recorder._collect.parameters = parameters


def forged_loss(recorder):
    real = recorder.log
    recorder.log = lambda loss: real(loss=loss * 0.99)


@pytest.mark.parametrize(
    ("mutant", "field"),
    [
        (zeros, "gradients"),
        (skipped, "gradients"),
        (ignored_batch, "gradients"),
        (state_before, "parameters"),
        (forged_loss, "metrics"),
    ],
)
def test_a_recorder_that_lies_fails_replay(tmp_path, monkeypatch, mutant, field):
    made = attach.Recorder

    def lying(*arguments, **options):
        recorder = made(*arguments, **options)
        mutant(recorder)
        return recorder

    monkeypatch.setattr(attach, "Recorder", lying)
    path = record(tmp_path / "run", steps=3)
    monkeypatch.undo()
    if mutant is state_before:  # this one contradicts its own checkpoint as well
        with pytest.raises(Refuted, match="parameters <- its step"):
            counterfoil.verify(path)
    else:
        assert counterfoil.verify(path).status == "verified"  # signatures cannot tell
    (mismatch,) = report(path).refuted
    assert mismatch.field == field and mismatch.step == (2 if mutant is ignored_batch else 1)


HAND_BACK = """
import pathlib
from counterfoil.torch import child
pathlib.Path({proof!r}).write_text("ran")
def recipe(spec):
    raise SystemExit
"""


def test_a_recipe_that_was_not_pinned_is_not_run(tmp_path):
    proof = tmp_path / "ran"
    cheat = tmp_path / "recipe.py"
    cheat.write_text(HAND_BACK.format(proof=str(proof)))
    path = record(tmp_path / "run", recipe=cheat, steps=2)
    digest = counterfoil.Record(path).recipe_digest
    with pytest.raises(InvalidInput) as caught:
        replay(path, "all")
    assert digest in str(caught.value) and "recipe.py" in str(caught.value)
    with pytest.raises((InvalidInput, Refuted)):
        replay(path, "all", recipe="0x" + "00" * 32)
    assert not proof.exists()


def recipe_with(body):
    """The honest perceptron with a body before its step."""
    source = Path(mlp.__file__).read_text()
    return source.replace("        images, labels = batch\n", f"        images, labels = batch\n{body}")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("        import time; time.sleep(60)\n", "no answer"),
        (
            "        import os, time\n        os.fork() or (os.setsid(), time.sleep(20))\n        os._exit(0)\n",
            "no answer",
        ),
        ("        import os; os._exit(3)\n", "process ended"),
        ("        raise ValueError('\\x1b[31mverified')\n", "process ended"),
        ("        optimizer.step()\n", "stepped its optimiser 2 times"),
        ("        import os; os.write(4, b'\\xff' * 64); os.write(5, b'\\xff' * 64)\n", "process"),
    ],
    ids=["hangs", "leaves-a-process-behind", "dies", "raises", "steps-twice", "answers-garbage"],
)
def test_a_child_that_gives_no_usable_answer_accuses_nobody(tmp_path, body, said):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(recipe_with(body))
    path = record(tmp_path / "run", recipe=recipe, steps=2)
    started = time.monotonic()
    seen = report(path, timeout=4.0 if said == "no answer" else 60.0)
    assert time.monotonic() - started < 40
    assert (seen.steps, seen.refuted) == ((), ())
    assert (
        said in seen.notes[0] and "\x1b" not in "".join(seen.notes) and "step 2 not replayed" in seen.notes[1]
    )


@pytest.mark.skipif(sys.platform != "linux", reason="confinement is Linux's")
def test_the_child_can_read_neither_the_run_nor_the_network_nor_its_parent(tmp_path):
    recipe = tmp_path / "recipe.py"
    run = tmp_path / "run"
    body = (
        "        import socket, os, pathlib\n"
        "        def fails(act):\n"
        "            try: act()\n"
        "            except OSError: return\n"
        "            raise ValueError('not confined')\n"
        f"        fails(lambda: os.listdir({str(run)!r}))\n"
        f"        fails(lambda: open({str(run / 'spec.json')!r}))\n"
        "        fails(lambda: open(f'/proc/{os.getppid()}/cmdline'))\n"
        "        fails(lambda: os.kill(os.getppid(), 0))\n"
        "        fails(lambda: socket.create_connection(('127.0.0.1', 9), 1))\n"
        "        fails(lambda: os.execv('/bin/true', ['true']))\n"
        "        known = ('OMP_WAIT_POLICY', 'TMPDIR', 'LC_CTYPE', 'TORCHINDUCTOR_CACHE_DIR')\n"
        "        assert not set(os.environ) - set(known), os.environ\n"
    )
    recipe.write_text(recipe_with(body))
    path = record(run, recipe=recipe, steps=2)
    seen = report(path)
    if any("cut off" in note for note in seen.notes):
        pytest.skip("this kernel offers no confinement without privileges, and the report says so")
    assert seen.notes == () and seen.steps == (1, 2)


def test_steps_without_their_inputs_are_reported_and_not_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(attach, "KEEP_BATCH", 0)
    seen = report(record(tmp_path / "run", steps=2))
    assert seen.steps == () and seen.refuted == () and "not replayable" in seen.notes[0]


def test_another_kind_of_machine_is_no_accusation(tmp_path, monkeypatch):
    real = collect.local_environment
    monkeypatch.setattr(collect, "local_environment", lambda: real() | {"cpu_capability": "ABACUS"})
    path = record(tmp_path / "run", lie=lying(1), steps=2)
    monkeypatch.undo()
    seen = report(path, [1])
    assert seen.refuted == () and seen.steps == ()
    assert "another kind of machine" in seen.undecided[0]
    assert any("cpu_capability" in note for note in seen.notes)


def test_a_checkpoint_that_is_not_what_was_signed_is_not_executed_from(tmp_path):
    path = record(tmp_path / "run", steps=2)
    recorded = counterfoil.Record(path)
    first = next(r for r in recorded.receipts() if r.kind == "checkpoint")
    root = recorded.opened(first)["parameters"].entries[0].root
    file = Path(path, "objects", root.hex())
    file.write_bytes(b"\xff" + file.read_bytes()[1:])
    seen = report(path, [1])
    assert seen.steps == () and "is not what was signed" in seen.notes[0]


def through(message, limit=1 << 20, seconds=1.0):
    read, write = os.pipe()
    try:
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)
        os.write(write, message)
        return wire.Pipe(read, write).receive(limit, seconds)
    finally:
        os.close(read)
        os.close(write)


def framed(head):
    return len(head).to_bytes(4, "big") + head


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xff\xff\xff",
        framed(b"[" * 100_000),
        framed(b"{}"),
        framed(b"\xff\xfe"),
        framed(b'{"header": 3, "states": {}}'),
        framed(b'{"header": {}, "states": {"a": [["x", "F32", [99999999999]]]}}'),
        framed(b'{"header": {}, "states": {"a": [["x", "F32", [-1]]]}}'),
        framed(b'{"header": {}, "states": {"a": [["x", "F32", [true]]]}}'),
        framed(b'{"header": {}, "states": {"a": [["x", "F33", [1]]]}}'),
        framed(b'{"header": {}, "states": {"a": [["x", null, null], ["x", null, null]]}}'),
        framed(b'{"header": {}, "states": {"a": [[["x"], "F32", []]]}}'),
        framed(b'{"header": {}, "states": {"a": 7}}'),
    ],
)
def test_a_hostile_message_is_refused_before_its_lengths_are_believed(message):
    with pytest.raises(InvalidInput):
        through(message)


def test_every_dtype_and_kind_of_entry_survives_the_pipe_bit_for_bit():
    state = {tag: torch.arange(24).to(torch.uint8).view(kind)[:2] if kind != torch.bool else torch.tensor([True, False])
             for tag, kind in collect.DTYPES.items()}  # fmt: skip
    state |= {
        "none": None,
        "tied": counterfoil.Alias("F32"),
        "text": "é",
        "flag": True,
        "count": -3,
        "rate": 0.1,
    }
    state |= {"empty": torch.empty(0, 3), "scalar": torch.tensor(2.5)}
    _, states = through(b"".join(wire.encode({"a": 1}, {"s": state})))
    assert counterfoil.commit_tensors(states["s"]).root == counterfoil.commit_tensors(state).root


def test_the_childs_entry_point_needs_nothing_but_the_standard_library():
    code = f"import runpy, sys; runpy.run_path({confine.__file__!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def module_of(folder, source):
    """A recipe's source as a module with a file, as `record` takes it."""
    folder.mkdir(exist_ok=True)
    (folder / "own_recipe.py").write_text(source)
    found = importlib.util.spec_from_file_location("own_recipe", folder / "own_recipe.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


OWN = """
import torch
def recipe(spec):
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    def step(batch, number, log):
        images, labels = batch
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        log(loss=loss)
        optimizer.step()
        scheduler.step()
    return model, optimizer, step
"""


def test_a_scheduler_that_the_recipe_keeps_does_not_look_like_a_lie(tmp_path):
    path = record(tmp_path / "run", module_of(tmp_path / "code", OWN))
    seen = report(path, [5, 7])
    assert seen.refuted == () and seen.steps == (5, 7)


def test_a_made_up_machine_does_not_have_a_lie_verified(tmp_path, monkeypatch):
    """Equal bits beside it prove nothing: of a small model some come out equal on any machine."""
    monkeypatch.setattr(collect, "_processor", lambda: "Imaginary CPU 9000")
    path = record(tmp_path / "run", lie=lying(5))
    monkeypatch.undo()
    verdict = replay(path, "all", recipe=counterfoil.Record(path).recipe_digest)
    assert verdict.status == "undecided" and not verdict.broken
    assert any("step 5 differs" in text for text in verdict.missing)


def test_weights_swapped_after_the_last_step_are_not_called_its_state(tmp_path):
    """Averaged weights are usually written through `.data`, which leaves no trace in a version."""
    module = module_of(tmp_path / "code", OWN)
    with counterfoil.Run.create(tmp_path / "run", spec=MLP, recipe=module.__file__) as run:
        model, optimizer, step = module.recipe(MLP)
        recorder = run.attach(model, optimizer, every=0, checkpoint_every=0)
        for number, batch in enumerate(run.batches(DataLoader(data(), batch_size=8)), 1):
            step(batch, number, recorder.log)
        for parameter in model.parameters():
            parameter.data.mul_(0.5)
    seen = report(run.path)
    assert seen.refuted == () and len(seen.steps) == number
    assert [r.fields["step"] for r in run.receipts() if r.kind == "checkpoint"] == [0]


def test_a_batch_whose_layout_no_receipt_knows_is_flagged(tmp_path):
    """Kernels choose by memory layout: replaying from contiguous bytes would refute honest work."""
    module = module_of(tmp_path / "code", OWN)
    with counterfoil.Run.create(tmp_path / "run", spec=MLP, recipe=module.__file__) as run:
        model, optimizer, step = module.recipe(MLP)
        recorder = run.attach(model, optimizer)
        images, labels = data()[:8]
        for number, batch in enumerate(run.batches([(images.transpose(1, 2), labels)]), 1):
            step(batch, number, recorder.log)
    (receipt,) = [r for r in run.receipts() if r.kind == "step"]
    assert receipt.fields["flags"] == attach.NOT_REPLAYABLE


def test_a_metric_of_the_training_script_is_noted_not_refuted(tmp_path):
    module = module_of(tmp_path / "code", OWN)
    with counterfoil.Run.create(tmp_path / "run", spec=MLP, recipe=module.__file__) as run:
        model, optimizer, step = module.recipe(MLP)
        recorder = run.attach(model, optimizer)
        for number, batch in enumerate(run.batches(DataLoader(data(), batch_size=20)), 1):
            recorder.log(seen=number)
            step(batch, number, recorder.log)
    seen = report(run.path)
    assert seen.refuted == () and seen.steps == (1, 2)
    assert seen.notes == ("the recipe does not compute the metrics seen",)


def test_tensors_in_blocks_are_not_replayed_and_accuse_nobody(tmp_path):
    """An entry in blocks never equals that of the whole tensor: an honest run was refuted."""

    def in_blocks(state):
        return {
            name: counterfoil.Sharded(
                "F32",
                tuple(value.shape),
                [counterfoil.commit_block(value[:1], (0, 0)), counterfoil.commit_block(value[1:], (1, 0))],
            )
            if value.ndim == 2
            else value
            for name, value in state.items()
        }

    def divide(optimizer):
        collect = list(attach._active.values())[-1]._collect
        whole = collect.gradients
        collect.gradients = lambda optimizer: in_blocks(whole(optimizer))

    found = report(record(tmp_path / "run", lie=divide))
    assert not found.refuted
    assert not found.steps
    assert "in blocks" in str(found)


def test_a_recipe_that_hands_back_what_it_was_given_is_refuted(tmp_path):
    """The state before a step is all it has of the answer."""
    recipe = tmp_path / "recipe.py"
    source = recipe_with("        optimizer.zero_grad()\n        return optimizer.step()\n")
    recipe.write_text(source)
    (mismatch,) = report(record(tmp_path / "run", recipe=recipe, steps=1)).refuted
    assert (mismatch.step, mismatch.field) == (1, "gradients")


CONVOLUTION = """
import torch
def recipe(spec):
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Unflatten(1, (1, 8)), torch.nn.Conv2d(1, 16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    def step(batch, number, log):
        images, _ = batch
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
    return model, optimizer, step
"""


def test_a_run_without_onednn_is_replayed_without_it(tmp_path, monkeypatch):
    """Convolutions have other bits there: an honest run was refuted. A workspace of cuBLAS excuses no CPU."""
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    path = record(tmp_path / "run", module_of(tmp_path / "code", CONVOLUTION), steps=2)
    monkeypatch.undo()
    seen = report(path, [1, 2])
    assert seen.steps == (1, 2) and seen.refuted == seen.undecided == seen.notes == ()


FLAGGED = """
import torch
def recipe(spec):
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    def step(batch, number, log):
        assert batch["mask"] is None and "rate" not in batch
        output = model(batch["images"])
        optimizer.zero_grad()
        (output.square() if batch["square"] else output).mean().backward()
        optimizer.step()
    return model, optimizer, step
"""


def test_flags_and_what_is_absent_are_part_of_a_replayable_batch(tmp_path):
    """Trainers hand their models flags by name: none of their steps could be replayed. A number stays flagged."""
    module = module_of(tmp_path / "code", FLAGGED)
    images = data()[:8][0]
    given = [{"images": images, "square": value, "mask": None} for value in (True, False)]
    with counterfoil.Run.create(tmp_path / "run", spec=MLP, recipe=module.__file__) as run:
        model, optimizer, step = module.recipe(MLP)
        recorder = run.attach(model, optimizer, every=1)
        for number, batch in enumerate(run.batches([*given, given[0] | {"rate": 0.5}]), 1):
            batch.pop("rate", None)
            step(batch, number, recorder.log)
    flags = [receipt.fields["flags"] for receipt in run.receipts() if receipt.kind == "step"]
    assert flags == [0, 0, attach.NOT_REPLAYABLE]
    seen = report(run.path, [1, 2])
    assert seen.steps == (1, 2) and seen.refuted == ()
