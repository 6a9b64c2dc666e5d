"""On a machine whose bits differ an honest step is accepted, a cheat refused, and what passes is said."""

import dataclasses
import json
import types

import pytest
import torch

import counterfoil
from counterfoil.errors import InvalidInput, Refuted
from counterfoil.fingerprints import publish
from counterfoil.torch import calibrate, collect, replay
from counterfoil.torch.demo import lying, ranks, transformer
from replays import MLP, TRANSFORMER, data, record

ELSEWHERE = {"ATEN_CPU_CAPABILITY": "default", "mkldnn": False}
STEPS = 3
# Wide enough for some bit of each step to differ.
WIDE = {**MLP, "hidden": 64}
WHOLE = {"spec": WIDE, "checkpoint_every": 1, "store_gradients": True, "steps": STEPS}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="this processor has one kind of kernels"
    ),
]


def pin(path):
    return counterfoil.Record(path).recipe_digest


def written(
    folder, body, build="torch.optim.SGD(model.parameters(), lr=0.05)", model="torch.nn.Linear(64, 10)"
):
    """A recipe as a module: what it builds, and what its step does with `images`, `labels` and `number`."""
    lines = "".join(f"        {line}\n" for line in body.strip().splitlines())
    source = (
        "import torch\n\ndef recipe(spec):\n    torch.manual_seed(spec['seed'])\n"
        f"    model = {model}\n    optimizer = {build}\n    kept = {{}}\n"
        "    def step(batch, number, log):\n        images, labels = batch\n        optimizer.zero_grad()\n"
        f"{lines}    return model, optimizer, step\n"
    )
    folder.mkdir(exist_ok=True)
    (folder / "recipe.py").write_text(source)
    module = types.ModuleType("written")
    module.__file__ = str(folder / "recipe.py")
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    return module


PLAIN = """
loss = torch.nn.functional.cross_entropy(model(images.flatten(1)), labels)
loss.backward()
log(loss=loss)
optimizer.step()
"""


def scaled(factor):
    """A lie for a trainer: the gradient that is applied and recorded is `factor` times the computed one."""

    def install(optimizer):
        def scale(*_):
            for parameter in optimizer.param_groups[0]["params"]:
                parameter.grad.mul_(factor)

        optimizer.register_step_pre_hook(scale)

    return install


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return record(tmp_path_factory.mktemp("honest") / "run", **WHOLE)


@pytest.fixture(scope="module")
def thresholds(honest):
    return calibrate(honest, recipe=pin(honest), environment=ELSEWHERE)


def judged(path, thresholds, **options):
    return replay(path, "all", recipe=pin(path), tolerance=thresholds, environment=ELSEWHERE, **options)


def test_an_honest_run_is_accepted_where_its_bits_differ(honest, thresholds):
    verdict = judged(honest, thresholds, require={"recipe": True, "replayed": STEPS})
    assert verdict.status == "verified", str(verdict)
    assert (
        f"within tolerance {STEPS} of {STEPS} by you (not seen: what moves a tensor by less than"
        in verdict.transition
    )
    assert any(thresholds.digest in note for note in verdict.notes)
    assert thresholds.cheats["one sample of a batch left out"] > 100
    document = json.loads(verdict.to_json())["transition"]
    assert document["tolerated"] == STEPS and document["replayed"] == 0


def test_an_initial_state_that_is_rounded_otherwise_takes_nothing_from_the_run(tmp_path):
    """Random weights as well are computed, and by other kernels to other bits."""
    path = record(tmp_path / "run", **WHOLE | {"spec": MLP})
    verdict = judged(path, calibrate(path, recipe=pin(path), environment=ELSEWHERE))
    assert verdict.status == "verified", str(verdict)
    assert "the initial state is the one that the recipe makes, but for roundings" in verdict.notes


def test_a_transformer_is_accepted_as_well(tmp_path):
    path = record(tmp_path / "run", transformer, **WHOLE | {"spec": TRANSFORMER})
    verdict = judged(path, calibrate(path, recipe=pin(path), environment=ELSEWHERE))
    assert verdict.status == "verified" and f"within tolerance {STEPS} of {STEPS}" in verdict.transition


@pytest.mark.parametrize(
    ("lie", "field"),
    [
        ({"lie": scaled(1.0001)}, "gradients"),
        ({"lie": scaled(0.0)}, "gradients"),
        ({"told": 0.999}, "metrics"),
    ],
)
def test_a_lie_is_refused_where_bits_differ(tmp_path, thresholds, lie, field):
    path = record(tmp_path / "run", **WHOLE, **lie)
    assert counterfoil.verify(path).status == "verified", (
        "its signatures and its updates are those of the lie"
    )
    with pytest.raises(Refuted) as caught:
        judged(path, thresholds)
    assert caught.value.verdict.broken[0].edge.startswith(f"step 1: {field} ")
    assert "off" in caught.value.verdict.broken[0].actual


def test_an_update_lie_is_refused_where_no_core_executes_the_optimiser(tmp_path):
    module = written(tmp_path / "recipe", PLAIN, "torch.optim.RMSprop(model.parameters(), lr=0.01)")
    honest, liar = (
        record(tmp_path / name, module, **WHOLE, lie=lie)
        for name, lie in (("honest", None), ("liar", lying(2)))
    )
    thresholds = calibrate(honest, recipe=pin(honest), environment=ELSEWHERE)
    assert judged(honest, thresholds).status == "verified"
    with pytest.raises(Refuted, match="step 2: update"):
        judged(liar, thresholds)


def test_no_tolerance_excuses_a_difference_on_the_same_machine(tmp_path, thresholds):
    """Else a drift below the thresholds would pass where bits decide."""
    path = record(tmp_path / "run", **WHOLE, lie=scaled(1 + 2e-7))
    assert judged(path, thresholds).status == "verified", "what a tolerance hides"
    local = calibrate(path, recipe=pin(path))
    with pytest.raises(Refuted, match="step 1: gradients"):
        replay(path, "all", recipe=pin(path), tolerance=local)


def test_a_run_without_stored_gradients_is_undecided_by_name(tmp_path):
    path = record(tmp_path / "run", spec=WIDE, checkpoint_every=1, steps=STEPS)
    verdict = judged(path, calibrate(path, recipe=pin(path), environment=ELSEWHERE))
    assert verdict.status == "undecided"
    assert any(
        "step 3 not judged" in missing and "store_gradients" in missing for missing in verdict.missing
    ), verdict.missing


def test_a_step_without_a_state_before_it_is_undecided_by_name(tmp_path):
    path = record(tmp_path / "run", **WHOLE | {"checkpoint_every": 3})
    verdict = judged(path, calibrate(path, recipe=pin(path), environment=ELSEWHERE))
    assert "step 3 not judged: no state is stored just before it" in verdict.missing


def test_nobody_is_accused_where_a_rounding_of_the_state_moves_the_gradient_as_far(tmp_path):
    """Two honest machines may lie on two sides of a kink."""
    # On which side of the kink a sum lies is decided by its last bits.
    kink = "(1 + 0.01 * ((model(images.flatten(1)).detach().double() * 2.0**24).sum() % 2)) * loss"
    body = PLAIN.replace("loss.backward()", f"({kink}).backward()")
    module = written(tmp_path / "recipe", body)
    path = record(tmp_path / "run", module, **WHOLE, lie=scaled(1.01))
    found = calibrate(path, recipe=pin(path), environment=ELSEWHERE)
    tight = dataclasses.replace(found, noise=dict.fromkeys(found.noise, 1e-7))
    verdict = judged(path, tight)
    assert verdict.status == "undecided"
    assert any("no machine can decide" in missing for missing in verdict.missing)


def test_random_numbers_of_another_machine_accuse_nobody_and_hide_no_lie_where_none_are_drawn(
    tmp_path, monkeypatch
):
    """Torch draws dropout's masks from other streams on Intel's processors and on GPUs."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(collect, "_drawn", lambda: "another")
        drawing = record(tmp_path / "drawing", **WHOLE, lie=scaled(1.5))
        drawing_none = record(tmp_path / "none", ranks, **WHOLE, lie=scaled(1.5))
    found = calibrate(drawing, recipe=pin(drawing), environment=ELSEWHERE)
    verdict = judged(drawing, found)
    assert verdict.status == "undecided"
    assert any("draws random numbers" in missing for missing in verdict.missing)
    with pytest.raises(Refuted, match="step 1: gradients"):
        judged(drawing_none, calibrate(drawing_none, recipe=pin(drawing_none), environment=ELSEWHERE))


def test_thresholds_of_another_training_or_machine_are_refused(tmp_path, honest, thresholds):
    other = record(tmp_path / "run", **WHOLE | {"spec": MLP})
    with pytest.raises(InvalidInput, match="another spec"):
        judged(other, thresholds)
    with pytest.raises(InvalidInput, match="another recipe"):
        judged(honest, dataclasses.replace(thresholds, recipe="0x" + "00" * 32))
    moved = dataclasses.replace(thresholds, local={**thresholds.local, "processor": "another"})
    assert judged(honest, moved).status == "undecided"


def test_half_precision_is_calibrated_by_its_own_roundings(tmp_path):
    """Its gradients are of 32 bits, whose roundings turn none of the 16 bits in which they were computed."""
    half = "with torch.autocast('cpu', torch.bfloat16):\n    out = model(images.flatten(1))\n"
    body = half + PLAIN.strip().replace("model(images.flatten(1))", "out.float()")
    path = record(tmp_path / "run", written(tmp_path / "recipe", body), **WHOLE)
    found = calibrate(path, recipe=pin(path), environment=ELSEWHERE)
    assert max(noise for unit, noise in found.noise.items() if unit.startswith("gradients/")) >= 2**-14
    assert judged(path, found).status == "verified"


def test_a_schedule_that_a_recipe_keeps_accuses_nobody(tmp_path):
    """Built anew before each step, its rate is the first one's."""
    made = 'kept.setdefault("schedule", torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5))\n'
    keeps = made + PLAIN.strip() + '\nkept["schedule"].step()'
    path = record(tmp_path / "run", written(tmp_path / "recipe", keeps), **WHOLE)
    verdict = judged(path, calibrate(path, recipe=pin(path), environment=ELSEWHERE))
    assert verdict.status == "undecided"
    assert any("the recipe keeps" in missing for missing in verdict.missing), verdict.missing


def test_a_closure_accuses_nobody(tmp_path):
    """Its gradient stands nowhere when the step begins."""
    body = """
def closure():
    loss = torch.nn.functional.cross_entropy(model(images.flatten(1)), labels)
    loss.backward()
    return loss
log(loss=optimizer.step(closure).detach())
"""
    path = record(tmp_path / "run", written(tmp_path / "recipe", body), **WHOLE)
    verdict = judged(path, calibrate(path, recipe=pin(path), environment=ELSEWHERE))
    assert verdict.status == "undecided" and any("ended" in missing for missing in verdict.missing)


def test_bits_that_come_out_by_chance_accuse_nobody(tmp_path):
    """Of a model this small some steps come out equal on any machine, and others do not."""
    body = PLAIN.replace("images.flatten(1)", "images.flatten(1)[:, :2]")
    module = written(tmp_path / "recipe", body, model="torch.nn.Linear(2, 10)")
    path = record(tmp_path / "run", module, **WHOLE | {"steps": 12})
    verdict = replay(path, "all", recipe=pin(path), environment=ELSEWHERE)
    assert verdict.status == "undecided" and not verdict.broken


def embedding(folder, optimizer):
    """A recipe whose model looks up 50 rows, of which the data never use the last ones."""
    body = PLAIN.replace("model(images.flatten(1))", "model((images.flatten(1) * 20).long()).mean(1)")
    return written(
        folder, body, f"torch.optim.{optimizer}(model.parameters(), lr=0.001)", "torch.nn.Embedding(50, 10)"
    )


def test_what_no_data_moves_must_not_be_moved(tmp_path):
    """Adam makes a whole step of a gradient that is below every threshold; the row of an unseen token is 0 to the bit."""
    module = embedding(tmp_path / "recipe", "Adam")

    def train_the_unseen(optimizer):
        def add(*_):
            (weight,) = optimizer.param_groups[0]["params"]
            weight.grad[49] += 1e-7 * weight.grad.norm()

        optimizer.register_step_pre_hook(add)

    path = record(tmp_path / "run", module, **WHOLE, lie=train_the_unseen)
    found = calibrate(path, recipe=pin(path), environment=ELSEWHERE)
    with pytest.raises(Refuted, match="update 'weight'"):
        judged(path, found)


def test_a_moment_is_held_element_by_element(tmp_path):
    """A forged moment of a still row is small beside the others, and the optimiser makes a step of it."""
    module = embedding(tmp_path / "recipe", "NAdam")

    def forge_a_moment(optimizer):
        def forge(*_):
            (state,) = optimizer.state.values()
            state["exp_avg"][49] += 1e-7 * state["exp_avg"].norm()

        handle = optimizer.register_step_post_hook(forge)
        optimizer._optimizer_step_post_hooks.move_to_end(handle.id, last=False)

    path = record(tmp_path / "run", module, **WHOLE, lie=forge_a_moment)
    found = calibrate(path, recipe=pin(path), environment=ELSEWHERE)
    with pytest.raises(Refuted, match="optimizer 'optimizer/0/weight/exp_avg'"):
        judged(path, found)


def test_a_count_that_is_off_by_one_and_a_metric_that_nobody_computes(tmp_path):
    """Ties fall otherwise elsewhere; and what a recipe does not compute is nobody's finding."""
    body = PLAIN.replace("log(loss=loss)", "log(loss=loss, right=int(spec.get('right', 0)))")
    module = written(tmp_path / "recipe", body)
    path = tmp_path / "run"
    with counterfoil.Run.create(path, spec=WIDE, recipe=module.__file__) as run:
        model, optimizer, step = module.recipe(WIDE)
        recorder = run.attach(model, optimizer, every=1, checkpoint_every=1, store_gradients=True)
        for number, batch in zip(
            (1, 2), run.batches(torch.utils.data.DataLoader(data(), batch_size=8)), strict=False
        ):
            step(batch, number, lambda **told: recorder.log(**told | {"right": 1, "accuracy": 0.999}))
    verdict = judged(path, calibrate(path, recipe=pin(path), environment=ELSEWHERE))
    assert verdict.status == "undecided" and any("metrics/right" in missing for missing in verdict.missing)
    assert "the recipe does not compute the metrics accuracy" in verdict.notes


def test_a_recipe_that_takes_no_short_batch_is_calibrated_all_the_same(tmp_path):
    """A cheat that kills the process must leave the thresholds as they are, and be named as not tried."""
    body = PLAIN.replace("images.flatten(1)", "images.reshape(8, 64)")
    path = record(tmp_path / "run", written(tmp_path / "recipe", body), **WHOLE)
    found = calibrate(path, recipe=pin(path), environment=ELSEWHERE)
    assert len(found.environments) > 1 and [len(each) for each in found.steps.values()] == [STEPS]
    assert "one sample of a batch left out (not tried)" in found.not_seen()


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """A run whose worker signed fingerprints under a key, and whose gradients are gone; and one that lied before."""
    key = bytes(range(32))
    runs = {}
    for name, lie in (("honest", None), ("liar", scaled(1.001))):
        folder = tmp_path_factory.mktemp(name)
        # Without momentum, whose first state is the gradient's very object.
        path = runs[name] = record(folder / "run", written(folder / "recipe", PLAIN), **WHOLE, lie=lie)
        assert publish(path, key=key) == STEPS
        kept = counterfoil.Record(path)
        for receipt in kept.receipts(*kept.lanes[0]):
            if receipt.kind == "step":
                for entry in kept.opened(receipt)["gradients"].entries:
                    (path / "objects" / entry.root.hex()).unlink(missing_ok=True)
    return runs, key


def test_a_gradient_is_judged_by_its_fingerprint_where_its_bytes_are_not_there(printed):
    """2 KiB a tensor decide; without the key that the verifier gave there is nothing to decide by."""
    runs, key = printed
    found = calibrate(runs["honest"], recipe=pin(runs["honest"]), environment=ELSEWHERE)
    verdict = judged(runs["honest"], found, fingerprint_key=key)
    assert verdict.status == "verified", str(verdict)
    assert any("lie within tolerance by fingerprints" in note for note in verdict.notes)
    assert judged(runs["honest"], found).status == "undecided"
    with pytest.raises(Refuted, match=r"step 1: (gradients|update)"):
        judged(runs["liar"], found, fingerprint_key=key)
