"""Measures a long ledger: appending, verifying, and what a bundle of it costs.

Each receipt is a step that commits to one gradient, as `Run.record_step` writes it. Verification runs in
a process of its own, whose largest resident memory is reported.

    python benches/ledger.py [--receipts 1000000]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import counterfoil

CHILD = """
import json, sys, time
import counterfoil
start = time.perf_counter()
verdict = counterfoil.verify(sys.argv[1])
seconds = time.perf_counter() - start
# getrusage would count the program that started this one, too.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) / 1024
print(json.dumps({"seconds": seconds, "peak_mib": peak, "integrity": verdict.integrity}))
"""


def main() -> None:
    """Prints one line for each figure and writes benches/results/ledger.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--receipts", type=int, default=1_000_000)
    count = parser.parse_args().receipts
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COUNTERFOIL_HOME"] = str(Path(folder) / "home")
        results = {"receipts": count, **measure(Path(folder), count)}
    for name, value in results.items():
        print(f"{name:<34} {value}")
    (Path(__file__).parent / "results" / "ledger.json").write_text(json.dumps(results, indent=1) + "\n")


def measure(folder: Path, count: int) -> dict[str, float | int | str]:
    """All figures, in the order in which they arise."""
    sync = [timed(lambda: synchronise(folder / "sync")) for _ in range(200)]
    gradients = counterfoil.commit_tensors({"weight": np.ones(4, np.float32)})
    steps = []
    with counterfoil.Run.create(folder / "run") as run:
        begun = time.perf_counter()
        for step in range(1, count + 1):
            start = time.perf_counter()
            run.record_step(step, {"gradients": gradients})
            steps.append(time.perf_counter() - start)
        run.flush()
        appended = time.perf_counter() - begun
        flushes = []
        for step in range(count + 1, count + 201):
            run.record_step(step, {"gradients": gradients})
            flushes.append(timed(run.flush))
    (journal,) = (folder / "run").glob("workers/*/0/journal")
    bundle = folder / "x.counterfoil"
    exported = timed(lambda: counterfoil.export(folder / "run", bundle))
    one = folder / "one.counterfoil"
    counterfoil.export(folder / "run", one, steps=[count // 2])
    steps.sort()
    return {
        "write and fdatasync, median ms": round(statistics.median(sync) * 1e3, 3),
        "durable receipts per second": round(count / appended),
        "record_step, median us": round(steps[len(steps) // 2] * 1e6, 1),
        "record_step, p99 us": round(steps[len(steps) * 99 // 100] * 1e6, 1),
        "record_step and flush, median ms": round(statistics.median(flushes) * 1e3, 3),
        "journal, bytes per receipt": round(journal.stat().st_size / count, 1),
        "bundle, bytes per receipt": round(bundle.stat().st_size / count, 1),
        "export, s": round(exported, 1),
        "bundle that shows one step, bytes": one.stat().st_size,
        **verified("folder", folder / "run"),
        **verified("bundle", bundle),
        **verified("one step", one),
    }


def verified(name: str, path: Path) -> dict[str, float | str]:
    """Seconds and memory of a verification in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    return {
        f"verify {name}, s": round(found["seconds"], 2),
        f"verify {name}, peak MiB": round(found["peak_mib"]),
        f"verify {name}": found["integrity"],
    }


def synchronise(path: Path) -> None:
    """Appends a kilobyte durably."""
    with path.open("ab") as file:
        file.write(bytes(1024))
        file.flush()
        os.fdatasync(file.fileno())


def timed(work: object) -> float:
    """Seconds that a call took."""
    start = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
