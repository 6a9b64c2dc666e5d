"""A change of each kind, planted into a real training at a random place, is located; `make planted` has hundreds."""

import pytest

import planted


@pytest.fixture(scope="module")
def folder(home):
    with planted.memory() as name, planted.one_thread():
        yield name


def test_an_honest_training_is_accepted(folder):
    """A harness whose trainings differ by themselves, so that anything is called located."""
    planted.check_honest("perceptron", "adamw", folder)


@pytest.mark.parametrize("trial", planted.some(1), ids=str)
def test_a_change_is_located(folder, trial):
    """A step, field, tensor, element or value that is not where numpy finds it, or an update that torch does not make."""
    assert planted.compare(trial, folder) == []
