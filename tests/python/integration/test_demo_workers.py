"""The demo of four workers, as a user starts it: what its table says is what the receipts say."""

import subprocess
import sys
from pathlib import Path

import pytest

import counterfoil
from counterfoil.errors import CounterfoilError, Refuted
from counterfoil.torch.demo import workers
from counterfoil.verify import Mismatch, ReplayReport

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the demo printed, and the run that it left."""
    folder = tmp_path_factory.mktemp("workers")
    command = [Path(sys.executable).with_name("counterfoil"), "demo", "workers", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, counterfoil.Record(folder / "workers/run")


def rows(text):
    """The table's rows: rank, worker, steps, samples, finding."""
    header, *lines = text.partition("\n\n")[0].splitlines()
    assert header.split() == ["rank", "worker", "steps", "samples", "computed", "again"]
    return [line.split(maxsplit=4) for line in lines]


def test_exactly_the_worker_that_cheats_is_named(told):
    """A demo that accuses an honest worker, or leaves open whether it was one."""
    text, record = told
    findings = [finding.strip() for *_, finding in rows(text)]
    assert findings == ["bit-exact", "bit-exact", "bit-exact", "differs"]
    (cheat,) = [worker for worker, lane in record.lanes if lane == 3]
    sentence = text.partition("\n\n")[2]
    assert [worker for worker, _ in record.lanes if worker in sentence] == [cheat]
    assert f"refuted by replay: rank 3, worker {cheat}" in sentence
    assert "verified by signatures: 4 ranks contributed" in sentence


def test_the_table_is_of_four_workers_with_a_key_and_a_quarter_of_the_data_each(told):
    """A table that is made up, workers that share the device's key, and one that was fed the data of all."""
    text, record = told
    lanes = {lane: worker for worker, lane in record.lanes}
    shown = [[rank, worker, steps, samples] for rank, worker, steps, samples, _ in rows(text)]
    quarter = 1797 // 4
    assert shown == [[str(rank), lanes[rank], "15", str(quarter)] for rank in range(4)]
    assert len({*lanes.values(), counterfoil.Key.device().address}) == 5


def test_a_cheat_that_is_not_named_fails_the_demo(told):
    """A demo that ends well whatever replay finds."""
    _, record = told
    verdict = counterfoil.verify(record)
    found = workers.findings(record, verdict)
    assert set(found.values()) == {"not checked"}
    with pytest.raises(CounterfoilError, match="named nobody"):
        workers.accusation(verdict, found)


def test_an_accusation_of_an_honest_worker_fails_the_demo(told):
    """A demo that is content with any accusation."""
    _, record = told
    (worker,) = [worker for worker, lane in record.lanes if lane == 1]
    wrong = Mismatch(1, f"{worker} lane 1: contribution", "1.bias", "0x00", "0x01")
    with pytest.raises(Refuted) as refused:
        counterfoil.verify(record, replay=ReplayReport((), (wrong,)))
    found = workers.findings(record, refused.value.verdict)
    with pytest.raises(CounterfoilError, match="rank 3 cheats, and replay named rank 1"):
        workers.accusation(refused.value.verdict, found)
