"""Several ranks of one training: who applied another gradient than the others is named."""

import numpy as np
import pytest

import counterfoil

RANKS = 3


def trained(path, applied, copies=False):
    """A run whose ranks record, at each step, a contribution and these applied gradients; the last may copy the first's."""
    runs = [counterfoil.Run.create(path)]
    runs += [counterfoil.Run.join(path, lane=rank, rank=rank) for rank in range(1, RANKS)]
    for step, values in enumerate(applied, 1):
        for rank, (run, value) in enumerate(zip(runs, values, strict=True)):
            fields = {
                "contribution": {"w": np.float32([rank * (not copies or rank < RANKS - 1), step])},
                "gradients": {"w": np.float32([value])},
            }
            run.record_step(step, {name: counterfoil.commit_tensors(state) for name, state in fields.items()})
    for run in runs:
        run.close()
    return runs


def test_ranks_that_applied_one_gradient_agree(tmp_path):
    trained(tmp_path / "run", [(1, 1, 1), (2, 2, 2)])
    verdict = counterfoil.verify(tmp_path / "run")
    assert verdict.status == "verified"
    assert verdict.notes == ["3 ranks contributed; at 2 steps they are shown to have applied one gradient"]


def test_the_rank_that_deviates_is_named(tmp_path):
    runs = trained(tmp_path / "run", [(1, 1, 1), (2, 2, 2.002)])
    with pytest.raises(counterfoil.Refuted) as refused:
        counterfoil.verify(tmp_path / "run")
    (edge,) = refused.value.verdict.broken
    assert f"{runs[2].worker} lane 2: gradients of step 2 <- other ranks" in edge.edge


def test_without_a_majority_all_are_named(tmp_path):
    trained(tmp_path / "run", [(1, 2, 3)])
    with pytest.raises(counterfoil.Refuted) as refused:
        counterfoil.verify(tmp_path / "run")
    assert len(refused.value.verdict.broken) == RANKS


def test_lanes_that_contribute_to_no_common_step_are_not_compared(tmp_path):
    """Federated clients and several devices have gradients of their own."""
    with counterfoil.Run.create(tmp_path / "run") as first:
        first.record_step(1, {"gradients": counterfoil.commit_tensors({"w": np.float32([1])})})
    with counterfoil.Run.join(tmp_path / "run", lane=1) as second:
        second.record_step(1, {"gradients": counterfoil.commit_tensors({"w": np.float32([2])})})
    assert counterfoil.verify(tmp_path / "run").status == "verified"


def test_a_rank_that_contributes_what_another_one_did_is_named(tmp_path):
    """It signs with its own key, and what it signs is a gradient of the batch that it names: the other's."""
    runs = trained(tmp_path / "run", [(1, 1, 1), (2, 2, 2)], copies=True)
    verdict = counterfoil.verify(tmp_path / "run")
    (note,) = [note for note in verdict.notes if "the same gradients" in note]
    assert note.startswith(f"ledger of {runs[2].worker} lane 2: ") and "as the ledger at 2 steps" in note


def test_a_rank_that_shows_fewer_steps_than_the_others_is_named(tmp_path):
    """The note of each lane without an end says nothing of how far the others came."""
    runs = [counterfoil.Run.create(tmp_path / "run"), counterfoil.Run.join(tmp_path / "run", lane=1)]
    for step, rank in ((1, 0), (1, 1), (2, 0)):
        fields = {"contribution": {"w": np.float32([rank, step])}, "gradients": {"w": np.float32([step])}}
        commitments = {name: counterfoil.commit_tensors(state) for name, state in fields.items()}
        runs[rank].record_step(step, commitments)
    for run in runs:
        run.close()
    said = f"ledger of {runs[1].worker} lane 1: shows no contribution after step 1; others do up to step 2"
    assert said in counterfoil.verify(tmp_path / "run").notes
