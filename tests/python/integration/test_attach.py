"""What `attach` records is what the optimiser applied.

The expected roots come from oracle.py (hashlib alone) and bytes read here element by element.
"""

import copy
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import counterfoil
import oracle
from counterfoil.errors import InvalidInput, RunClosed, UnsupportedDtype
from counterfoil.torch import collect, hooks
from training import state_root, steps_of, tensor_bytes, tensor_root


@pytest.fixture(autouse=True, params=["cpu", "device"])
def engine(request):
    """Everything here holds as well when a device hashes and receipts are written a step late."""
    if request.param == "device":
        request.getfixturevalue("device")


def remember(optimizer, model, into, *, before=False):
    """Keeps what `.grad` held around the step, read by a hook of the test's own."""

    def keep(*_):
        into.append({n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()})

    register = optimizer.register_step_pre_hook if before else optimizer.register_step_post_hook
    register(keep)


def linear():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))


def plain(model, optimizer):
    model(torch.randn(6, 5)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def clipped(model, optimizer):
    (100 * model(torch.randn(6, 5)).square().mean()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    optimizer.zero_grad()


def accumulated(model, optimizer):
    for _ in range(3):
        model(torch.randn(6, 5)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def unused(model, optimizer):
    model[0](torch.randn(6, 5)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("body", [plain, clipped, accumulated, unused])
def test_the_gradient_before_clipping_or_of_one_micro_batch_is_not_what_is_committed(tmp_path, body):
    model, applied = linear(), []
    optimizer = torch.optim.AdamW(model.parameters())
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer)
        remember(optimizer, model, applied)
        for _ in range(3):
            body(model, optimizer)
    for gradient, (_, opened) in zip(applied, steps_of(run.path), strict=True):
        assert opened["gradients"].commitment.root == state_root(gradient)


def test_nesterov_foreach_commits_the_gradient_and_not_what_the_optimiser_wrote_over_it(tmp_path):
    model, before, after = linear(), [], []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, foreach=True)
    remember(optimizer, model, before, before=True)
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer)
        remember(optimizer, model, after)
        for _ in range(3):
            plain(model, optimizer)
    for gradient, written, (_, opened) in zip(before, after, steps_of(run.path), strict=True):
        assert not torch.equal(gradient["0.weight"], written["0.weight"])
        assert opened["gradients"].commitment.root == state_root(gradient)


def test_no_other_optimiser_of_torch_overwrites_its_gradient(tmp_path):
    del tmp_path
    names = [n for n in dir(torch.optim) if n not in ("Optimizer", "LBFGS", "SparseAdam")]
    classes = [getattr(torch.optim, n) for n in names if isinstance(getattr(torch.optim, n), type)]
    for kind in (c for c in classes if issubclass(c, torch.optim.Optimizer)):
        arguments = kind.__init__.__code__.co_varnames
        for way in (
            {},
            {"foreach": True},
            {"fused": True},
            {"momentum": 0.9, "nesterov": True},
            {"maximize": True},
        ):
            if any(name not in arguments for name in way):
                continue
            parameter = torch.nn.Parameter(torch.ones(4, 3))
            try:
                optimizer = kind([parameter], lr=0.01, **({"weight_decay": 0.1} | way))
            except (RuntimeError, ValueError, TypeError):
                continue
            for _ in range(2):
                parameter.grad = torch.randn(4, 3)
                kept = parameter.grad.clone()
                optimizer.step()
                assert torch.equal(parameter.grad, kept), (kind, way)


def test_an_unknown_optimiser_that_overwrites_its_gradient_is_found_out(tmp_path):
    class Doubling(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 0.1})

        @torch.no_grad()
        def step(self, closure=None):
            for parameter in self.param_groups[0]["params"]:
                parameter.grad.mul_(2)
                parameter.sub_(parameter.grad)

    model, before = linear(), []
    optimizer = Doubling(model.parameters())
    remember(optimizer, model, before, before=True)
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer)
        plain(model, optimizer)
        plain(model, optimizer)
    for gradient, (_, opened) in zip(before, steps_of(run.path), strict=True):
        assert opened["gradients"].commitment.root == state_root(gradient)


def test_a_step_that_calls_its_parents_step_is_recorded_once(tmp_path):
    class Careful(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    model = linear()
    torch.optim.SGD(model.parameters(), lr=0.1)  # makes the parent's step fire hooks as well
    optimizer = Careful(model.parameters(), lr=0.1)
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer)
        plain(model, optimizer)
        plain(model, optimizer)
    assert [receipt.fields["step"] for receipt, _ in steps_of(run.path)] == [1, 2]


class Odd(torch.nn.Module):
    """Tied, frozen, scalar, complex, half-precision and channels-last parameters in one model."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.zeta = torch.nn.Linear(4, 4, bias=False)
        self.alpha = torch.nn.Linear(4, 4, bias=False)
        self.alpha.weight = self.zeta.weight
        self.scale = torch.nn.Parameter(torch.tensor(1.5))
        self.frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
        self.brain = torch.nn.Parameter(torch.randn(7, dtype=torch.bfloat16))
        self.small = torch.nn.Parameter(torch.randn(7, dtype=torch.float16))
        self.wave = torch.nn.Parameter(torch.randn(3, dtype=torch.complex64))
        self.conv = torch.nn.Conv2d(3, 5, 3, bias=False).to(memory_format=torch.channels_last)
        self.turned = torch.nn.Parameter(torch.randn(40, 30).t())

    def forward(self, x):
        image = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
        halves = self.brain.sum().float() + self.small.sum().float() + self.wave.abs().sum()
        return (
            self.alpha(self.zeta(x)).sum() * self.scale
            + halves
            + self.conv(image).sum()
            + (self.turned**2).sum()
        )


def test_strides_dtypes_ties_scalars_and_missing_gradients_are_committed_as_documented(tmp_path):
    model, applied = Odd(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    assert not model.conv.weight.is_contiguous()
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer, every=1)
        remember(optimizer, model, applied)
        model(torch.randn(2, 4)).backward()
        optimizer.step()
    (_, opened), gradient = steps_of(run.path)[0], applied[0]
    assert not gradient["conv.weight"].is_contiguous()
    gradient["alpha.weight"] = gradient.pop("zeta.weight")
    tied = oracle.Entry("zeta.weight", 2, target="alpha.weight")
    assert opened["gradients"].commitment.root == state_root(gradient, tied)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    weights["alpha.weight"] = weights.pop("zeta.weight")
    assert opened["parameters"].commitment.root == state_root(weights, tied)
    moments = {e.name for e in opened["optimizer"].entries}
    assert (
        "optimizer/0/alpha.weight/momentum_buffer" in moments
        and "optimizer/0/frozen/momentum_buffer" not in moments
    )


def test_a_wrappers_component_is_dropped_only_where_the_module_is_a_wrapper():
    class Holder(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.module = inner

    bare = linear()
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.1)
    names = set(collect.Collector(bare, [optimizer]).parameters())
    wrapped = torch.nn.DataParallel(bare)
    assert set(collect.Collector(wrapped, [optimizer]).parameters()) == names
    assert set(collect.Collector(torch.compile(bare), [optimizer]).parameters()) == names
    held = set(collect.Collector(Holder(bare), [optimizer]).parameters())
    assert held == {f"module.{name}" for name in names}


def test_a_wrapped_optimiser_is_hooked_at_its_innermost():
    class Outer:
        def __init__(self, inner):
            self.optimizer = inner

    inner = torch.optim.SGD(linear().parameters(), lr=0.1)
    assert hooks.innermost(Outer(Outer(inner))) is inner
    with pytest.raises(InvalidInput):
        hooks.innermost(object())


def test_attaching_twice_records_each_step_once(tmp_path):
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with counterfoil.Run.create(tmp_path / "run") as run:
        recorder = run.attach(model, optimizer)
        assert run.attach(model, optimizer) is recorder
        plain(model, optimizer)
        with counterfoil.Run.create(tmp_path / "other") as other, pytest.raises(InvalidInput):
            other.attach(model, optimizer)
        with pytest.raises(InvalidInput):
            run.attach(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert len(steps_of(run.path)) == 1
    assert not optimizer._optimizer_step_post_hooks and not optimizer._optimizer_step_pre_hooks
    with pytest.raises(RunClosed):
        run.attach(model, optimizer)


def test_training_after_the_run_closed_adds_nothing(tmp_path):
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer)
        plain(model, optimizer)
    plain(model, optimizer)
    assert len(steps_of(run.path)) == 1
    with pytest.raises(RunClosed):
        next(iter(run.batches([torch.zeros(1)])))


def test_an_exception_seals_the_run_and_keeps_what_came_before(tmp_path):
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ZeroDivisionError), counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer)
        plain(model, optimizer)
        raise ZeroDivisionError
    receipts = counterfoil.Record(run.path).receipts()
    assert receipts[-1].kind == "close" and receipts[-1].fields["reason"] == 1
    assert [r.fields["step"] for r in receipts if r.kind == "checkpoint"] == [0, 1]
    assert counterfoil.verify(run.path).status == "verified"


@pytest.mark.parametrize("where", ["optimizer", "recorder"])
def test_a_step_that_failed_halfway_leaves_no_checkpoint_of_its_torn_state(tmp_path, where):
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        pytest.raises((InvalidInput, UnsupportedDtype, TypeError)),
        counterfoil.Run.create(tmp_path / "run") as run,
    ):
        run.attach(model, optimizer, every=1)
        plain(model, optimizer)
        if where == "optimizer":
            optimizer.param_groups[0]["lr"] = "fast"
        else:
            model.register_buffer("sparse", torch.eye(3).to_sparse())
        plain(model, optimizer)
    receipts = counterfoil.Record(run.path).receipts()
    assert [r.fields["step"] for r in receipts if r.kind == "step"] == [1]
    assert [r.fields["step"] for r in receipts if r.kind == "checkpoint"] == [0]
    assert receipts[-1].fields["reason"] == 1


def test_a_step_after_one_that_was_not_recorded_is_refused_and_not_numbered_over_the_gap(tmp_path):
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer, every=1)
        model.register_buffer("sparse", torch.eye(3).to_sparse())
        for _ in range(2):
            with pytest.raises(InvalidInput):
                plain(model, optimizer)
    assert steps_of(run.path) == []


def test_what_cannot_be_recorded_is_refused_by_name(tmp_path):
    places = linear()
    places.register_parameter("sparse", torch.nn.Parameter(torch.eye(3).to_sparse(), requires_grad=False))
    with (
        counterfoil.Run.create(tmp_path / "run") as run,
        pytest.raises(InvalidInput, match=r"sparse is a torch\.sparse_coo"),
    ):
        run.attach(places, torch.optim.SGD(places[0].parameters(), lr=0.1))
    with (
        counterfoil.Run.create(tmp_path / "dtype") as run,
        pytest.raises(UnsupportedDtype, match="buffer/odd"),
    ):
        model = linear()
        model.register_buffer("odd", torch.zeros(2, dtype=torch.complex128))
        run.attach(model, torch.optim.SGD(model.parameters(), lr=0.1))
    meta = torch.nn.Linear(2, 2, device="meta")
    with (
        counterfoil.Run.create(tmp_path / "meta") as run,
        pytest.raises(InvalidInput, match="lies on meta"),
    ):
        run.attach(meta, torch.optim.SGD(meta.parameters(), lr=0.1))
    stranger = torch.nn.Parameter(torch.zeros(2))
    with (
        counterfoil.Run.create(tmp_path / "stranger") as run,
        pytest.raises(InvalidInput, match="not a parameter"),
    ):
        run.attach(linear(), torch.optim.SGD([stranger], lr=0.1))


def test_a_skipped_amp_step_is_flagged_and_claims_no_gradient(tmp_path):
    model = linear()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer)
        plain(model, optimizer)
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(1.0)
        plain(model, optimizer)
    (_, first), (receipt, second) = steps_of(run.path)
    assert receipt.fields["flags"] & 1 and "gradients" not in second and "gradients" in first


def test_hyperparameters_are_those_in_force_and_metrics_those_logged(tmp_path):
    model = linear()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5, betas=(0.8, 0.9))
    with counterfoil.Run.create(tmp_path / "run") as run:
        recorder = run.attach(model, optimizer)
        optimizer.param_groups[0]["lr"] = 0.25
        recorder.log(loss=torch.tensor(2.5), epoch=3)
        plain(model, optimizer)
        plain(model, optimizer)
        with pytest.raises(InvalidInput, match="loss"):
            recorder.log(loss=torch.zeros(2))
    (_, first), (_, second) = steps_of(run.path)
    values = first["hyperparameters"].scalars()
    assert (values["0/lr"], values["0/betas/0"], values["0/betas/1"]) == (0.25, 0.8, 0.9)
    assert first["metrics"].scalars() == {"loss": 2.5, "epoch": 3} and "metrics" not in second


def test_cadence_is_announced_before_the_first_step_and_kept(tmp_path):
    model = linear()
    optimizer = torch.optim.AdamW(model.parameters())
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer, every=2, checkpoint_every=3)
        for _ in range(6):
            plain(model, optimizer)
    receipts = counterfoil.Record(run.path).receipts()
    kinds = [r.kind for r in receipts]
    assert kinds.index("policy") < kinds.index("step")
    assert [r.fields["step"] for r in receipts if r.kind == "checkpoint"] == [0, 3, 6]
    assert ["parameters" in opened for _, opened in steps_of(run.path)] == [False, True] * 3
    assert counterfoil.verify(run.path).status == "verified"


def test_a_batch_is_recorded_as_consumed_though_it_is_changed_in_place_afterwards(tmp_path):
    data = [{"x": torch.randn(6, 5), "more": [torch.tensor(3), torch.arange(4)]} for _ in range(2)]
    kept = copy.deepcopy(data)
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe = tmp_path / "recipe.py"
    recipe.write_text("def recipe(spec):\n    raise AssertionError\n")
    with counterfoil.Run.create(tmp_path / "run", recipe=recipe) as run:
        run.attach(model, optimizer)
        assert len(run.batches(data)) == 2
        for given, batch in zip(data, run.batches(data), strict=False):
            assert batch is given
            batch["x"].zero_()
            plain(model, optimizer)
    for expected, (receipt, opened) in zip(kept, steps_of(run.path), strict=True):
        entries = {e.name: e.root for e in opened["batch"].entries}
        assert set(entries) == {"x", "more/0", "more/1"} and receipt.fields["flags"] == 0
        assert entries["x"] == tensor_root(expected["x"]) and opened["batch"].values["x"] == tensor_bytes(
            expected["x"]
        )


def test_names_of_nested_batches_lead_back_to_the_batch():
    for batch in (
        torch.ones(1),
        (torch.ones(1), {"a": torch.zeros(2), "b": (torch.ones(3),)}),
        (torch.ones(2),),
    ):
        again = collect.unflatten(dict(collect.flatten(batch)))
        assert str(again) == str(batch)
    with pytest.raises(InvalidInput):
        dict(collect.flatten({"a/b": torch.ones(1)}))


def test_a_step_without_a_new_batch_is_not_called_replayable(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text("def recipe(spec):\n    raise AssertionError\n")
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with counterfoil.Run.create(tmp_path / "run", recipe=recipe) as run:
        run.attach(model, optimizer)
        for _ in run.batches([torch.zeros(1)]):
            plain(model, optimizer)
            plain(model, optimizer)
    assert [receipt.fields["flags"] for receipt, _ in steps_of(run.path)] == [0, 2]
    assert counterfoil.verify(run.path).status == "verified"


def test_forked_loader_workers_do_not_hang_and_batches_come_in_consumed_order(tmp_path):
    data = TensorDataset(torch.randn(64, 5))
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    counterfoil.commit_bytes(bytes(4 << 20))  # the native threads exist before the fork
    loader = DataLoader(
        data, batch_size=8, num_workers=2, multiprocessing_context="fork", timeout=60, shuffle=True
    )
    fed = []
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer)
        for (x,) in run.batches(loader):
            fed.append(x.clone())
            plain(model, optimizer)
    for x, (_, opened) in zip(fed, steps_of(run.path), strict=True):
        assert opened["batch"].entries[0].root == tensor_root(x)


def test_recording_does_not_change_training(tmp_path):
    def train(run=None):
        torch.manual_seed(3)
        model = linear()
        optimizer = torch.optim.AdamW(model.parameters())
        if run is not None:
            run.attach(model, optimizer, every=1, checkpoint_every=2)
        for _ in range(5):
            plain(model, optimizer)
        return model.state_dict()

    with counterfoil.Run.create(tmp_path / "run") as run:
        recorded = train(run)
    assert all(torch.equal(value, recorded[name]) for name, value in train().items())


def test_resuming_a_run_continues_the_step_numbers(tmp_path):
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer)
        plain(model, optimizer)
    with counterfoil.Run.open(tmp_path / "run") as again:
        again.attach(model, optimizer)
        plain(model, optimizer)
    receipts = counterfoil.Record(again.path).receipts()
    assert [r.fields["step"] for r in receipts if r.kind == "step"] == [1, 2]
    assert [r.fields["step"] for r in receipts if r.kind == "checkpoint"] == [0, 1, 1, 2]
    assert counterfoil.verify(again.path).status == "verified"


def test_a_runs_floor_is_kept_without_being_repeated(tmp_path):
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with counterfoil.Run.create(tmp_path / "run", policy={"parameters": 1, "gradients": 1}) as run:
        run.attach(model, optimizer)
        plain(model, optimizer)
    assert "parameters" in steps_of(run.path)[0][1]
    assert counterfoil.verify(run.path).status == "verified"


class LateOverwriter(torch.optim.Optimizer):
    """Adds its momentum to `.grad` in place, which shows from the second step on."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            buffer = self.state[parameter].setdefault("buffer", torch.zeros_like(parameter))
            gradient = parameter.grad.clone()
            parameter.grad.add_(buffer, alpha=0.9)
            buffer.copy_(gradient)
            parameter.sub_(parameter.grad, alpha=0.1)


def test_an_optimiser_that_overwrites_gradients_later_is_still_seen(tmp_path):
    model = linear()
    optimizer = LateOverwriter(model.parameters())
    expected = []
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer)
        for number in range(3):
            optimizer.zero_grad()
            model(torch.full((2, 5), number + 1.0)).sum().backward()
            state = {name: p.grad.clone() for name, p in model.named_parameters()}
            expected.append(counterfoil.commit_tensors(state).root)
            optimizer.step()
    record = counterfoil.Record(run.path)
    steps = [r for r in record.receipts() if r.kind == "step"]
    assert [record.opened(r)["gradients"].commitment.root for r in steps] == expected


def test_randomness_is_read_anew_when_a_generator_was_used():
    """It is kept while nothing changes; numpy's second normal variate moves no word of its generator."""
    before = collect.randomness()
    assert collect.randomness() is before
    for draw in (random.random, np.random.rand, np.random.randn, np.random.randn, lambda: torch.rand(1)):
        expected = draw()
        after = collect.randomness()
        assert after is not before
        collect.restore_randomness(
            {
                name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
                for name, value in before.items()
            }
        )
        assert draw() == expected
        before = collect.randomness()
        assert _as_bytes(before) == _as_bytes(after)


def test_a_state_of_numpy_that_was_put_back_is_read_anew():
    """The words of its generator are the same with and without a normal variate that waits."""
    np.random.seed(0)
    np.random.randn()
    kept = np.random.get_state()
    np.random.randn()
    assert collect.randomness()["numpy/has_gauss"] == 0
    np.random.set_state(kept)
    assert collect.randomness()["numpy/has_gauss"] == 1


def _as_bytes(state):
    return {name: value if value is None else np.asarray(value).tobytes() for name, value in state.items()}
