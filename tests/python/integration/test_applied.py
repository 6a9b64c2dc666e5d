"""Over optimisers, precisions and features: the committed gradient is the one that was applied.

The expected gradient is computed anew, by autograd in a model of the same weights that no recorder knows, and
hashed with hashlib alone; that it is the applied one is shown by the weights, which it moves as the recorded
training moved them. `docs/recorder.md` holds the table; `test_the_documented_table_is_this_one` keeps it so.
"""

import copy
import itertools
from pathlib import Path

import pytest
import torch

import counterfoil
import oracle
from training import entry, state_root, steps_of

STEPS = 3
SKIPPED = 1


def optimisers():
    """Every optimiser of torch in each of its implementations, by name."""
    kinds = {
        name: getattr(torch.optim, name)
        for name in dir(torch.optim)
        if isinstance(getattr(torch.optim, name), type)
        and issubclass(getattr(torch.optim, name), torch.optim.Optimizer)
    }
    ways = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
    found = {}
    for name, kind in sorted(kinds.items()):
        if name in ("Optimizer", "SparseAdam"):
            continue
        known = kind.__init__.__code__.co_varnames
        own = {way: option for way, option in ways.items() if set(option) <= set(known)} or {"plain": {}}
        for way, option in own.items():
            found[f"{name} {way}"] = (kind, option)
        if "nesterov" in known and "foreach" in known and "momentum" in known:
            for way, option in own.items():
                found[f"{name} nesterov {way}"] = (kind, {"momentum": 0.9, "nesterov": True} | option)
    return found


OPTIMISERS = optimisers()
PRECISIONS = ("float32", "float64", "bfloat16", "float16", "autocast", "scaled")
FEATURES = (
    "plain",
    "clipped",
    "accumulated",
    "closure",
    "tied",
    "unused",
    "compiled",
    "frozen later",
    "added later",
)


class Net(torch.nn.Module):
    """Matrices alone, since some optimisers take nothing else."""

    def __init__(self, feature="plain"):
        super().__init__()
        torch.manual_seed(0)
        self.one = torch.nn.Linear(4, 4, bias=False)
        self.two = torch.nn.Linear(4, 4, bias=False)
        self.three = torch.nn.Linear(4, 2, bias=False)
        if feature == "tied":
            self.two.weight = self.one.weight
        self.feature = feature

    def forward(self, x):
        x = torch.tanh(self.one(x))
        return self.three(x if self.feature == "unused" else torch.tanh(self.two(x)))


def inputs():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(STEPS, 3, 6, 4, generator=generator)


def loss_of(model, x, precision, dtype):
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        return model(x.to(dtype)).float().square().mean() * 3


class Case:
    """One training, recorded or not, by the same loop."""

    def __init__(self, setting, precision, feature):
        self.kind, self.options = OPTIMISERS[setting]
        self.precision, self.feature = precision, feature
        plain = precision in ("float32", "autocast", "scaled")
        self.dtype = torch.float32 if plain else getattr(torch, precision)
        self.model = Net(feature).to(self.dtype)
        chosen = [p for n, p in self.model.named_parameters() if feature != "added later" or "three" not in n]
        self.optimizer = self.kind(chosen, lr=0.01, **self.options)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if precision == "scaled" else None
        self.forward = torch.compile(self.model, backend="eager") if feature == "compiled" else self.model

    def run(self, before_step=lambda number: None):
        for number, x in enumerate(inputs()):
            if number == 1 and self.feature == "frozen later":
                self.model.two.weight.requires_grad_(False)
            if number == 1 and self.feature == "added later":
                self.optimizer.add_param_group({"params": [self.model.three.weight]})
            self.optimizer.zero_grad()
            before_step(number)
            if self.feature == "closure" or self.kind is torch.optim.LBFGS:
                self.optimizer.step(lambda x=x: self.backward(x[:1]))
                continue
            self.backward(x if self.feature == "accumulated" else x[:1])
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer) if self.feature == "clipped" else None
            if self.feature == "clipped":
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 0.05)
            if self.scaler is None:
                self.optimizer.step()
            else:
                self.scaler.step(self.optimizer)
                self.scaler.update()

    def backward(self, parts):
        self.optimizer.zero_grad()
        for part in parts:
            loss = loss_of(self.forward, part, self.precision, self.dtype)
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        return loss

    def expected(self, number):
        """The gradient of a step at the weights of now, by autograd alone: neither scaler, nor optimiser, nor hook."""
        model = copy.deepcopy(self.model)
        parts = inputs()[number] if self.feature == "accumulated" else inputs()[number][:1]
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        weights = [p for p in model.parameters() if p.requires_grad]
        total = None
        for part in parts:
            loss = loss_of(model, part, self.precision, self.dtype)
            found = torch.autograd.grad(loss, weights, allow_unused=True)
            total = (
                found
                if total is None
                else [a if a is None else a + b for a, b in zip(total, found, strict=True)]
            )
        gradients = dict(zip(names, total, strict=True))
        if self.feature == "clipped":
            held = [g for g in gradients.values() if g is not None]
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in held]))
            factor = torch.clamp(0.05 / (norm + 1e-6), max=1.0)
            gradients = {n: None if g is None else g * factor for n, g in gradients.items()}
        owned = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        every = {name: gradients.get(name) for name, _ in self.model.named_parameters()}
        return {name: every[name] if id(p) in owned else None for name, p in self.model.named_parameters()}


def unrecorded(setting, precision, feature):
    """Roots of the applied gradients and the final weights; or why torch itself cannot do it."""
    kind, _ = OPTIMISERS[setting]
    if precision == "scaled" and (feature == "closure" or kind is torch.optim.LBFGS):
        return "scalers take no closures"
    if kind is torch.optim.LBFGS and feature in ("accumulated", "clipped", "added later"):
        return "LBFGS has one group and evaluates closures"
    roots = []
    tied = [oracle.Entry("two.weight", 2, target="one.weight")] if feature == "tied" else []
    try:
        case = Case(setting, precision, feature)
        case.run(lambda number: roots.append(state_root(case.expected(number), *tied)))
    except (RuntimeError, ValueError, TypeError, KeyError) as refused:
        return str(refused).splitlines()[0]
    return roots, case.model.state_dict()


def bits(tensor):
    return tensor.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


SETTINGS = [
    (setting, precision, feature)
    for setting, precision, feature in itertools.product(OPTIMISERS, PRECISIONS, FEATURES)
    # Each pair of a setting with a precision, and with a feature; all three together for the usual ones.
    if feature == "plain"
    or precision == "float32"
    or setting in ("AdamW foreach", "SGD nesterov foreach", "Adam fused")
]


@pytest.mark.parametrize("setting", OPTIMISERS)
def test_the_committed_gradient_is_the_applied_one(tmp_path, setting):
    done, impossible = 0, []
    for precision, feature in ((p, f) for s, p, f in SETTINGS if s == setting):
        answer = unrecorded(setting, precision, feature)
        if isinstance(answer, str):
            impossible.append(f"{precision}, {feature}: {answer}")
            continue
        expected, weights = answer
        case = Case(setting, precision, feature)
        path = tmp_path / f"{precision} {feature}"
        with counterfoil.Run.create(path) as run:
            run.attach(case.model, case.optimizer, every=0, checkpoint_every=0)
            case.run()
        where = f"{setting}, {precision}, {feature}"
        # Recording changes nothing, so that what was expected at its weights was expected at these.
        for name, value in case.model.state_dict().items():
            assert torch.equal(bits(value), bits(weights[name])), where
        found = [opened["gradients"].commitment.root for _, opened in steps_of(path)]
        if case.kind is torch.optim.LBFGS:
            # Of its last closure call, at weights between two steps: recomputed there.
            assert len(found) == STEPS and found != expected, where
            done += 1
            continue
        assert found == expected, where
        assert counterfoil.verify(path).status == "verified", where
        done += 1
    print(f"{setting}: {done} combinations; torch refuses {len(impossible)}: {impossible}")
    assert done >= 8


def test_lbfgs_commits_the_gradient_of_its_last_closure_call(tmp_path):
    model, seen = Net(), []
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4, line_search_fn="strong_wolfe")
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer, every=1, checkpoint_every=2)
        calls = []
        for x in inputs():

            def closure(x=x):
                optimizer.zero_grad()
                weights = dict(model.named_parameters())
                loss = loss_of(model, x[0], "float32", torch.float32)
                seen[-1:] = [
                    dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
                ]
                calls[-1] += 1
                loss = loss_of(model, x[0], "float32", torch.float32)
                loss.backward()
                return loss

            seen.append(None)
            calls.append(0)
            optimizer.step(closure)
    found = steps_of(run.path)
    assert [opened["gradients"].commitment.root for _, opened in found] == [state_root(each) for each in seen]
    counted = [opened["hyperparameters"].scalars()["0/func_evals"] for _, opened in found]
    assert counted == list(itertools.accumulate(calls)) and min(calls) > 1
    with counterfoil.Run.open(run.path) as again:
        fresh = Net()
        other = torch.optim.LBFGS(fresh.parameters(), lr=0.1, max_iter=4, line_search_fn="strong_wolfe")
        again.attach(fresh, other, restore=True)
        optimizer.step(lambda: _again(model, optimizer))
        other.step(lambda: _again(fresh, other))
    for name, value in model.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name])
    assert counterfoil.verify(run.path).status == "verified"


def _again(model, optimizer):
    optimizer.zero_grad()
    loss = loss_of(model, inputs()[0][0], "float32", torch.float32)
    loss.backward()
    return loss


@pytest.mark.parametrize("way", [{"foreach": False}, {"foreach": True}, {"fused": True}])
def test_a_step_that_the_scaler_skipped_is_recorded_as_skipped(tmp_path, monkeypatch, way):
    """Without it the skipped batch would be recorded with the next step's, and its replay would differ."""
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), **way)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    data = [inputs()[0][0], torch.full((6, 4), torch.inf), inputs()[1][0]]
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer, every=1, also={"scaler": scaler})
        observed = torch.amp.GradScaler.step
        monkeypatch.setattr(torch.amp.GradScaler, "step", lambda *given: observed(*given))  # another tool's
        with counterfoil.Run.create(tmp_path / "other") as other:
            other.attach(second := Net(), torch.optim.SGD(second.parameters()))
        for x in run.batches(data):
            optimizer.zero_grad()
            scaler.scale(loss_of(model, x, "float32", torch.float32)).backward()
            scaler.step(optimizer)
            scaler.update()
    found = steps_of(run.path)
    assert [receipt.fields["flags"] & SKIPPED for receipt, _ in found] == [0, 1, 0]
    assert ["gradients" in opened for _, opened in found] == [True, False, True]
    assert [[e.name for e in opened["batch"].entries] for _, opened in found] == [["."]] * 3
    assert counterfoil.verify(run.path).status == "verified"


def test_a_step_that_the_scaler_left_out_behind_a_checkpoint_is_recorded(tmp_path):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer, every=1, checkpoint_every=2)
        for number in range(4):
            optimizer.zero_grad()
            x = torch.full((6, 4), torch.inf if number == 2 else 1.0)
            scaler.scale(loss_of(model, x, "float32", torch.float32)).backward()
            scaler.step(optimizer)
            scaler.update()
    assert [receipt.fields["flags"] & SKIPPED for receipt, _ in steps_of(run.path)] == [0, 0, 1, 0]
    assert counterfoil.verify(run.path).status == "verified"


def test_modules_and_buffers_may_be_replaced_while_a_run_is_recorded(tmp_path):
    """A freed module's identity is used again, and tensors of inference mode have no version."""
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer, every=1)
        for _ in range(4):
            del model.three
            model.three = torch.nn.Linear(4, 2, bias=False)
            optimizer.add_param_group({"params": [model.three.weight]})
            optimizer.param_groups = [optimizer.param_groups[0], optimizer.param_groups[-1]]
            optimizer.param_groups[0]["params"] = [model.one.weight, model.two.weight]
            with torch.inference_mode():
                model.register_buffer("best", torch.rand(2))
            _again(model, optimizer)
            expected = state_root({name: p.grad.clone() for name, p in model.named_parameters()})
            optimizer.step()
            run.flush()
            assert steps_of(run.path)[-1][1]["gradients"].commitment.root == expected
    assert counterfoil.verify(run.path).status == "verified"


def test_sparse_gradients_are_committed_coalesced(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.EmbeddingBag(9, 3, sparse=True, mode="sum")
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.1)
    kept = []
    optimizer.register_step_pre_hook(lambda *_: kept.append(model.weight.grad.clone()))
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer, every=1)
        for words in ([[1, 7, 1]], [[0, 0, 3]]):
            optimizer.zero_grad()
            model(torch.tensor(words)).square().sum().backward()
            optimizer.step()
    for gradient, (_, opened) in zip(kept, steps_of(run.path), strict=True):
        dense = gradient.to_dense()
        rows = sorted({int(row) for row in gradient._indices()[0]})
        indices = torch.tensor([rows])
        parts = {"weight#indices": indices, "weight#values": dense[rows]}
        expected = oracle.state_root(
            [
                oracle.Entry(
                    "weight#indices", 0, "I64", (1, len(rows)), 8 * len(rows), _root(parts["weight#indices"])
                ),
                entry("weight#values", parts["weight#values"]),
            ]
        )
        assert opened["gradients"].commitment.root == expected
    assert counterfoil.verify(run.path).status == "verified"


def _root(tensor):
    return oracle.root(oracle.chunks(tensor.numpy().tobytes()))


def test_each_of_several_optimisers_commits_its_own_gradients(tmp_path):
    """Backward through the other network leaves gradients there that this step does not apply."""
    torch.manual_seed(0)
    nets = torch.nn.ModuleDict({"generator": torch.nn.Linear(3, 4), "critic": torch.nn.Linear(4, 1)})
    of_generator = torch.optim.Adam(nets["generator"].parameters(), lr=0.01)
    of_critic = torch.optim.SGD(
        [{"params": [nets["critic"].weight]}, {"params": [nets["critic"].bias], "lr": 0.5}], lr=0.1
    )
    expected = []

    def keep(part):
        named = dict(nets.named_parameters())
        expected.append({n: p.grad.clone() if n.startswith(part) else None for n, p in named.items()})

    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(nets, [of_generator, of_critic], every=1, checkpoint_every=2)
        for _ in range(2):
            nets["critic"](nets["generator"](torch.randn(5, 3))).mean().backward()
            keep("critic")
            of_critic.step()
            keep("generator")
            of_generator.step()
            nets.zero_grad()
    found = steps_of(run.path)
    assert [opened["gradients"].commitment.root for _, opened in found] == [
        state_root(each) for each in expected
    ]
    assert [opened["hyperparameters"].scalars()["stepped"] for _, opened in found] == [1, 0, 1, 0]
    assert found[0][1]["hyperparameters"].scalars()["2/lr"] == 0.5
    assert {e.name.split("/")[1] for e in found[1][1]["optimizer"].entries} >= {"0"}
    assert counterfoil.verify(run.path).status == "verified"


def test_optimisers_that_step_within_backward_leave_a_receipt_for_each_parameter(tmp_path):
    """Their gradients are gone when backward returns."""
    model = Net()
    optimisers = {p: torch.optim.SGD([p], lr=0.1, foreach=False) for p in model.parameters()}
    names = {id(p): name for name, p in model.named_parameters()}
    applied = []

    def step_at_once(parameter):
        applied.append(
            {n: parameter.grad.clone() if n == names[id(parameter)] else None for n in names.values()}
        )
        optimisers[parameter].step()
        optimisers[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step_at_once)
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, list(optimisers.values()), every=0)
        for x in run.batches(list(inputs()[:, 0])):
            loss_of(model, x, "float32", torch.float32).backward()
    found = [opened["gradients"].commitment.root for _, opened in steps_of(run.path)]
    assert found == [state_root(each) for each in applied] and len(found) == 3 * STEPS
    assert all(p.grad is None for p in model.parameters())
    assert counterfoil.verify(run.path).status == "verified"


def test_eight_bit_floats_in_buffers_are_committed_by_their_bits(tmp_path):
    model = Net()
    for name in ("float8_e4m3fn", "float8_e5m2"):
        model.register_buffer(name, torch.linspace(-3, 3, 11).to(getattr(torch, name)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.attach(model, optimizer, every=1)
        _again(model, optimizer)
        optimizer.step()
    (_, opened) = steps_of(run.path)[0]
    for tensor in opened["buffers"].entries:
        held = getattr(model, tensor.name.removeprefix("buffer/"))
        assert tensor.root == oracle.root(oracle.chunks(held.view(torch.uint8).numpy().tobytes()))


def test_the_documented_table_is_this_one():
    page = (Path(__file__).parents[3] / "docs" / "recorder.md").read_text()
    for name in (*OPTIMISERS, *PRECISIONS, *FEATURES):
        kind = name.split()[0] if name in OPTIMISERS else name
        assert f"`{kind}`" in page, kind
