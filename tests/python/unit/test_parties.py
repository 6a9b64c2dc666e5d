"""What the lanes of one run say of each other: observed heads, and rounds that were aggregated."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import counterfoil


def state(*values):
    return counterfoil.commit_tensors({"w": np.float32(values)})


@pytest.fixture
def observed(tmp_path):
    """A run of two lanes, of which the first observed the second after each of two steps."""
    folder = tmp_path / "run"
    with counterfoil.Run.create(folder) as first, counterfoil.Run.join(folder, lane=1) as second:
        for step in (1, 2):
            for run in (first, second):
                run.record_step(step, {"gradients": state(step)})
            head = second.tree_head()
            first.record_observed_head(second.worker, 1, size=head.size, root=head.root)
            if step == 1:
                shutil.copy(journal(folder, 1), tmp_path / "early")
    return folder


def edges(folder):
    with pytest.raises(counterfoil.Refuted) as refused:
        counterfoil.verify(folder)
    return [edge.edge for edge in refused.value.verdict.broken]


def journal(folder, lane):
    (worker,) = {worker for worker, number in counterfoil.Record(folder).lanes if number == lane}
    return Path(folder, "workers", worker.lower(), str(lane), "journal")


def test_what_was_observed_is_there(observed):
    assert counterfoil.verify(observed).status == "verified"


def test_a_lane_that_was_cut_behind_what_was_observed_is_named(observed):
    """A log that is cut at its end is a shorter log, and nothing in it shows that."""
    shutil.copy(observed.parent / "early", journal(observed, 1))
    (edge,) = edges(observed)
    assert "ledger: receipt 5 (observed-head) <- ledger of 0x" in edge
    assert edge.endswith("lane 1: its first 3 receipts")


def test_a_lane_that_was_observed_and_is_missing_leaves_the_run_undecided(observed):
    shutil.rmtree(journal(observed, 1).parent)
    verdict = counterfoil.verify(observed)
    assert verdict.status == "undecided" and "lane 1 that it observed is not here" in verdict.missing[0]


def test_an_observation_that_is_false_is_named(tmp_path, observed):
    """The head of another run of the same lane."""
    with counterfoil.Run.create(tmp_path / "other") as other:
        other.record_step(1, {"gradients": state(9)})
        foreign = other.tree_head()
    folder = tmp_path / "third"
    with counterfoil.Run.create(folder) as first:
        first.record_step(1, {"gradients": state(1)})
        first.record_observed_head(first.worker, 0, size=foreign.size, root=foreign.root)
    (edge,) = edges(folder)
    assert edge == "ledger: receipt 3 (observed-head) <- ledger: its first 3 receipts"


def test_an_anchor_of_the_observing_lane_dates_the_other_one(observed, tmp_path):
    """One transaction is enough for all lanes, up to what of them was observed."""
    chain = counterfoil.Chain.dev(tmp_path / "chain")
    assert counterfoil.verify(observed, chain=chain).time == "none"
    chain.anchor(observed)
    record = counterfoil.Record(observed)
    first, second = (len(record.receipts(*each)) for each in sorted(record.lanes, key=lambda each: each[1]))
    # Behind the last observation, the other lane was closed.
    assert (
        f"{first + second - 1} of {first + second} receipts" in counterfoil.verify(observed, chain=chain).time
    )


@pytest.mark.parametrize("steps", [range(1), range(1, 2), range(3)], ids=["none", "one", "all"])
def test_a_bundle_of_some_steps_keeps_the_heads_that_were_observed(observed, tmp_path, steps):
    """Left out, an observation speaks of a head that is not there, or heads name others that are missing."""
    chain = counterfoil.Chain.dev(tmp_path / "chain")
    chain.anchor(observed)
    counterfoil.export(observed, tmp_path / "x.counterfoil", steps=steps)
    verdict = counterfoil.verify(tmp_path / "x.counterfoil", chain=chain)
    assert not [text for text in verdict.missing if "observed" in text]
    whole = counterfoil.verify(observed, chain=chain)
    assert verdict.time == whole.time


@pytest.fixture
def federation(tmp_path):
    """A function that makes a run of a server and two clients, and of what its aggregation names."""

    def make(inputs):
        folder = tmp_path / "run"
        server = counterfoil.Run.create(folder)
        clients = [counterfoil.Run.join(folder, lane=lane) for lane in (1, 2)]
        empty = counterfoil.commit_tensors({})
        receipts = {}
        for party, client in enumerate(clients):
            for number in (1, 2):
                client.record_round(
                    number, party, received=state(0), sent=state(number, party), metrics=empty
                )
            name = f"{client.worker.lower()}/{client.lane}"
            receipts[name] = [each.digest for each in client.receipts() if each.kind == "round"]
        server.record_aggregation(2, inputs=inputs(receipts), output=state(1))
        for run in (server, *clients):
            run.close()
        return folder

    return make


def test_an_aggregation_of_the_rounds_own_receipts_is_accepted(federation):
    folder = federation(lambda receipts: {name: found[1] for name, found in receipts.items()})
    verdict = counterfoil.verify(folder)
    assert verdict.status == "verified"


@pytest.mark.parametrize(
    "inputs",
    [
        lambda receipts: {name: found[0] for name, found in receipts.items()},
        lambda receipts: dict(
            zip(receipts, [found[1] for found in reversed(receipts.values())], strict=True)
        ),
        lambda receipts: {name: bytes(32) for name in receipts},
    ],
    ids=["of an earlier round", "of the other party", "of nobody"],
)
def test_an_aggregation_of_other_receipts_is_refuted(federation, inputs):
    found = edges(federation(inputs))
    assert len(found) == 2 and all("inputs <- round receipt of 0x" in edge for edge in found)
