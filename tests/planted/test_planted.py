"""More than 300 changes planted into real trainings, at random places: each is located by whatever can see it.

`make planted SEED=.. ONLY=<trial>` repeats a trial alone.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

import planted
from planted_recipe import MODELS, OPTIMISERS


@pytest.fixture(scope="module")
def folder(home):
    with planted.memory() as name, planted.one_thread():
        yield name


def again(wrong):
    return "\n".join([f"seed {planted.SEED}; make planted SEED={planted.SEED} ONLY=<trial>", *wrong])


def test_the_list_is_long_enough():
    """Trials that are left out by an edit of the lists, so that all of the few that stay are located."""
    trials = planted.trials()
    if planted.ONLY:
        pytest.skip("chosen ones alone")
    assert len(set(map(str, trials))) == len(trials) >= 300
    assert len({trial.model for trial in trials}) >= 3 and len({trial.optimiser for trial in trials}) >= 2
    pairs = {(trial.kind, trial.model) for trial in planted.some(3)}
    assert pairs == {(trial.kind, trial.model) for trial in trials}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("model", MODELS)
def test_every_change_is_located(folder, model, optimiser):
    """A step, field, tensor, chunk, element or value that is not where numpy finds it, or an update that torch does
    not make and `verify` accepts, or the other way round."""
    planted.check_honest(model, optimiser, folder)
    trials = [trial for trial in planted.trials() if (trial.model, trial.optimiser) == (model, optimiser)]
    wrong = [each for trial in trials for each in planted.compare(trial, folder)]
    assert not wrong, again(wrong)


@pytest.mark.parametrize("model", MODELS)
def test_a_replay_locates_what_it_can_see(folder, model):
    """A lie that a replay passes over or finds elsewhere, or an honest record that it refutes."""
    trials = [
        trial for trial in planted.some(3) if trial.model == model and str(trial).startswith(planted.ONLY)
    ]
    # One after the other: all trainings of a process draw from the same generators.
    supposed = [(trial, *planted.supposed(trial, folder)) for trial in trials]
    control, _ = planted.honest(model, "sgd", folder)
    with ThreadPoolExecutor(2) as pool:
        honest = pool.submit(planted.replayed, control)
        wrong = [each for each in pool.map(lambda each: planted.execute(*each), supposed) if each]
    status, _, verdict = honest.result()
    assert status == "verified" and f"replayed {planted.STEPS} of {planted.STEPS}" in verdict.transition, (
        verdict
    )
    assert not wrong, again(wrong)
