"""Trainings in which nobody lies, and what their folders show without clients and network."""

import numpy as np
import pytest

import counterfoil
from counterfoil.flower import recompute
from federated import task

STRATEGIES = ["FedAvg", "FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum", "FedAdam", "FedAvgM"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_honest_training_is_verified_and_aggregated_again(federation, strategy):
    trained = federation(strategy)
    assert trained.refused == []
    assert counterfoil.verify(trained.folder).status == "verified"
    verdict = recompute(trained.folder, task.make_strategy(strategy))
    assert verdict.status == "verified"
    note = "aggregates computed again from the clients' arrays, bit-exact: rounds 1, 2, 3"
    assert note in verdict.notes
    assert task.accuracy(trained.arrays[-1], *task.load()) > 0.9


@pytest.mark.parametrize("strategy", ["FedAvg", "FedMedian", "FedAdam"])
def test_recording_changes_no_result(federation, strategy):
    """Up to the order in which floating-point numbers are added."""
    recorded, bare = federation(strategy), federation(strategy, recorded=False)
    for ours, theirs in zip(recorded.arrays, bare.arrays, strict=True):
        assert list(ours) == list(theirs)
        for name in ours:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6)


def test_what_the_server_has_of_the_clients_is_their_journals(federation, tmp_path):
    trained = federation()
    lanes = counterfoil.Record(trained.folder).lanes
    assert sorted(lane for _, lane in lanes) == [0, 1, 2, 3]
    for worker, lane in (each for each in lanes if each[1] > 0):
        name = f"workers/{worker.lower()}/{lane}/journal"
        own = tmp_path / "clients-of-server" / str(lane - 1) / name
        assert (trained.folder / name).read_bytes() == own.read_bytes()


def test_another_strategy_than_the_recorded_one_is_refuted(federation):
    trained = federation("FedAvg")
    with pytest.raises(counterfoil.Refuted) as refused:
        recompute(trained.folder, task.make_strategy("FedMedian"))
    edges = [edge.edge for edge in refused.value.verdict.broken]
    assert edges[0].startswith("round 1: output '") and len(edges) == 3


def test_a_client_that_is_killed_goes_on_in_its_lane(federation, grid):
    federation(rounds=2)
    grid.restart_node(101)
    trained = federation(rounds=2, resume=True)
    assert trained.refused == []
    record = counterfoil.Record(trained.folder)
    (worker,) = [worker for worker, lane in record.lanes if lane == 2]
    rounds = [each.fields["round"] for each in record.receipts(worker, 2) if each.kind == "round"]
    assert rounds == [1, 2, 1, 2]
    assert counterfoil.verify(trained.folder).status == "verified"


def test_a_node_that_comes_back_under_another_number_keeps_its_lane(federation, grid):
    federation(rounds=1)
    grid.restart_node(102, renamed=202)
    try:
        trained = federation(rounds=1, resume=True)
    finally:
        grid.restart_node(202, renamed=102)
    assert trained.refused == []
    assert counterfoil.verify(trained.folder).status == "verified"


def test_a_client_that_dies_is_left_out(federation, grid):
    class Killing(type(task.make_strategy("FedAvg"))):
        def configure_train(self, server_round, arrays, config, grid):
            messages = super().configure_train(server_round, arrays, config, grid)
            if server_round == 2:
                grid._processes[101].kill()
            return messages

    options = {"fraction_evaluate": 0.0, "min_train_nodes": 2, "min_available_nodes": 2}
    trained = federation(Killing(**options), rounds=2)
    grid.restart_node(101)
    assert [(each.round, each.node) for each in trained.refused] == [(2, 101)]
    assert "answers with an error: the node is gone" in trained.refused[0].reason
    assert recompute(trained.folder, task.make_strategy("FedAvg")).status == "verified"
