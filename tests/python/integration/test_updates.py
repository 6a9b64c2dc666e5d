"""The optimiser's update is executed again by `verify` alone: equal to torch's bits, lies about it refuted, and
honest programs of every kind never.

No test has an oracle of its own: what torch itself did to the recorded tensors is the truth.
"""

import functools
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import counterfoil
from counterfoil.errors import Refuted
from counterfoil.torch import collect

TENSORS, STEPS = 1_000, 3
SIZES = (
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    9,
    15,
    16,
    17,
    31,
    32,
    33,
    63,
    64,
    65,
    127,
    128,
    129,
    255,
    256,
    257,
    300,
    511,
    513,
)
SGD, Adam, AdamW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
SETTINGS = {
    "sgd": (SGD, {}),
    "sgd-decay": (SGD, {"weight_decay": 0.01}),
    "sgd-momentum": (SGD, {"momentum": 0.9}),
    "sgd-dampening": (SGD, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    "sgd-nesterov": (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "sgd-maximize": (SGD, {"maximize": True}),
    "sgd-foreach": (SGD, {"momentum": 0.9, "nesterov": True, "foreach": True}),
    "adam": (Adam, {}),
    "adam-decay": (Adam, {"weight_decay": 0.1}),
    "adam-amsgrad": (Adam, {"amsgrad": True}),
    "adam-maximize": (Adam, {"maximize": True}),
    "adamw": (AdamW, {}),
    "adamw-amsgrad": (AdamW, {"amsgrad": True}),
    "adamw-foreach": (AdamW, {"foreach": True}),
    "sgd-double": (SGD, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    "adamw-double": (AdamW, {"amsgrad": True}),
}


@pytest.fixture
def folder(tmp_path):
    """A folder for many small objects, in memory where there is one: each of them is synchronised."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


def wild(shapes, dtype, generator):
    """Tensors of elements of many magnitudes: subnormal, zero, huge."""
    sizes = [math.prod(shape) for shape in shapes]
    shape = (sum(sizes),)
    scale = 10.0 ** torch.randint(-6, 3, shape, generator=generator)
    values = (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)
    kind = torch.rand(shape, generator=generator)
    values = torch.where(kind < 0.05, values * torch.finfo(dtype).smallest_normal, values)
    values = torch.where((kind > 0.05) & (kind < 0.08), torch.zeros_like(values), values)
    values = torch.where((kind > 0.08) & (kind < 0.09), values * 1e30, values)
    return [part.reshape(shape).clone() for part, shape in zip(values.split(sizes), shapes, strict=True)]


def shapes():
    sizes = np.random.default_rng(1).choice(SIZES, TENSORS - 4)
    drawn = [(int(size),) if at % 3 else (1, int(size)) for at, size in enumerate(sizes)]
    return [(), (0,), (40, 50), (2, 3, 4, 5), *drawn]


def judged(path):
    try:
        return counterfoil.verify(path)
    except Refuted as refuted:
        return refuted.verdict


def edges(verdict):
    return [
        broken.edge.partition(": update of ")[2] for broken in verdict.broken if ": update of " in broken.edge
    ]


def updates(verdict):
    return [note for note in verdict.notes if "update" in note]


def executed(steps):
    return [f"the optimiser's update of {steps} steps was executed again from stored gradients, bit-exact"]


def not_executed(steps, reason):
    return [f"the update of {steps} steps with stored gradients was not executed: {reason}"]


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_updates_are_those_of_torch(folder, setting):
    """A rounding, an order of operations or a scalar that is not torch's, in one of 1,000 tensors of a setting."""
    kind, chosen = SETTINGS[setting]
    dtype = torch.float64 if setting.endswith("double") else torch.float32
    generator = torch.Generator().manual_seed(3)
    model = torch.nn.ParameterList(map(torch.nn.Parameter, wild(shapes(), dtype, generator)))
    model[3].data = model[3].data.contiguous(memory_format=torch.channels_last)
    optimizer = kind(model.parameters(), lr=0.01, **chosen)
    with counterfoil.Run.create(folder / "run") as run:
        run.attach(model, optimizer, every=1, checkpoint_every=1, store_gradients=True)
        for _ in range(STEPS):
            for at, gradient in enumerate(wild(shapes(), dtype, generator)):
                parameter = model[at]
                parameter.grad = gradient if at != 5 else None
                if at % 50 == 10 and parameter.numel() > 2:
                    parameter.grad.view(-1)[:3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
            optimizer.step()
    verdict = judged(folder / "run")
    print(f"{setting}: {len(model)} tensors, {STEPS} steps, {len(verdict.broken)} mismatches")
    assert (verdict.status, updates(verdict)) == ("verified", executed(STEPS))


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Tanh(), torch.nn.Linear(30, 5))


def train(
    path, make, *, steps=4, lie=None, between=None, model=None, every=1, checkpoint_every=1, stores=True
):
    """Trains a small network; `lie(optimizer)` before the first step, `between(model)` after each."""
    model = model or net()
    optimizer = make(model)
    dtype = next(model.parameters()).dtype
    with counterfoil.Run.create(path) as run:
        run.attach(model, optimizer, every=every, checkpoint_every=checkpoint_every, store_gradients=stores)
        if lie is not None:
            lie(optimizer, model)
        for _ in range(steps):
            model(torch.randn(8, 20, dtype=dtype)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if between is not None:
                between(model)
    return judged(path)


def simple(kind, **chosen):
    return lambda model: kind(model.parameters(), **({"lr": 0.05} | chosen))


def covered(before, after):
    """A lie within the third step: `before(...)` ahead of the update, `after(...)` behind, unseen by the recorder."""

    def install(optimizer, model):
        count = [0]

        def pre(*_):
            count[0] += 1
            kept.append(before(optimizer, model) if count[0] == 3 else None)

        def post(*_):
            if count[0] == 3:
                after(optimizer, model, kept[-1])

        kept = []
        optimizer.register_step_pre_hook(pre)
        handle = optimizer.register_step_post_hook(post)
        optimizer._optimizer_step_post_hooks.move_to_end(handle.id, last=False)

    return install


def scaled(key, change):
    """Applies another hyperparameter than the recorded one."""

    def before(optimizer, _):
        honest = optimizer.param_groups[0][key]
        optimizer.param_groups[0][key] = change(honest)
        return honest

    def after(optimizer, _, honest):
        optimizer.param_groups[0][key] = honest

    return covered(before, after)


def undone():
    """Takes the step back, as if it had not been made."""

    def before(optimizer, model):
        weights = [each.detach().clone() for each in model.parameters()]
        return weights, [{k: v.clone() for k, v in state.items()} for state in optimizer.state.values()]

    def after(optimizer, model, kept):
        for parameter, weight in zip(model.parameters(), kept[0], strict=True):
            parameter.data.copy_(weight)
        for state, known in zip(optimizer.state.values(), kept[1], strict=True):
            for key, value in known.items():
                state[key].copy_(value)

    return covered(before, after)


def flip(name):
    """Changes the lowest bit of one element."""

    def after(_, model, __):
        bits = dict(model.named_parameters())[name].data.view(torch.int32)
        bits.view(-1)[4] ^= 1

    return covered(lambda *_: None, after)


PARAMETERS = [f"parameters '{name}'" for name in ("0.bias", "0.weight", "2.bias", "2.weight")]
LIES = {
    "rate of SGD": (simple(SGD), scaled("lr", lambda rate: rate * 1.0001), PARAMETERS, "1.0001 times"),
    "rate of AdamW": (simple(AdamW), scaled("lr", lambda rate: rate * 1.0001), PARAMETERS, "1.0001 times"),
    "momentum": (simple(SGD, momentum=0.9), scaled("momentum", lambda _: 0.91), PARAMETERS, "elements differ"),
    "betas": (simple(Adam), scaled("betas", lambda _: (0.9, 0.99)), PARAMETERS, "elements differ"),
    "decay": (
        simple(SGD, weight_decay=0.1), scaled("weight_decay", lambda _: 0), PARAMETERS, "elements differ"
    ),
    "decoupled decay": (
        simple(AdamW), scaled("weight_decay", lambda _: 0), PARAMETERS, "elements differ"
    ),
    "skipped": (simple(AdamW), undone(), PARAMETERS, "the step was not applied"),
    "one bit of SGD": (simple(SGD), flip("2.weight"), PARAMETERS[3:], "1 of 150 elements differ"),
    "one bit of AdamW": (simple(AdamW), flip("0.bias"), PARAMETERS[:1], "1 of 30 elements differ"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_signed_lie_about_an_update_is_refuted_by_verify_alone(folder, lie):
    """A lie that only a replay with the recipe would show, or one that is named at another step or tensor."""
    make, install, expected, words = LIES[lie]
    verdict = train(folder / "run", make, lie=install)
    print(lie, verdict.broken[0])
    assert verdict.status == "refuted"
    assert [edge for edge in edges(verdict) if edge.startswith("parameters")] == expected
    assert all("(step 3)" in edge.edge for edge in verdict.broken)
    told = [edge.actual for edge in verdict.broken if "of parameters" in edge.edge]
    assert any(words in each for each in told), told
    assert updates(verdict) == executed(3)


def test_another_momentum_buffer_is_refuted(folder):
    """A state of the optimiser that nobody compares, so that the lie is told one step later."""

    def after(optimizer, model, _):
        optimizer.state[model[0].weight]["momentum_buffer"][0, 0] += 1

    verdict = train(folder / "run", simple(SGD, momentum=0.9), lie=covered(lambda *_: None, after))
    assert edges(verdict) == ["optimizer 'optimizer/0/0.weight/momentum_buffer'"]


def test_a_parameter_without_a_gradient_must_not_change(folder):
    """A change of a frozen tensor, which no update explains."""
    model = net()
    model[0].weight.requires_grad_(False)

    def after(_, model, __):
        model[0].weight.data[0, 0] += 1

    verdict = train(folder / "run", simple(AdamW), model=model, lie=covered(lambda *_: None, after))
    assert edges(verdict) == ["parameters '0.weight'"]


class Tied(torch.nn.Sequential):
    def __init__(self):
        first, last = torch.nn.Linear(20, 20, bias=False), torch.nn.Linear(20, 20)
        last.weight = first.weight
        super().__init__(first, last)


def grouped(model):
    first, *rest = model.parameters()
    return AdamW([{"params": [first], "lr": 0.1, "weight_decay": 0.0}, {"params": rest, "lr": 0.01}])


def scheduled(optimizer, _):
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    optimizer.zero_grad = functools.partial(lambda known: (known(), schedule.step()), optimizer.zero_grad)


HONEST = {
    "groups": {"make": grouped},
    "tied": {"make": simple(SGD, momentum=0.9), "model": Tied},
    "schedule": {"make": simple(AdamW), "lie": scheduled},
    "double": {"make": simple(AdamW), "model": lambda: net().double()},
    "integers": {"make": simple(SGD, lr=1)},
}


@pytest.mark.parametrize("case", HONEST)
def test_honest_updates_are_executed(folder, case):
    """A group, alias, schedule or type of number that is read wrongly."""
    chosen = dict(HONEST[case])
    if "model" in chosen:
        chosen["model"] = chosen["model"]()
    verdict = train(folder / "run", **chosen)
    assert (verdict.status, updates(verdict)) == ("verified", executed(4))


def plain_groups(model):
    first, *rest = model.parameters()
    return SGD([{"params": [first]}, {"params": rest, "lr": 0.01}], lr=0.1)


class Own(SGD):
    """Not torch's."""

    def step(self, closure=None):
        super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                torch._foreach_mul_(group["params"], 0.5)


FUSED = "a group is fused, capturable or differentiable"
UNKNOWN = {
    "fused AdamW": (simple(AdamW, fused=True), None, FUSED),
    "fused SGD": (simple(SGD, fused=True), None, FUSED),
    "half": (simple(SGD), lambda: net().bfloat16(), "a parameter is neither F32 nor F64"),
    "groups": (plain_groups, None, "which of several groups a parameter is in is not known"),
    "own": (
        lambda m: Own(m.parameters(), 0.1),
        None,
        "the optimiser is not one of SGD, Adam and AdamW of torch",
    ),
    "other": (simple(torch.optim.RMSprop), None, "the optimiser is not one of SGD, Adam and AdamW of torch"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_cannot_be_executed_is_counted_and_refutes_nothing(folder, case):
    """An honest run that is refuted because its optimiser computes other bits, fused for instance."""
    make, model, reason = UNKNOWN[case]
    verdict = train(folder / "run", make, model=model and model())
    assert (verdict.status, updates(verdict)) == ("verified", not_executed(4, reason))


ELSEWHERE = [
    {"torch": "2.99.0"}, {"torch": "3.15.0"}, {"platform": "Darwin arm64"}, {"contracted": None}, {"flush_denormal": True},
]  # fmt: skip


@pytest.mark.parametrize("change", ELSEWHERE)
def test_an_unknown_machine_is_not_judged(folder, monkeypatch, change):
    """A run of another machine or version that is refuted because nobody knows its bits."""
    real = collect.Collector.environment
    monkeypatch.setattr(collect.Collector, "environment", lambda self: real(self) | change)
    lie = scaled("lr", lambda rate: rate * 2)
    verdict = train(folder / "run", simple(SGD), lie=lie)
    reason = "the bits of that machine or version of torch are not known"
    assert (verdict.status, updates(verdict)) == ("verified", not_executed(4, reason))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_tensors_as_hyperparameters_are_left_out(folder, kind):
    """An honest run that is refuted because torch computes with a tensor otherwise than with its number."""
    rate, betas = (
        torch.tensor(0.01, dtype=kind),
        (torch.tensor(0.9, dtype=kind), torch.tensor(0.99, dtype=kind)),
    )
    verdict = train(folder / "run", simple(Adam, lr=rate, betas=betas))
    assert (verdict.status, updates(verdict)) == ("verified", [])


def test_flushed_subnormals_are_recorded(folder):
    """An honest run whose processor takes subnormals for zero, which no other entry of the environment tells."""
    torch.set_flush_denormal(True)
    try:
        verdict = train(folder / "run", simple(SGD))
    finally:
        torch.set_flush_denormal(False)
    assert verdict.status == "verified" and "machine" in updates(verdict)[0]


def test_weights_that_are_clipped_between_steps_are_no_lie(folder):
    """An honest program that changes weights, by a way that leaves no trace, between two steps."""

    def clip(model):
        for parameter in model.parameters():
            parameter.data.clamp_(-0.1, 0.1)

    verdict = train(folder / "run", simple(AdamW), between=clip)
    # Only the first step went on from its checkpoint.
    assert (verdict.status, updates(verdict)) == ("verified", executed(1))


def test_sparse_checkpoints_show_single_steps(folder):
    """Steps behind a checkpoint whose state afterwards, or whose parameters, nobody stored."""
    verdict = train(folder / "run", simple(AdamW), steps=7, every=50, checkpoint_every=3)
    assert (verdict.status, updates(verdict)) == ("verified", executed(3))


def test_nothing_is_stored_unasked(folder):
    """Gradients, which speak of their batches, in a folder whose owner did not ask for it."""
    verdict = train(folder / "run", simple(SGD), stores=False)
    assert verdict.status == "verified" and not updates(verdict)
    record = counterfoil.Record(folder / "run")
    steps = [record.opened(receipt) for receipt in record.receipts() if receipt.kind == "step"]
    names = {entry.root.hex() for opened in steps for entry in opened["gradients"].commitment.entries}
    assert not names & {path.name for path in (folder / "run" / "objects").iterdir()}


@pytest.mark.parametrize("lies", [False, True])
def test_a_skipped_step_changes_nothing(folder, lies):
    """A change of weights in a step that is flagged as skipped; or an honest one that is refuted."""
    model = net()
    optimizer, scaler = SGD(model.parameters(), lr=0.1, momentum=0.9), torch.amp.GradScaler("cpu")
    with counterfoil.Run.create(folder / "run") as run:
        recorder = run.attach(model, optimizer, every=1, checkpoint_every=1, store_gradients=True)
        real = recorder._add

        def add(*arguments):
            if lies and recorder._hooks[0]._frame is None:
                model[0].bias.data[0] += 1
            real(*arguments)

        recorder._add = add
        for step in range(4):
            loss = model(torch.randn(8, 20)).square().mean() * (float("inf") if step == 2 else 1)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    verdict = judged(folder / "run")
    assert updates(verdict) == executed(3)
    assert edges(verdict) == (["parameters '0.bias'"] if lies else [])
    assert verdict.status == ("refuted" if lies else "verified")


def test_a_bundle_carries_what_execution_needs(folder):
    """A bundle that shows less than the folder it was made of, or objects that no verifier of it expects."""
    lie = scaled("lr", lambda rate: rate * 1.0001)
    assert train(folder / "lie", simple(SGD), lie=lie).status == "refuted"
    train(folder / "run", simple(AdamW), checkpoint_every=2, steps=5)
    for name in ("lie", "run"):
        counterfoil.export(folder / name, folder / f"{name}.counterfoil")
    whole, lied = (judged(folder / f"{name}.counterfoil") for name in ("run", "lie"))
    assert (whole.status, updates(whole)) == ("verified", executed(3))
    assert (lied.status, edges(lied)) == ("refuted", PARAMETERS)
    counterfoil.export(folder / "run", folder / "part", steps=[2, 3])
    assert updates(judged(folder / "part")) == executed(1)
    for tensors in (["gradients"], ["gradients", "extensions"], ["parameters"], ["gradients/0.bias"]):
        counterfoil.export(folder / "run", folder / "part", tensors=tensors)
        assert judged(folder / "part").status == "verified", tensors


def test_a_missing_gradient_refutes_nothing_and_a_damaged_one_does(folder):
    """An erased gradient that is taken for a lie, or bytes that are not the gradient's and are applied."""
    train(folder / "run", simple(SGD), steps=1)
    record = counterfoil.Record(folder / "run")
    (step,) = (record.opened(receipt) for receipt in record.receipts() if receipt.kind == "step")
    (gradient,) = (e for e in step["gradients"].commitment.entries if e.name == "0.bias")
    path = folder / "run" / "objects" / gradient.root.hex()
    known = path.read_bytes()
    path.write_bytes(known[:-1] + bytes([known[-1] ^ 1]))
    verdict = judged(folder / "run")
    assert verdict.status == "refuted" and any("object" in edge.edge for edge in verdict.broken)
    path.unlink()
    verdict = judged(folder / "run")
    reason = "the state before or a gradient is not stored"
    assert (verdict.status, updates(verdict)) == ("verified", not_executed(1, reason))


def test_kernels_without_vectors_round_twice(folder):
    """A run of a machine without AVX2, refuted for the bits of its kernels."""
    code = (
        "import sys; from pathlib import Path; from test_updates import *; "
        "print(updates(train(Path(sys.argv[1]), simple(AdamW))), "
        "updates(train(Path(sys.argv[2]), simple(SGD, momentum=0.9, weight_decay=0.1))))"
    )
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": paths}
    command = [sys.executable, "-c", code, str(folder / "one"), str(folder / "two")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split("]")[:2] == [str(executed(4))[:-1], " " + str(executed(4))[:-1]]


ENVIRONMENT = {
    "optimizer": "torch.optim.adam.Adam", "torch": "2.15.0", "platform": "Linux x86_64",
    "flush_denormal": False, "contracted": True, "default_dtype": "torch.float32",
}  # fmt: skip
NUMBERS = {
    "0/lr": 0.1, "0/betas/0": 0.9, "0/betas/1": 0.999, "0/eps": 1e-8, "0/weight_decay": 0, "0/maximize": False,
    "0/amsgrad": False, "0/decoupled_weight_decay": False,
}  # fmt: skip
MOMENTS = {"step": np.float32(3), "exp_avg": np.ones(3, np.float32), "exp_avg_sq": np.ones(3, np.float32)}
ODD = "state or hyperparameters with which torch makes no step"
SHAPE = "the optimiser's state has another dtype or shape than its parameter"
HOSTILE = {
    "rate": ({"0/lr": float("nan")}, {}, {}, None),
    "beta": ({"0/betas/0": 1.0}, {}, {}, ODD),
    "no beta": ({"0/betas/0": None}, {}, {}, "a hyperparameter is no plain number"),
    "text": ({"0/lr": "much"}, {}, {}, "a hyperparameter is no plain number"),
    "steps": ({}, {"step": np.float32(3e38)}, {}, ODD),
    "no steps": ({}, {"step": np.float32("nan")}, {}, ODD),
    "many steps": ({}, {"step": np.arange(5, dtype=np.float32)}, {}, "the number of steps is no number"),
    "missing": ({}, {"exp_avg": None}, {}, ODD),
    "shape": ({}, {"exp_avg": np.ones(2, np.float32)}, {}, SHAPE),
    "dtype": ({}, {"exp_avg": np.ones(3)}, {}, SHAPE),
    "gradient": ({}, {}, {"w": np.ones(4, np.float32)}, "parameter and gradient have different dtypes or shapes"),
    "unnamed": ({}, {}, {"v": np.ones(3, np.float32)}, "a gradient is sparse or not named"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_records_made_by_hand_cannot_break_verification(folder, case):
    """A panic, an endless loop or a refutation by numbers and tensors that torch never makes."""
    numbers, moments, gradients, reason = HOSTILE[case]
    weights = {"w": np.ones(3, np.float32)}
    state = {f"optimizer/0/w/{key}": value for key, value in (MOMENTS | moments).items()}
    keep = functools.partial(counterfoil.commit_tensors, keep=True)
    with counterfoil.Run.create(folder / "run") as run:
        fields = {
            "parameters": run.store(weights),
            "optimizer": run.store(state),
            "environment": keep(ENVIRONMENT),
        }
        run.record_checkpoint(0, fields)
        applied = run.store(gradients or {"w": np.ones(3, np.float32)})
        after = run.store({"w": np.full(3, np.nan, np.float32)} if case == "rate" else weights)
        fields = {"gradients": applied, "parameters": after, "hyperparameters": keep(NUMBERS | numbers)}
        run.record_step(1, fields | {"extensions": keep({"from_checkpoint": True})})
    verdict = judged(folder / "run")
    assert verdict.status == "verified", verdict.broken
    assert updates(verdict) == (executed(1) if reason is None else not_executed(1, reason))
