"""The examples of other trainers, executed, and each committed gradient computed anew.

What a model is given, and with which weights, is noted here by a hook of the test's own. Gradients are computed from
that by autograd in a second model, which neither the trainer nor the recorder knows.
"""

import copy
import importlib.util
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import counterfoil
import trainer_ranks
from counterfoil.torch import replay
from training import state_root, steps_of

FOLDER = Path(__file__).parents[3] / "examples/trainers"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # those of five other libraries
    pytest.mark.timeout(600),
]


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Loads an example, to run in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


class Notes:
    """What the models that an example builds were given in training, each with a copy of the model as it was."""

    def __init__(self):
        self.seen = []

    def watch(self, model):
        def note(module, given, named):
            if module.training and torch.is_grad_enabled():
                self.seen.append((self.snapshot(module), copy.deepcopy(given), copy.deepcopy(named)))

        model.register_forward_pre_hook(note, with_kwargs=True)
        return model

    @staticmethod
    def snapshot(module):
        return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def gradients(model, weights, losses, clip):
    """The clipped sum of the losses' gradients at these weights."""
    model.load_state_dict(weights)
    model.zero_grad()
    for loss in losses:
        loss(model).backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def compare(path, expected):
    """Every step's receipt commits to the expected gradients, and the example's recipe makes each of them again."""
    found = [opened["gradients"].commitment.root for _, opened in steps_of(path)]
    assert len(found) == len(expected)
    for root, computed in zip(found, expected, strict=True):
        assert root == state_root(computed)
    assert all(receipt.fields["batch"] != bytes(32) for receipt, _ in steps_of(path))
    record = counterfoil.Record(path)
    verdict = replay(path, recipe=record.recipe_digest)
    assert (verdict.status, verdict.notes) == ("verified", [])
    assert verdict.transition.startswith(f"replayed {len(expected)} of {len(expected)} by you, bit-exact")
    first = next(receipt for receipt in record.receipts() if receipt.kind == "checkpoint")
    begun = runpy.run_path(Path(path, "recipe/recipe.py"))["recipe"](record.spec)[0]
    assert (
        counterfoil.commit_tensors(dict(begun.named_parameters()))
        == record.opened(first)["parameters"].commitment
    )


def added_lines(name):
    """Lines of an example that speak of the recording: what a user adds to their program."""
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8").split('"""', 2)[2]
    return [line for line in text.splitlines() if "counterfoil" in line or "run." in line or "(run" in line]


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.py")))
def test_recording_adds_at_most_ten_lines(name):
    assert 3 <= len(added_lines(name)) <= 10


def test_hugging_face(example):
    pytest.importorskip("transformers", reason="transformers is not installed: make setup brings it")
    module, notes = example("hugging_face"), Notes()
    build = module.build
    module.build = lambda: notes.watch(build())
    module.main()
    fresh, expected = build(), []
    for first in range(0, len(notes.seen), 2):
        pair = notes.seen[first : first + 2]
        losses = [lambda model, named=named: model(**named).loss for _, _, named in pair]
        expected.append(gradients(fresh, pair[0][0], losses, clip=1.0))
    compare("runs/hugging_face", expected)
    assert counterfoil.saved_at("runs/hugging_face", "out/checkpoint-6") == 6
    for (_, opened), first in zip(steps_of("runs/hugging_face"), range(0, len(notes.seen), 2), strict=True):
        recorded = {entry.name: entry.root for entry in opened["batch"].entries}
        for number, (_, _, named) in enumerate(notes.seen[first : first + 2]):
            for name in ("input_ids", "labels"):
                assert recorded[f"{number}/{name}"] == counterfoil.commit_bytes(named[name].numpy()).root


def test_supervised_fine_tuning_of_trl(example):
    trainers = pytest.importorskip("trl.trainer.utils", reason="trl is not installed: make setup brings it")
    module, notes = example("trl_sft"), Notes()
    build, sizes = module.build, []

    def watched(size):
        sizes.append(size)
        return notes.watch(build(size))

    module.build = watched
    module.main()
    fresh = build(sizes[0])
    trainers.add_fused_lm_head(fresh, outputs=("log_probs", "entropy", "is_top1"))
    expected = [
        gradients(fresh, weights, [lambda model, named=named: model(**named).loss], clip=1.0)
        for weights, _, named in notes.seen
    ]
    compare("runs/sft", expected)


def test_direct_preference_optimisation_of_trl(example):
    trainers = pytest.importorskip("trl.trainer.utils", reason="trl is not installed: make setup brings it")
    example("trl_sft")
    module, notes = example("trl_dpo"), Notes()
    build, models = module.build, []

    def watched(size):
        models.append(build(size))
        # The second is the reference, which is not trained.
        return notes.watch(models[0]) if len(models) == 1 else models[1]

    module.build = watched
    module.main()
    size = models[0].config.vocab_size
    fresh, reference = build(size), build(size)
    for model in (fresh, reference):
        trainers.add_fused_lm_head(model)
    reference.load_state_dict(notes.seen[0][0])

    def loss(model, named):
        chosen, rejected = model(**named).log_probs.sum(dim=1).chunk(2)
        with torch.no_grad():
            usual = reference(**named).log_probs.sum(dim=1).chunk(2)
        margin = 0.1 * ((chosen - usual[0]) - (rejected - usual[1]))
        return -torch.nn.functional.logsigmoid(margin).mean()

    expected = [
        gradients(fresh, weights, [lambda model, named=named: loss(model, named)], clip=1.0)
        for weights, _, named in notes.seen
    ]
    compare("runs/dpo", expected)


def test_accelerate(example, monkeypatch):
    pytest.importorskip("accelerate", reason="accelerate is not installed: make setup brings it")
    module, notes, targets = example("accelerate_loop"), Notes(), []
    build, cross_entropy = module.build, torch.nn.functional.cross_entropy
    module.build = lambda: notes.watch(build())

    def noted(scores, target):
        targets.append(target.clone())
        return cross_entropy(scores, target)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", noted)
    module.main()
    fresh, expected = build(), []
    micro = [
        (weights, lambda model, x=given[0], y=target: cross_entropy(model(x), y))
        for (weights, given, _), target in zip(notes.seen, targets, strict=True)
    ]
    for first in range(0, len(micro), 2):
        pair = micro[first : first + 2]
        halves = [lambda model, loss=loss: loss(model) / 2 for _, loss in pair]
        expected.append(gradients(fresh, pair[0][0], halves, clip=1.0))
    compare("runs/accelerate", expected)


def test_lightning(example, monkeypatch):
    pytest.importorskip("lightning", reason="lightning is not installed: make setup brings it")
    module, seen = example("lightning_module"), []
    training_step = module.Perceptron.training_step

    def noted(self, batch, index):
        seen.append((Notes.snapshot(self), copy.deepcopy(batch)))
        return training_step(self, batch, index)

    monkeypatch.setattr(module.Perceptron, "training_step", noted)
    module.main()
    fresh, expected = module.Perceptron(), []
    for first in range(0, len(seen), 2):
        losses = [
            lambda model, batch=batch: training_step(model, batch, 0) / 2
            for _, batch in seen[first : first + 2]
        ]
        expected.append(gradients(fresh, seen[first][0], losses, clip=1.0))
    compare("runs/lightning", expected)


def test_hugging_face_on_two_processes(tmp_path):
    """Its callback is given the model without what reduces gradients, and would record no contribution."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COUNTERFOIL_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, *launch, trainer_ranks.__file__, str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    verdict = counterfoil.verify(tmp_path / "run")
    assert verdict.status == "verified"
    note = "2 ranks contributed; at 4 steps they are shown to have applied one gradient"
    assert note in verdict.notes
    record = counterfoil.Record(tmp_path / "run")
    steps = {
        lane: [r for r in record.receipts(worker, lane) if r.kind == "step"] for worker, lane in record.lanes
    }
    for own, other in zip(steps[0], steps[1], strict=True):
        ours, theirs = (record.opened(each)["contribution"].commitment.root for each in (own, other))
        applied = record.opened(own)["gradients"].commitment.root
        assert len({ours, theirs, applied}) == 3, "each rank's own, and what they made of both"


@pytest.mark.parametrize("trainer", ["hf", "lightning"])
def test_a_misspelt_option_is_refused_before_a_trainer_begins(trainer, tmp_path):
    """It failed when training began, after the run had used its folder, and the second try met a folder in use."""
    callback = importlib.import_module(f"counterfoil.torch.{trainer}").Callback
    with (
        counterfoil.Run.create(tmp_path / "run") as run,
        pytest.raises(counterfoil.errors.InvalidInput) as refused,
    ):
        callback(run, checkpoint_evry=4)
    assert refused.value.where == "checkpoint_evry" and "checkpoint_every" in str(refused.value)
    callback(run, checkpoint_every=4)
