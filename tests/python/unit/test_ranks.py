"""Several ranks of one training: who applied another gradient than the others is named."""

import numpy as np
import pytest

import counterfoil

RANKS = 3


def trained(path, applied):
    """A run whose ranks record, at each step, a contribution of their own and these applied gradients."""
    runs = [counterfoil.Run.create(path)]
    runs += [counterfoil.Run.join(path, lane=rank, rank=rank) for rank in range(1, RANKS)]
    for step, values in enumerate(applied, 1):
        for rank, (run, value) in enumerate(zip(runs, values, strict=True)):
            fields = {
                "contribution": {"w": np.float32([rank, step])},
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
