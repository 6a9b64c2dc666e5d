"""Measures what recording a step costs beyond hashing its bytes; `make bench` runs it.

Writes benches/results/step.json and prints the table. benches/hashing.py measures hashing.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
TENSORS, STEPS = 150, 200


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
        size = 16 + int.from_bytes(data[at : at + 4])
        sizes[data[at + 16 : at + 17]] = size
        at += size
    return sizes


def processor() -> str:
    """The processor's name as Linux tells it."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return names[0].partition(": ")[2] if names else platform.processor()


def machine() -> dict[str, object]:
    """What a figure was measured on."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "versions": {name: version(name) for name in ("counterfoil", "numpy")},
        "python": platform.python_version(),
        "load before": os.getloadavg()[0],
    }


def main() -> None:
    """Measures, writes the results, prints the table."""
    results = machine() | {"step": steps()}
    target = HERE / "results" / "step.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{results['processor']}, {results['cores']} cores, {results['date']}\n")
    print("| one recorded step | |\n|---|---|")
    for name, value in results["step"].items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
