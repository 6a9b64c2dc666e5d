"""Clients that lie are left out before anything is aggregated; the others' answers go in."""

import numpy as np
import pytest
from flwr.serverapp.exception import InconsistentMessageReplies

import counterfoil
from counterfoil.flower import recompute
from federated import task

REASONS = {
    "arrays": "its receipt binds other sent: 'weight'",
    "metrics": "its receipt binds other metrics: 'num-examples'",
    "foreign": "its receipt is of another node",
    "old": "its receipt was given before",
    "round": "its receipt is of another round",
    "none": "the reply holds no receipt",
    "rewritten": "its journal is refuted",
    "pickled": "array 'weight' is no plain .npy of numbers",
    "received": "its receipt binds other received: 'weight'",
    "nan": "array 'weight' holds NaN or infinity",
    "negative": "num-examples is no weight",
    "steps": "its journal holds more than rounds",
    "sealed": "its receipt does not open the values of metrics",
    "odd": "its metrics are others than those of most",
    "dtype": "its dtypes are others than those of most",
    "shape": "array 'bias' is no answer to the one that was sent",
}
ENDS_THE_TRAINING = {"pickled", "odd", "shape"}
"""Lies at which Flower's own strategies raise: a single client ends the training of all."""

LATE = {"old", "rewritten"}


def mean_of(parts, model):
    """What honest clients' answers to a model are on average, as Flower computes it."""
    models = [(task.train(model, *task.load(part))[0], len(task.load(part)[1])) for part in parts]
    total = sum(size for _, size in models)
    return {
        name: sum(
            (each[name] * (size / total) for each, size in models[1:]),
            models[0][0][name] * (models[0][1] / total),
        )
        for name in model
    }


@pytest.mark.parametrize("lie", REASONS)
def test_a_lie_is_left_out(federation, lie):
    trained = federation(rounds=2, lie=lie, liar=2)
    told = 2 if lie in LATE else 1
    (refused,) = [each for each in trained.refused if each.round == told]
    assert refused.node == 102 and refused.reason.startswith(REASONS[lie])
    assert f"round {told}: the reply of node 102 is left out: {refused.reason}" in trained.warned
    record = counterfoil.Record(trained.folder)
    aggregation = next(
        each for each in record.receipts() if each.kind == "aggregation" and each.fields["round"] == told
    )
    assert sorted(name[-1] for name in record.opened(aggregation)["inputs"].values) == ["1", "2"]
    for name, array in mean_of([0, 1], trained.arrays[told - 1]).items():
        np.testing.assert_allclose(trained.arrays[told][name], array, rtol=1e-5)
    assert counterfoil.verify(trained.folder).status == "verified"
    assert recompute(trained.folder, task.make_strategy("FedAvg")).status == "verified"


@pytest.mark.parametrize("lie", sorted(REASONS.keys() - ENDS_THE_TRAINING))
def test_the_same_lie_goes_in_where_nothing_is_recorded(federation, lie):
    """The control: the lies are such that they change the result."""
    told = 2 if lie in LATE else 1
    bare = federation(rounds=told, lie=lie, liar=2, recorded=False).arrays[told]
    honest = federation(rounds=told, recorded=False).arrays[told]
    assert not np.array_equal(bare["weight"], honest["weight"], equal_nan=True)


@pytest.mark.parametrize("lie", sorted(ENDS_THE_TRAINING))
def test_the_same_lie_ends_a_training_where_nothing_is_recorded(federation, lie):
    with pytest.raises((ValueError, InconsistentMessageReplies)):
        federation(rounds=1, lie=lie, liar=2, recorded=False)


def test_a_pickle_is_not_opened(federation, tmp_path):
    federation(rounds=1, lie="pickled", liar=2)
    assert not list(tmp_path.rglob("planted"))


def test_a_history_that_was_rewritten_is_no_continuation(federation):
    """A server that was started again knows no node, and asks each for its whole journal."""
    federation(rounds=1)
    trained = federation(rounds=2, resume=True, lie="rewritten", liar=2)
    assert [each.round for each in trained.refused] == [2]
    again = federation(rounds=1, resume=True)
    (refused,) = again.refused
    assert refused.reason == "its journal does not go on where the known one ends"
