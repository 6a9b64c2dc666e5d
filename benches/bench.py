"""Measures what the documentation claims; `make bench` runs it.

Every contestant runs in a process of its own, pinned to the cores it may use, and the contestants
take turns, so that a slow minute of the machine hits all of them. Medians are reported; the ratios
are medians of the ratios within one round. Writes benches/results/cpu.json and prints the tables.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SIZE = 1 << 30
ROUNDS = 7
TENSORS, STEPS = 150, 200

# Name, cores it may use. Flat hashes build no tree; on two cores they hash two halves.
CONTESTANTS = [
    ("commit_bytes", 1),
    ("commit_bytes", 2),
    ("flat sha2", 1),
    ("flat sha2", 2),
    ("hashlib sha256", 1),
    ("blake3", 1),
    ("blake3", 2),
]


def contestant(name: str, cores: int) -> Callable[[Any], object]:
    """The function to measure; imported after the process was pinned."""
    import blake3
    import numpy as np

    import counterfoil
    from counterfoil import _native

    pool = ThreadPoolExecutor(cores)
    return {
        "commit_bytes": counterfoil.commit_bytes,
        "flat sha2": lambda data: list(pool.map(_native.flat_sha256, np.split(data, cores))),
        "hashlib sha256": lambda data: hashlib.sha256(data).digest(),
        "blake3": lambda data: blake3.blake3(data, max_threads=cores).digest(),
    }[name]


def measure_one(name: str, cores: int) -> None:
    """Child process: prints the seconds that hashing SIZE bytes takes."""
    import numpy as np

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    function = contestant(name, cores)
    data = np.tile(np.frombuffer(os.urandom(1 << 20), np.uint8), SIZE >> 20)
    function(data[: SIZE // 8])
    start = time.perf_counter()
    function(data)
    print(time.perf_counter() - start)


def throughput() -> list[dict[str, object]]:
    """GiB/s of every contestant, and its ratio to flat sha2 on as many cores in the same round."""
    seconds: dict[tuple[str, int], list[float]] = {each: [] for each in CONTESTANTS}
    for _ in range(ROUNDS):
        for name, cores in CONTESTANTS:
            command = [sys.executable, __file__, name, str(cores)]
            seconds[name, cores].append(float(subprocess.check_output(command)))
    return [
        {
            "name": name,
            "cores": cores,
            "GiB/s": round(SIZE / 2**30 / statistics.median(taken), 3),
            "of flat sha2": round(
                statistics.median(f / t for f, t in zip(seconds["flat sha2", cores], taken, strict=True)), 3
            ),
            "seconds": [round(each, 4) for each in taken],
        }
        for (name, cores), taken in seconds.items()
    ]


def steps() -> dict[str, object]:
    """What one recorded step costs beyond its bytes: many small tensors, durable receipts."""
    import numpy as np

    import counterfoil

    chosen = np.random.default_rng(0)
    tensors = {f"layer{i}": chosen.normal(size=64).astype("f4") for i in range(TENSORS)}
    commit, record = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        os.environ["COUNTERFOIL_HOME"] = str(Path(folder) / "home")
        with counterfoil.Run.create(path, policy={"gradients": 1}) as run:
            (journal,) = path.glob("workers/*/*/journal")
            for number in range(1, STEPS + 1):
                start = time.perf_counter()
                gradients = counterfoil.commit_tensors(tensors)
                middle = time.perf_counter()
                run.record_step(number, {"gradients": gradients})
                record.append(time.perf_counter() - middle)
                commit.append(middle - start)
            run.flush()
            written = frame_bytes(journal)
        start = time.perf_counter()
        counterfoil.verify(path)
        verified = time.perf_counter() - start
    return {
        "tensors": TENSORS,
        "commit_tensors, ms": round(statistics.median(commit) * 1000, 3),
        "record_step, ms": round(statistics.median(record) * 1000, 3),
        "journal, bytes per step receipt": written[b"R"],
        f"journal, bytes per opening of {TENSORS} roots": written[b"O"],
        "verify, ms per step": round(verified / STEPS * 1000, 3),
    }


def frame_bytes(journal: Path) -> dict[bytes, int]:
    """Bytes of the last frame of each kind, its head included."""
    data, at, sizes = journal.read_bytes(), 0, {}
    while at < len(data):
        size = 12 + int.from_bytes(data[at : at + 4])
        sizes[data[at + 12 : at + 13]] = size
        at += size
    return sizes


def processor() -> str:
    """The processor's name as Linux tells it."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return names[0].partition(": ")[2] if names else platform.processor()


def main() -> None:
    """Measures everything, writes the results, prints the tables."""
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "versions": {name: version(name) for name in ("counterfoil", "blake3", "numpy")},
        "python": platform.python_version(),
        "load before": os.getloadavg()[0],
        "bytes": SIZE,
        "rounds": ROUNDS,
        "throughput": throughput(),
        "step": steps(),
    }
    target = HERE / "results" / "cpu.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{results['processor']}, {results['cores']} cores, {results['date']}\n")
    print("| what | cores | GiB/s | flat sha2 on as many cores = 1 |\n|---|---|---|---|")
    for each in results["throughput"]:
        ratio = each["of flat sha2"]
        print(f"| {each['name']} | {each['cores']} | {each['GiB/s']:.2f} | {ratio:.2f} |")
    print("\n| one recorded step | |\n|---|---|")
    for name, value in results["step"].items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure_one(sys.argv[1], int(sys.argv[2]))
    else:
        main()
