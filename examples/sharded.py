"""Four workers hash their own parts of a weight; the root is that of the whole, on one condition.

Rows are runs of the weight's bytes, so the workers' shards merge to the same root as the whole weight.
Columns are scattered over its bytes: their blocks make an entry of kind "sharded", which binds every
block but is not comparable with the whole.

    python examples/sharded.py
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

import counterfoil

SHAPE, WORKERS = (300, 200), 4


def weight() -> np.ndarray:
    """What all workers together hold; here it is cheap to make again."""
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def rows(worker: int) -> counterfoil.Shard:
    """A worker of data parallelism with sharded parameters hashes its rows."""
    before = [part.nbytes for part in np.array_split(weight(), WORKERS)[:worker]]
    return counterfoil.commit_shard(np.array_split(weight(), WORKERS)[worker], offset=sum(before))


def columns(worker: int) -> counterfoil.Block:
    """A worker of tensor parallelism hashes its columns."""
    step = SHAPE[1] // WORKERS
    return counterfoil.commit_block(
        weight()[:, worker * step : (worker + 1) * step], offset=(0, worker * step)
    )


def main() -> None:
    """Compares the workers' parts with the whole."""
    whole = counterfoil.commit_tensors({"weight": weight()})
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        shards, blocks = list(pool.map(rows, range(WORKERS))), list(pool.map(columns, range(WORKERS)))
    by_rows = counterfoil.commit_tensors({"weight": counterfoil.Sharded("F32", SHAPE, shards)})
    by_columns = counterfoil.commit_tensors({"weight": counterfoil.Sharded("F32", SHAPE, blocks)})
    assert counterfoil.merge_shards(shards) == counterfoil.commit_bytes(weight())
    print("four row shards,", sum(len(shard.to_bytes()) for shard in shards), "bytes sent:")
    print("  the whole's root" if by_rows == whole else "  another root")
    entry = by_columns.entries[0]
    print(f"four column blocks: an entry of kind {entry.kind!r}, root {entry.root.hex()[:16]}")


if __name__ == "__main__":
    main()
