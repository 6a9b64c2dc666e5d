"""The verifiers that attacks on a training go through are real ones, and the tools of cheats do what they say."""

import numpy as np
import pytest
import torch

import counterfoil
from counterfoil.attacks import copied_gradients, little_is_enough, seed_grinding
from counterfoil.attacks.interpolation_spoof import claim
from counterfoil.attacks.judging import by_replay
from counterfoil.attacks.proof_of_learning import by_distance, trained
from counterfoil.attacks.robust import by_krum, by_norm
from counterfoil.attacks.training import SPEC, before_recording, honestly, train, write
from counterfoil.attacks.workers import CHEAT, each, train_together
from counterfoil.testing import forge

GROSS = {
    "zeros": lambda own, others: each(forge.zeros, own),
    "a hundredfold": lambda own, others: each(lambda one: one * np.float32(100), own),
}


@pytest.mark.parametrize("kind", GROSS)
def test_a_bound_on_norms_refuses_what_is_gross(tmp_path, kind):
    """A naive verifier that accepts everything, so that any attack goes through."""
    said = by_norm(train_together(tmp_path, workers=3, forge=GROSS[kind]))
    assert f"step 1: worker {CHEAT} has norm" in said


def test_a_bound_on_norms_accepts_honest_workers(tmp_path):
    """A naive verifier that refuses everybody is no field tool."""
    assert by_norm(train_together(tmp_path, workers=3)) is None


def test_krum_leaves_out_what_is_gross(tmp_path):
    """A naive Krum that never leaves out the cheat."""
    case = train_together(tmp_path, workers=little_is_enough.WORKERS, forge=GROSS["a hundredfold"])
    assert by_krum(case) == f"step 1: worker {CHEAT} lies farthest from the others"


def test_krum_agrees_with_one_that_is_written_out(tmp_path):
    """Neighbours that are counted wrongly: itself as one of them, or one too many."""
    case = train_together(tmp_path, workers=5)
    worst = []
    for told in case.contributions:
        flat = [np.concatenate([state[name].ravel() for name in sorted(state)]) for state in told]
        scores = [
            sum(sorted(float(((one - other) ** 2).sum()) for other in flat if other is not one)[:2])
            for one in flat
        ]
        worst.append(scores.index(max(scores)))
    assert (by_krum(case) is None) == (CHEAT not in worst)


def test_a_verifier_of_distances_accepts_an_honest_training(tmp_path):
    """A re-execution that forgets momentum, batch or state, and so is far from everything."""
    assert by_distance(claim(tmp_path, honestly, SPEC, 20)) is None


def test_a_verifier_of_distances_refuses_a_jump_to_a_stolen_model(tmp_path):
    """One that compares nothing."""
    stolen = trained(20, SPEC | {"seed": 7})

    def deed(training, batch, number):
        def jump():
            if number == 5:
                write(training.model, stolen)

        with before_recording(training.optimizer, jump):
            training.step(batch, number)

    assert by_distance(claim(tmp_path, deed, SPEC, 20)).startswith("segment 5: ")


def test_the_cheapest_forgeries_are_what_they_say():
    """Tools that forge something else, so that what is caught is no forgery but a mistake."""
    generator = np.random.default_rng(1)
    one, other = (generator.standard_normal((7, 3), np.float32) for _ in range(2))
    line = list(forge.interpolate({"w": one}, {"w": other}, 8))
    assert len(line) == 8 and (line[-1]["w"] == other).all()
    assert np.allclose(np.diff([one, *(state["w"] for state in line)], axis=0), (other - one) / 8, atol=1e-6)
    assert np.allclose(forge.scaled_up({"w": one}, line[0] | {"w": line[1]["w"]}, 4)["w"], other, atol=1e-5)
    assert not forge.zeros(one).any() and forge.zeros(one).dtype == np.float32
    blurred = forge.blurred(one, 0.01, seed=1)
    assert 0 < np.abs(blurred / one - 1).max() < 0.06
    many = generator.standard_normal((9, 2000), np.float32)
    moved = forge.shifted(list(many), 0.5)
    assert moved.dtype == np.float32
    assert np.allclose((many.mean(axis=0) - moved) / many.std(axis=0), 0.5, atol=1e-3)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_forged_gradient_leads_where_it_should(momentum):
    """A gradient that torch's own SGD does not follow to the claimed weights."""
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = torch.optim.SGD([parameter], lr=0.01, momentum=momentum)
    for target in ([1.5, -2.5], [1.0, 0.0], [3.0, 1.0]):
        wanted = np.float32(target)
        buffer = optimizer.state[parameter].get("momentum_buffer")
        forged = forge.gradient_between(
            parameter.detach().numpy(), wanted, 0.01, momentum, None if buffer is None else buffer.numpy()
        )
        parameter.grad = torch.from_numpy(forged)
        optimizer.step()
        assert np.allclose(parameter.detach().numpy(), wanted, atol=1e-6)


def test_grinding_finds_a_kinder_curve():
    """An attack that picks the first seed, and so is none."""
    losses = [seed_grinding.last_loss(seed) for seed in seed_grinding.TRIED]
    assert min(losses) < losses[0]


def test_a_copy_is_noted_without_a_replay(tmp_path):
    """Who verifies by signatures alone and is not told that two lanes contributed one gradient."""
    verdict = counterfoil.verify(copied_gradients.mount(tmp_path, honest=False))
    assert verdict.status == "verified"
    assert any("contributed the same gradients" in note for note in verdict.notes)


@pytest.mark.slow
def test_steps_that_cannot_be_executed_are_not_accepted(tmp_path):
    """An honest row of the board that nobody executed."""

    def deed(training, batch, number):
        training.step(batch[0], number)

    images, labels = torch.rand(32, 8, 8), torch.randint(0, 10, (32,))
    path = train(
        tmp_path, deed=deed, loader=[((images, labels), "a text makes a batch that is not replayable")]
    )
    assert "not replayed" in by_replay(path)
