"""Models of which each process holds a part: rows, columns, replicas of rows, and rows of columns."""

import socket

import pytest
import torch

import counterfoil
import parallel
from counterfoil.errors import InvalidInput
from counterfoil.torch.sharded import _decode

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(("layout", "ranks"), [("columns", 2), ("replicas", 4), ("both", 4)])
def test_all_processes_commit_to_the_one_model_that_they_hold(tmp_path, layout, ranks):
    """A part at a wrong place, of another process, or twice, would give another root."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(parallel.work, (layout, ranks, port, tmp_path), ranks)
    assert counterfoil.verify(tmp_path / "run").status == "verified"
    held = torch.load(tmp_path / "held.pt")
    record = counterfoil.Record(tmp_path / "run")
    seen = {}
    for worker, lane in record.lanes:
        last = [each for each in record.receipts(worker, lane) if each.kind == "step"][-1]
        for field, tensors in held.items():
            found = {entry.name: entry for entry in record.opened(last)[field].entries}
            assert found["5.weight"].kind == "alias" and found["5.weight"].target == "4.weight"
            for name, tensor in tensors.items():
                entry = found[name]
                is_in_blocks = layout != "replicas" and name == "3.weight"
                assert entry.kind == ("sharded" if is_in_blocks else "dense")
                if not is_in_blocks:
                    assert entry.root == counterfoil.commit_bytes(tensor.contiguous().numpy()).root, name
                assert seen.setdefault((field, name), entry.root) == entry.root


def test_a_part_that_is_no_part_is_refused_by_its_rank():
    box = b'{"w": [[[0], [2], "F32"], 4]}\nabcd'
    for nonsense in (b"", b"{}", b"[]\n", b'{"w": [null, 3]}\nabc', b'{"w": 1}\n', box):
        with pytest.raises(InvalidInput, match="rank 3") as refused:
            _decode(3, nonsense)
        assert refused.value.where == "rank 3"
