"""Ranks under torchrun of which one is killed, with and without a restart, in one folder or in folders of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import counterfoil
import elastic

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
KILLED_AFTER = 3


def trained(folder, engine, ranks, *options, restarts=0, kill_after=KILLED_AFTER):
    """Runs the training under torchrun; returns its exit code and what it printed."""
    (folder / "recipe.py").write_text(elastic.ADAM)
    arguments = [
        f"--nproc-per-node={ranks}",
        f"--max-restarts={restarts}",
        "--standalone",
        "--monitor-interval=0.2",
    ]
    script = [elastic.__file__, str(folder), engine, str(kill_after), *options]
    environment = os.environ | {
        # torch 2.15: gloo on a store that outlives a restart meets the addresses of the processes before.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "OMP_NUM_THREADS": "1",
        "COUNTERFOIL_HOME": str(folder / "home"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *arguments, *script],
        env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    return done.returncode, done.stderr


def applied(run):
    """Roots of the applied gradients that lead to the end, by lane and step."""
    record = counterfoil.Record(run)
    return {
        (lane, receipt.fields["step"]): record.opened(receipt)["gradients"].commitment.root
        for worker, lane in record.lanes
        for receipt in record.receipts(worker, lane)
        if receipt.kind == "step"
    }


# Of three summands gloo chooses the order, and chooses anew after a restart.
@pytest.mark.parametrize(("engine", "ranks"), [("ddp", 2), ("fsdp", 2)])
def test_a_killed_rank_and_the_others_go_on_from_a_common_checkpoint(tmp_path, engine, ranks):
    """Ranks that each took their own last checkpoint would go on from different steps."""
    code, errors = trained(tmp_path, engine, ranks, restarts=1)
    assert code == 0, errors
    verdict = counterfoil.verify(tmp_path / "run")
    assert verdict.status == "verified"
    record = counterfoil.Record(tmp_path / "run")
    for lane in record.lanes:
        went_on = [each.fields["step"] for each in record.receipts(*lane) if each.kind == "resume"]
        assert went_on[-1] == KILLED_AFTER - 1, lane
    assert f"at {elastic.STEPS} steps they are shown to have applied one gradient" in " ".join(verdict.notes)
    observed = [each.fields["size"] for each in record.receipts() if each.kind == "observed-head"]
    # At each attach, at step 2, and behind the restart at 4 and 6.
    assert len(observed) == (ranks - 1) * (2 + 1 + 2)
    # The same training without an interruption.
    (tmp_path / "whole").mkdir()
    code, errors = trained(tmp_path / "whole", engine, ranks, kill_after=-1)
    assert code == 0, errors
    assert applied(tmp_path / "run") == applied(tmp_path / "whole/run")


def test_a_rank_that_is_killed_leaves_the_evidence_of_all_and_its_gap_is_said(tmp_path):
    code, _ = trained(tmp_path, "ddp", 3)
    assert code != 0
    verdict = counterfoil.verify(tmp_path / "run")
    assert verdict.status == "verified" and "the run not shown to its end" in str(verdict)
    assert sum("is not shown to its end" in note for note in verdict.notes) >= 1
    steps = dict(sorted(applied(tmp_path / "run")))
    assert steps[2] == KILLED_AFTER
    for rank in (0, 1):
        # They end when they notice, in the step that the dead one does not take, or are ended by the launcher before: on
        # a busy machine within the step that it took last.
        assert steps[rank] in (KILLED_AFTER - 1, KILLED_AFTER)


def test_ranks_in_folders_of_their_own_make_one_run(tmp_path):
    """Machines that share no folder: each keeps its own lane, and together they are the run."""
    code, errors = trained(tmp_path, "fsdp", 2, "--own-folders", restarts=1)
    assert code == 0, errors
    first, second = tmp_path / "machine0", tmp_path / "machine1"
    # Alone, the other machine shows its own lane and to whose run it belongs.
    alone = counterfoil.verify(second)
    assert alone.status != "refuted"
    assert counterfoil.verify(first).status == "undecided"
    ((worker, lane),) = [each for each in counterfoil.Record(second).lanes if each[1] == 1]
    own = Path("workers", worker.lower(), str(lane))
    shutil.copytree(second / own, first / own)
    assert counterfoil.verify(first).status == "verified"
