"""On a machine whose bits differ an honest step is accepted, a cheat refused, and what passes is said."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import counterfoil
from counterfoil.errors import InvalidInput, Refuted
from counterfoil.torch import calibrate, collect, replay
from counterfoil.torch.demo import lying, mlp, ranks, transformer
from replays import MLP, TRANSFORMER, record

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
        f"within tolerance {STEPS} of {STEPS} by you (not seen: changes of a gradient" in verdict.transition
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
    source = Path(mlp.__file__).read_text().replace("SGD", "RMSprop").replace(", nesterov=True", "")
    recipe = tmp_path / "recipe.py"
    recipe.write_text(source)
    namespace = {}
    exec(compile(source, str(recipe), "exec"), namespace)  # the module under test is the package's, changed
    module = type("module", (), {"recipe": staticmethod(namespace["recipe"]), "__file__": str(recipe)})
    honest, liar = (
        record(tmp_path / name, module, **WHOLE, lie=lie)
        for name, lie in (("honest", None), ("liar", lying(2)))
    )
    thresholds = calibrate(honest, recipe=pin(honest), environment=ELSEWHERE)
    assert judged(honest, thresholds).status == "verified"
    with pytest.raises(Refuted, match="step 2: parameters"):
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


KINK = """
import torch

def recipe(spec):
    model = torch.nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=spec["learning_rate"])

    def step(batch, number, log):
        images, labels = batch
        optimizer.zero_grad()
        out = model(images.flatten(1))
        loss = torch.nn.functional.cross_entropy(out, labels)
        # On which side of the kink a sum lies is decided by its last bits.
        grain = (out.detach().double() * 2.0**24).sum() % 2
        (loss * (1 + 0.01 * grain)).backward()
        log(loss=loss)
        optimizer.step()

    return model, optimizer, step
"""


def test_nobody_is_accused_where_a_rounding_of_the_state_moves_the_gradient_as_far(tmp_path):
    """Two honest machines may lie on two sides of a kink."""
    recipe = tmp_path / "recipe.py"
    recipe.write_text(KINK)
    namespace = {}
    exec(compile(KINK, str(recipe), "exec"), namespace)
    module = type("module", (), {"recipe": staticmethod(namespace["recipe"]), "__file__": str(recipe)})
    path = record(tmp_path / "run", module, recipe=recipe, **WHOLE, lie=scaled(1.01))
    found = calibrate(path, recipe=pin(path), environment=ELSEWHERE)
    tight = dataclasses.replace(found, noise={}, resolution=1e-7)
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
