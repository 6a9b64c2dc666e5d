"""A server that lies with its own key is refuted by whoever has its folder."""

import shutil

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAvg

import counterfoil
from counterfoil.flower import recompute
from federated import task

OPTIONS = {"fraction_evaluate": 0.0, "min_train_nodes": 3, "min_available_nodes": 3}


class Lying(FedAvg):
    """Adds the smallest possible number to one element of the second round's result."""

    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        if server_round == 2:
            weight = np.array(arrays["weight"].numpy())
            weight[3] = np.nextafter(weight[3], np.float32(np.inf))
            arrays = ArrayRecord({**arrays, "weight": Array(weight)})
        return arrays, metrics


class Partial(FedAvg):
    """Leaves the first client's answer out of the second round, and says otherwise."""

    def aggregate_train(self, server_round, replies):
        return super().aggregate_train(server_round, replies[1:] if server_round == 2 else replies)


def broken(call, *arguments):
    with pytest.raises(counterfoil.Refuted) as refused:
        call(*arguments)
    return [edge.edge for edge in refused.value.verdict.broken]


def fresh():
    return FedAvg(**OPTIONS)


@pytest.mark.parametrize("strategy", [Lying, Partial])
def test_a_false_aggregate_is_named(federation, strategy):
    trained = federation(strategy(**OPTIONS))
    assert trained.refused == [] and counterfoil.verify(trained.folder).status == "verified"
    (edge,) = broken(recompute, trained.folder, fresh())
    assert edge.startswith("round 2: output '") and (
        strategy is Partial or edge == "round 2: output 'weight'"
    )


def last(record):
    aggregation = [each for each in record.receipts() if each.kind == "aggregation"][-1]
    return record.opened(aggregation)


@pytest.mark.parametrize("change", ["exchanged", "invented", "earlier"])
def test_false_inputs_are_named(federation, change):
    """The server signs another aggregation of round 3, of receipts that its clients did not give for it."""
    folder = federation().folder
    opened = last(counterfoil.Record(folder))
    inputs = dict(opened["inputs"].values)
    first, second, _ = sorted(inputs)
    if change == "exchanged":
        inputs[first], inputs[second] = inputs[second], inputs[first]
    elif change == "invented":
        inputs[first] = bytes(32)
    with counterfoil.Run.open(folder) as run:
        run.record_aggregation(
            4 if change == "earlier" else 3, inputs=inputs, output=opened["output"].commitment
        )
    edges = broken(counterfoil.verify, folder)
    assert edges and all("inputs <- round receipt of 0x" in edge for edge in edges)
    assert broken(recompute, folder, fresh()) == edges


def objects(folder, field):
    record = counterfoil.Record(folder)
    for worker, lane in record.lanes:
        for receipt in record.receipts(worker, lane):
            if receipt.kind == "round" and receipt.fields["round"] == 2 and lane == 1:
                (entry,) = [each for each in record.opened(receipt)[field].entries if each.name == "weight"]
                return folder / "objects" / entry.root.hex()
    raise AssertionError("no such receipt")


def test_arrays_that_were_replaced_are_named(federation):
    folder = federation().folder
    stored = objects(folder, "sent")
    stored.write_bytes(np.ones(30, np.float32).tobytes())
    (edge,) = broken(recompute, folder, fresh())
    assert edge.startswith("round 2: sent by 0x") and edge.endswith("/1 'weight'")


def test_arrays_that_are_missing_leave_the_run_undecided(federation):
    folder = federation().folder
    objects(folder, "sent").unlink()
    verdict = recompute(folder, fresh())
    assert verdict.status == "undecided"
    assert any("the aggregate of round 2 was not computed again" in each for each in verdict.missing)


def test_a_client_whose_journal_is_missing_leaves_the_run_undecided(federation):
    folder = federation().folder
    record = counterfoil.Record(folder)
    (worker,) = [worker for worker, lane in record.lanes if lane == 1]
    shutil.rmtree(folder / "workers" / worker.lower() / "1")
    assert recompute(folder, fresh()).status == "undecided"


def test_a_model_that_was_exchanged_between_rounds_is_named(federation):
    """The server sends the clients of round 3 something else than it says that round 2 gave."""

    class Exchanging(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            if server_round == 3:
                arrays = ArrayRecord(
                    {name: Array(np.asarray(array.numpy() * 2)) for name, array in arrays.items()}
                )
            return super().configure_train(server_round, arrays, config, grid)

    folder = federation(Exchanging(**OPTIONS)).folder
    (edge,) = broken(recompute, folder, fresh())
    assert edge.startswith("round 3: received by 0x")


def test_a_run_without_aggregations_is_refused(tmp_path):
    with counterfoil.Run.create(tmp_path / "run"):
        pass
    with pytest.raises(counterfoil.errors.InvalidInput, match="no aggregation"):
        recompute(tmp_path / "run", fresh())


def test_what_strategies_are_given_is_only_what_was_recorded(federation):
    """The second call with the same folder gives the same verdict: nothing is written."""
    folder = federation().folder
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert recompute(folder, task.make_strategy("FedAvg")).status == "verified"
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
