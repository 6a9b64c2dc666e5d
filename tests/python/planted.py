"""Changes planted into real trainings, and where each of them must be found.

A training shows its recorder states; what it showed is kept here as numpy arrays, under the names of docs/format.md,
section 14, and compared here, so that the library is never asked where its own answer should lie.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import random
import re
import shutil
import tempfile
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

import counterfoil
import planted_recipe
from counterfoil.errors import Refuted
from counterfoil.torch import replay
from counterfoil.torch.demo import digits

STEPS, BATCH, SPEC_SEED = 6, 8, 11
SEED = os.environ.get("PLANTED_SEED", "1")
ROUNDS = int(os.environ.get("PLANTED_ROUNDS", "1"))
ONLY = os.environ.get("PLANTED_ONLY", "")
ORDER = np.arange(BATCH * STEPS).reshape(STEPS, BATCH)
"""The samples of each step."""

# In a step: a batch is drawn, fed to the recorder, trained on; the optimiser is about to step, has stepped and is shown to
# the recorder, has been recorded; the step is over. A change stands from one of these moments to another, or stays.
TOLD, OPEN, COVERT, STAYS = ("shown", "after"), ("before", "after"), ("before", "shown"), ("shown", None)
KINDS = {
    "gradient": {"told": TOLD, "done": ("before", None)},
    "parameter": {"told": TOLD, "done": STAYS},
    "state": {"told": TOLD, "done": STAYS},
    "buffer": {"told": TOLD, "done": STAYS},
    "rate": {"told": TOLD, "open": OPEN, "covert": COVERT},
    "momentum": {"told": TOLD, "open": OPEN, "covert": COVERT},
    "skipped": {"told": TOLD, "done": STAYS},
    "precision": {"told": TOLD, "done": ("fed", "over")},
    "draws": {"told": ("drawn", "fed"), "open": ("drawn", None), "covert": ("fed", None)},
    # Not moments: which order is recorded, trained on, or both; what is logged; with what a training begins.
    "batch": {"told": None, "open": None, "covert": None},
    "swapped": {"told": None, "open": None, "covert": None},
    "loss": {"told": None},
    "seed": {"told": None, "weights": None, "done": None},
}  # fmt: skip
"""What is planted, and its variants: `told` is a lie that only the record tells, which does not propagate; `covert` one
that is done and not recorded; `open`, `done` and `weights` are done, and what came of them is recorded."""

MEANING = {
    "gradient": "1 ulp of a gradient", "parameter": "1 ulp of a parameter", "state": "1 ulp of the optimiser's state",
    "buffer": "a buffer tampered with", "rate": "lr x 1.0001", "momentum": "another momentum or beta",
    "skipped": "a skipped step", "precision": "bf16 for fp32", "draws": "another seed within a step",
    "batch": "a wrong batch", "swapped": "swapped steps", "loss": "a forged loss", "seed": "another seed",
}  # fmt: skip

STATE = ("parameters", "optimizer", "buffers")
COMPARED = {
    "step": ("hyperparameters", "batch", "samples", "randomness", "gradients", "metrics", *STATE),
    "checkpoint": (*STATE, "hyperparameters", "randomness"),
}
"""The order in which data flow."""
EXECUTED = {"step": ("hyperparameters", "gradients", "metrics", *STATE), "checkpoint": ()}
"""What a replay computes."""


@dataclasses.dataclass(frozen=True)
class Trial:
    kind: str
    variant: str
    model: str
    optimiser: str
    round: int = 0

    def __str__(self):
        return "-".join(map(str, dataclasses.astuple(self)))

    @property
    def spec(self):
        return {"seed": SPEC_SEED, "model": self.model, "optimiser": self.optimiser}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where two recordings differ; `values` are the two elements, none where one has no such tensor."""

    step: int
    kind: str
    field: str
    tensor: str
    index: tuple | None = None
    chunk: int | None = None
    values: tuple | None = None
    differing: int | None = None


def trials():
    """Every kind and variant with every model and optimiser."""
    return [
        Trial(kind, variant, model, optimiser, number)
        for number in range(ROUNDS)
        for model in planted_recipe.MODELS
        for optimiser in planted_recipe.OPTIMISERS
        for kind, variants in KINDS.items()
        for variant in variants
        if str(Trial(kind, variant, model, optimiser, number)).startswith(ONLY)
    ]


def some(count):
    """So many of each kind: variants, models and optimisers in turn."""
    models, optimisers = list(planted_recipe.MODELS), list(planted_recipe.OPTIMISERS)
    found = []
    for number, (kind, variants) in enumerate(KINDS.items()):
        for at in range(number, number + count):
            chosen = list(variants)[at % len(variants)], models[at % 3], optimisers[(2 * at - number) % 4]
            found.append(Trial(kind, *chosen))
    return found


@contextlib.contextmanager
def memory():
    """A folder for many small objects, in memory where there is one: each of them is synchronised."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        yield name


@contextlib.contextmanager
def one_thread():
    """Two would cost more than they bring, and give other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def data():
    return TensorDataset(*digits()[: BATCH * STEPS + 200])


class Plant:
    """One change in one training: where it is put is drawn from the seed and the trial's name, for every variant."""

    def __init__(self, trial, variant=None):
        self.kind, self.variant = trial.kind, variant or trial.variant
        draw = random.Random(f"{SEED}/{trial}")
        # Momentum does nothing in the first step of SGD.
        self.step = draw.randint(2 if self.kind == "momentum" else 1, STEPS - (self.kind == "swapped"))
        self.other = draw.randint(self.step + 1, STEPS) if self.kind == "swapped" else 0
        self.number = draw.randrange(1, 1 << 31)
        self.begins, self.ends = KINDS[self.kind][self.variant] or (None, None)
        self.place, self.undo = {}, None

    def order(self, recorded):
        """The samples of all steps, as they are recorded or as they are trained on."""
        order = ORDER.copy()
        if self.variant in (("told", "open") if recorded else ("open", "covert")):
            at, to = self.step - 1, self.other - 1
            if self.kind == "batch":
                order[at] = BATCH * STEPS + np.random.default_rng(self.number).permutation(200)[:BATCH]
            elif self.kind == "swapped":
                order[[at, to]] = order[[to, at]]
        return order

    def at(self, moment, training):
        """Makes the change, or takes it back, if this is its moment."""
        if training.step != self.step:
            return
        if moment == self.ends:
            self.undo()
        if moment == self.begins:
            self.undo = getattr(self, self.kind)(training)

    def nudge(self, field, tensors):
        """Moves one element of one tensor to the next number."""
        draw = random.Random(self.number)
        name = draw.choice(sorted(tensors))
        tensor = tensors[name].detach()
        index = tuple(draw.randrange(extent) for extent in tensor.shape)
        before = tensor[index].clone()
        if tensor.dtype == torch.float32:
            bits = before.view(torch.int32)
            tensor[index] = (bits + (1 if bits == 0 else draw.choice((-1, 1)))).view(torch.float32)
        else:
            tensor[index] += 1
        self.place = {"step": self.step, "kind": "step", "field": field, "tensor": name, "index": index}
        return lambda: tensor.__setitem__(index, before)

    def gradient(self, training):
        return self.nudge("gradients", training.gradients())

    def parameter(self, training):
        return self.nudge("parameters", training.parameters())

    def buffer(self, training):
        return self.nudge("buffers", training.buffers())

    def state(self, training):
        state = {n: t for n, t in training.state().items() if not n.endswith("/step")}
        return self.nudge("optimizer", state)

    def setting(self, training, change):
        (group,) = training.optimizer.param_groups
        before = dict(group)
        group.update(change(group))
        return lambda: group.update(before)

    def rate(self, training):
        if self.variant != "covert":
            self.place = {"step": self.step, "kind": "step", "field": "hyperparameters", "tensor": "0/lr"}
        return self.setting(training, lambda group: {"lr": group["lr"] * 1.0001})

    def momentum(self, training):
        def change(group):
            return {"betas": (0.91, 0.999)} if "betas" in group else {"momentum": 0.91}

        if self.variant != "covert":
            name = "0/betas/0" if "betas" in training.optimizer.param_groups[0] else "0/momentum"
            self.place = {"step": self.step, "kind": "step", "field": "hyperparameters", "tensor": name}
        return self.setting(training, change)

    def skipped(self, training):
        made = training.kept()
        training.put(training.before)
        self.place = {"step": self.step, "kind": "step", "field": "parameters"}
        return lambda: training.put(made)

    def precision(self, training):
        self.place = {"step": self.step, "kind": "step", "field": "gradients"}
        if self.variant == "done":
            context = torch.autocast("cpu", torch.bfloat16)
            context.__enter__()
            return lambda: context.__exit__(None, None, None)
        for gradient in training.gradients().values():
            gradient.copy_(gradient.bfloat16())
        return lambda: None

    def draws(self, training):
        before = torch.get_rng_state()
        if self.variant != "covert":
            self.place = {"step": self.step, "kind": "step", "field": "randomness", "tensor": "torch"}
        torch.manual_seed(self.number)
        return lambda: torch.set_rng_state(before)

    def logged(self, loss):
        """The loss as the record tells it."""
        self.place = {"step": self.step, "kind": "step", "field": "metrics", "tensor": "loss"}
        return loss * 0.99 if self.number % 2 else torch.nextafter(loss, torch.tensor(9.0))


class Training:
    """A training with a recipe, recorded; `shown` keeps what its recorder was shown."""

    def __init__(self, path, spec, plant=None, *, stores=True):
        self.plant, self.shown, self.step = plant, [], 0
        is_other = plant is not None and plant.kind == "seed"
        self.model, self.optimizer, step = planted_recipe.recipe(spec)
        randomness = torch.get_rng_state()
        if is_other:
            plant.place = {"step": 0, "kind": "checkpoint", "field": "parameters"}
            honest = self.kept()
            other, *_ = planted_recipe.recipe(spec | {"seed": plant.number})
            self.put((dict(other.named_parameters()), {}))
            if plant.variant != "done":
                torch.set_rng_state(randomness)
        recorded, used = (plant.order(each) if plant else ORDER for each in (True, False))
        loader = DataLoader(data(), batch_sampler=self.drawn(recorded))
        # Not before: what is imported with the first optimiser and the first data of a process draws from these.
        random.seed(0)
        np.random.seed(0)
        with counterfoil.Run.create(path, spec=spec, recipe=planted_recipe.__file__) as run:
            initial = {
                field: arrays(self.field(field)) for field in (*STATE, "hyperparameters", "randomness")
            }
            self.shown.append((0, "checkpoint", initial))
            self.recorder = run.attach(
                self.model, self.optimizer, every=1, checkpoint_every=1, store_gradients=stores
            )
            if is_other and plant.variant == "told":
                self.put(honest)
            self.optimizer.register_step_pre_hook(self.begin)
            first = self.optimizer.register_step_post_hook(self.show)
            self.optimizer._optimizer_step_post_hooks.move_to_end(first.id, last=False)
            self.optimizer.register_step_post_hook(lambda *_: self.moment("after"))
            for batch in run.batches(loader):
                self.recorded = {
                    "batch": arrays({str(at): each for at, each in enumerate(batch)}),
                    "samples": {"0/index": recorded[self.step - 1]},
                    "randomness": arrays(self.field("randomness")),
                }
                self.moment("fed")
                trained = tuple(data()[used[self.step - 1]])
                step(trained, self.step, self.log)
                self.moment("over")
                states = {field: self.shown[-1][2][field] for field in STATE}
                rest = {field: arrays(self.field(field)) for field in ("hyperparameters", "randomness")}
                self.shown.append((self.step, "checkpoint", states | rest))

    def drawn(self, order):
        """Samples of batches; each is asked for before it is recorded."""
        for places in order.tolist():
            self.step += 1
            self.moment("drawn")
            yield places

    def moment(self, name):
        if self.plant:
            self.plant.at(name, self)

    def log(self, loss):
        loss = loss.detach()
        if self.plant and self.plant.kind == "loss" and self.step == self.plant.step:
            loss = self.plant.logged(loss)
        self.recorded["metrics"] = {"loss": np.float64(loss.item())}
        self.recorder.log(loss=loss)

    def begin(self, *_):
        self.before = self.kept()
        self.moment("before")

    def show(self, *_):
        self.moment("shown")
        before = {"parameters": arrays(self.before[0]), "optimizer": arrays(flat(self.before[1]))}
        fields = {field: arrays(self.field(field)) for field in ("hyperparameters", "gradients", *STATE)}
        self.shown.append((self.step, "step", self.recorded | fields | {"before": before}))

    def parameters(self):
        return dict(self.model.named_parameters())

    def gradients(self):
        return {name: parameter.grad for name, parameter in self.parameters().items()}

    def buffers(self):
        return {f"buffer/{name}": buffer for name, buffer in self.model.named_buffers()}

    def slots(self):
        return {name: dict(self.optimizer.state.get(p, {})) for name, p in self.parameters().items()}

    def state(self):
        return flat(self.slots())

    def field(self, name):
        if name == "randomness":
            return {"torch": torch.get_rng_state()}
        if name == "hyperparameters":
            (group,) = self.optimizer.param_groups
            group = group | {f"betas/{at}": beta for at, beta in enumerate(group.get("betas", ()))}
            return {f"0/{key}": value for key, value in group.items() if key not in ("params", "betas")}
        return {"optimizer": self.state}.get(name, getattr(self, name, None))()

    def kept(self):
        """Copies of parameters and optimiser state, to be put back."""
        slots = {name: {k: v.clone() for k, v in state.items()} for name, state in self.slots().items()}
        return {name: value.detach().clone() for name, value in self.parameters().items()}, slots

    def put(self, kept):
        self.optimizer.state.clear()
        for name, parameter in self.parameters().items():
            parameter.data.copy_(kept[0][name].detach())
            if kept[1].get(name):
                self.optimizer.state[parameter] = {k: v.clone() for k, v in kept[1][name].items()}


def flat(slots):
    return {
        f"optimizer/0/{name}/{key}": value for name, state in slots.items() for key, value in state.items()
    }


def arrays(values):
    """Copies as numpy arrays, what is None left out."""
    plain = {
        n: v.detach().numpy() if isinstance(v, torch.Tensor) else v
        for n, v in values.items()
        if v is not None
    }
    return {name: np.array(value, order="C") for name, value in plain.items()}


def first_difference(ours, theirs, order=COMPARED):
    """The first place in which two trainings showed their recorders something else."""
    for (step, kind, our), (_, _, their) in zip(ours, theirs, strict=True):
        for field in order[kind]:
            for name in sorted({*our[field], *their[field]}, key=str.encode):
                one, other = (each[field].get(name) for each in (our, their))
                if one is None or other is None:
                    return Place(step, kind, field, name)
                if one.tobytes() == other.tobytes():
                    continue
                size = one.itemsize
                raw = [np.frombuffer(each.tobytes(), f"V{size}") for each in (one, other)]
                places = np.flatnonzero(raw[0] != raw[1])
                at = int(places[0])
                index = tuple(map(int, np.unravel_index(at, one.shape))) if one.shape else ()
                values = (one[index], other[index])
                return Place(step, kind, field, name, index, at * size // 1024, values, len(places))
    return None


def says(text, value):
    """Whether a text is this number: decimal, and of floats the bits."""
    if value.dtype.kind != "f":
        return text == str(int(value))
    shown, _, bits = text.partition(" (")
    expected = f"0x{int.from_bytes(value.tobytes(), 'little'):0{2 * value.itemsize}x})"
    return bits == expected and type(value)(shown) == value


def located(found, place):
    """Why this is not the place; empty when it is."""
    if found is None:
        return "nothing was found"
    wrong = [
        f"{name} {getattr(found, name)}"
        for name in ("step", "kind", "field", "tensor", "index", "chunk", "differing")
        if getattr(found, name) != getattr(place, name)
    ]
    texts = zip((found.ours, found.theirs), place.values or (), strict=False)
    wrong += [f"{text} is not {value}" for text, value in texts if not says(text, value)]
    return f"{', '.join(wrong)} instead of {place}" if wrong else ""


# Updates, by torch itself


def refuted_updates(shown, spec):
    """The (step, field, tensor) that are not what torch makes of the state, gradient and hyperparameters shown.

    Only of steps that went on from the state which the checkpoint before them showed.
    """
    found = set()
    for (_, _, before), (step, kind, fields) in itertools.pairwise(shown):
        if kind != "step" or any(
            first_difference([(step, "step", fields["before"])], [(step, "step", before)], {"step": (field,)})
            for field in ("parameters", "optimizer")
        ):
            continue
        found |= {(step, *wrong) for wrong in _refuted_update(before, fields, spec)}
    return found


def _refuted_update(before, fields, spec):
    weights = {n: torch.nn.Parameter(torch.tensor(value)) for n, value in before["parameters"].items()}
    optimizer = planted_recipe.OPTIMISERS[spec["optimiser"]](weights.values())
    (group,) = optimizer.param_groups
    numbers = {name.removeprefix("0/"): value.item() for name, value in fields["hyperparameters"].items()}
    if "betas" in group:
        numbers["betas"] = (numbers.pop("betas/0"), numbers.pop("betas/1"))
    group.update(numbers)
    for name, value in before["optimizer"].items():
        parameter, _, key = name.removeprefix("optimizer/0/").rpartition("/")
        optimizer.state[weights[parameter]][key] = torch.tensor(value)
    for name, weight in weights.items():
        weight.grad = torch.tensor(fields["gradients"][name])
    optimizer.step()
    made = arrays(flat({name: optimizer.state[weight] for name, weight in weights.items()}))
    after = fields["optimizer"]
    for name, value in made.items():
        if name not in after or value.tobytes() != after[name].tobytes():
            yield "optimizer", name
    for name, weight in weights.items():
        recorded = fields["parameters"][name]
        is_equal = arrays({"": weight})[""].tobytes() == recorded.tobytes()
        state = {key: made[f"optimizer/0/{name}/{key}"] for key in optimizer.state[weight]}
        if not (
            is_equal or ("betas" in group and accepted(before["parameters"][name], state, group, recorded))
        ):
            yield "parameters", name


def accepted(before, state, group, after):
    """Whether Adam's rule leaves room for these parameters: no rule gives the last bit of its roots and powers."""
    single = np.float32
    lr, steps = group["lr"], int(state["step"])
    decay = lr * group["weight_decay"] if group["decoupled_weight_decay"] else 0.0
    before = before * single(1 - decay)
    root = np.sqrt(state["exp_avg_sq"])
    roots = [
        root,
        np.nextafter(root, single(np.inf)),
        np.maximum(np.nextafter(root, single(-np.inf)), single(0)),
    ]
    powers = [around(Fraction(beta) ** steps) for beta in group["betas"]]
    sizes = {single(-lr / (1 - power)) for power in powers[0]}
    halves = [np.sqrt(1 - power) for power in powers[1]]
    corrections = {
        single(each) for half in halves for each in (half, np.nextafter(half, 0), np.nextafter(half, 1))
    }
    for size in sizes:
        for correction in corrections:
            made = [
                before + size * state["exp_avg"] / (each / correction + single(group["eps"]))
                for each in roots
            ]
            if np.logical_or.reduce([each == after for each in made]).all():
                return True
    return False


def around(exact):
    """The doubles around a fraction."""
    near = float(exact)
    if Fraction(near) == exact:
        return [near]
    return [near, float(np.nextafter(near, 1.0 if Fraction(near) < exact else 0.0))]


def judged(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except Refuted as refuted:
        return refuted.verdict


def verified_updates(path):
    """The (step, field, tensor) that `verify` names, which must be all that it refutes."""
    verdict = judged(counterfoil.verify, path)
    named = [re.search(r"\(step (\d+)\): update of (\w+) '(.*)'$", edge.edge) for edge in verdict.broken]
    assert all(named) and verdict.status == ("refuted" if named else "verified"), verdict
    return {(int(each[1]), each[2], each[3]) for each in named}


def replayed(path):
    """What a replay of all steps says: status, the first step, field and tensor that it refutes, and what is missing."""
    verdict = judged(replay, path, f"0:{STEPS}", recipe=counterfoil.Record(path).recipe_digest)
    named = [re.fullmatch(r"step (\d+): (\w+) '(.*)'", edge.edge) for edge in verdict.broken]
    assert all(named), verdict
    return verdict.status, [(int(each[1]), each[2], each[3]) for each in named], verdict


# Trials


@functools.cache
def honest(model, optimiser, folder):
    """An honest training of these, recorded once."""
    path = Path(folder) / f"honest-{model}-{optimiser}"
    return path, Training(path, Trial("", "", model, optimiser).spec).shown


TABLE = {method: Counter() for method in ("diff", "verify", "replay")}
"""Of each kind, variant and method, how many trials were located, and how many it cannot see."""


def compare(trial, folder):
    """What is wrong with what `diff` and `verify` say of a trial's record."""
    first, shown = honest(trial.model, trial.optimiser, folder)
    path, change = Path(folder) / str(trial), Plant(trial)
    lying = Training(path, trial.spec, change).shown
    known = {"step": change.step} | change.place
    place = first_difference(shown, lying)
    assert place is not None, f"{trial}: the change left no trace in what was shown"
    for name, value in known.items():
        assert getattr(place, name) == value, f"{trial}: {place} is not where {known} was planted"
    if trial.variant == "told":
        last = max(place.step, change.other)
        behind = [[each for each in training if each[0] > last] for training in (shown, lying)]
        assert first_difference(*behind) is None, f"{trial}: a lie that only the record tells has propagated"
    wrong = [located(counterfoil.diff(first, path).first, place)]
    count(trial, "diff", not wrong[0])
    expected, named = refuted_updates(lying, trial.spec), verified_updates(path)
    if trial.kind in ("rate", "momentum", "skipped") and trial.variant != "open":
        assert {step for step, *_ in expected} == {place.step}, f"{trial}: {expected}"
    elif trial.kind in ("parameter", "state"):
        is_rounding = trial.kind == "parameter" and trial.optimiser.startswith("adam") and not expected
        assert is_rounding or expected == {(place.step, place.field, place.tensor)}, f"{trial}: {expected}"
    if expected != named:
        wrong.append(f"verify named {sorted(named - expected)} and not {sorted(expected - named)}")
    count(trial, "verify", expected == named, is_visible=bool(expected))
    shutil.rmtree(path)
    return [f"{trial}: {each}" for each in wrong if each]


def count(trial, method, is_right, *, is_visible=True):
    outcome = "wrong" if not is_right else "located" if is_visible else "unseen"
    TABLE[method][trial.kind, trial.variant, outcome] += 1


# What a replay computes from the batch and the generators that a record tells, where the record lies about these.
TWINS = {
    ("batch", "told"): "open",
    ("swapped", "told"): "open",
    ("draws", "told"): "open",
    ("seed", "told"): "weights",
}


def supposed(trial, folder):
    """Records a trial for a replay; returns the record's folder and what a replay must answer.

    No gradients are stored, since `verify`, which a replay calls first, would refuse some of the records by them.
    """
    path, change = Path(folder) / f"replayed-{trial}", Plant(trial)
    lying = Training(path, trial.spec, change, stores=False).shown
    key = trial.kind, trial.variant
    if key in (("seed", "weights"), ("seed", "done")):
        return path, ("undecided", [])
    if key in TWINS or (trial.variant == "open" and trial.kind in ("batch", "swapped", "draws")):
        twin_path = Path(folder) / f"twin-of-{trial}"
        twin = Training(twin_path, trial.spec, Plant(trial, TWINS.get(key)), stores=False).shown
    else:
        twin = honest(trial.model, trial.optimiser, folder)[1]
    place = first_difference(twin, lying, EXECUTED)
    if place is None:
        return path, ("verified", [])
    assert place.step == change.place.get("step", change.step) or trial.kind == "seed", f"{trial}: {place}"
    return path, ("refuted", [(place.step, place.field, place.tensor)])


def execute(trial, path, answer):
    """What is wrong with the replay of a trial's record."""
    status, named, verdict = replayed(path)
    is_right = (status, named) == answer
    if answer[0] == "undecided":
        is_right &= any(
            "did not begin from the state that its recipe makes" in text for text in verdict.missing
        )
    count(trial, "replay", is_right, is_visible=answer[0] != "verified")
    return "" if is_right else f"{trial}: replay is {status} {named}, not {answer}: {verdict}"


def check_honest(model, optimiser, folder):
    """The control: a training that was made again differs nowhere, and all its updates are executed."""
    path, shown = honest(model, optimiser, folder)
    again = Path(folder) / f"again-{model}-{optimiser}"
    assert first_difference(shown, Training(again, Trial("", "", model, optimiser).spec).shown) is None
    found = counterfoil.diff(path, again)
    assert (found.first, found.steps, found.gaps) == (None, STEPS, ()), found
    verdict = counterfoil.verify(again)
    executed = f"the optimiser's update of {STEPS} steps was executed again from stored gradients, bit-exact"
    assert verdict.status == "verified" and executed in verdict.notes, verdict


def table():
    """The counts of this process, as a table."""
    lines = [
        f"seed {SEED}; {STEPS} steps of {BATCH} images; {len(planted_recipe.MODELS)} models: "
        f"{', '.join(planted_recipe.MODELS)}; {len(planted_recipe.OPTIMISERS)} optimisers: "
        f"{', '.join(planted_recipe.OPTIMISERS)}",
        "",
        "| planted | variant | `diff` | `verify` alone | `replay` |",
        "|---|---|---|---|---|",
    ]

    def cells(keys):
        for counts in TABLE.values():
            right, wrong, unseen = (
                sum(counts[*key, outcome] for key in keys) for outcome in ("located", "wrong", "unseen")
            )
            shown = f"{right} / {right + wrong}" if right + wrong else "-"
            yield shown + (f" ({unseen} cannot be seen)" if unseen else "")

    keys = [(kind, variant) for kind, variants in KINDS.items() for variant in variants]
    for kind, variant in keys:
        lines.append(f"| {MEANING[kind]} | {variant} | {' | '.join(cells([(kind, variant)]))} |")
    return [*lines, f"| all | | {' | '.join(cells(keys))} |"]
