"""Measures hashing beside its rivals; `make bench-hash` runs it.

Every contestant runs in a process of its own, pinned to the cores it may use, and the contestants
take turns, so that a slow minute of the machine hits all of them. All hash the same random bytes.
Wall time and processor time (user and system, of all threads) are taken; medians are reported, and
ratios are medians of the ratios within one round. Contestants that compute the same hash must agree.
model_signing and the 0G SDK are installed into scratch environments that are removed at the end.
Writes benches/results/hashing.json and prints the tables. GB are 10^9 bytes.

Options: --file GIB, the size of a file made in the temporary folder (TMPDIR moves it; 2, or 0 for
none), and --rounds N.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import processor

CORES = len(os.sched_getaffinity(0))
MIN_SECONDS = 0.2  # a contestant is called until this much time has passed
GIB = 1 << 30
SIZES = {"64 KiB": 1 << 16, "1 MB": 10**6, "100 MB": 10**8, "1 GiB": GIB}
TENSORS = 10_000
STATES = {f"{TENSORS:,} x {kib} KiB": TENSORS * kib << 10 for kib in (1, 10)}
STORED, STORED_BY_SDK = 10**8, 4 * 10**6

# Not in .venv. model-signing imports OpenSSL without asking for it; the SDK's packages are called
# core, utils and config.
FOREIGN = {
    "model_signing": ["model-signing==1.1.1", "pyOpenSSL"],
    "0G SDK": ["0g-storage-sdk==0.4.0"],
}
# Contestants of a family give the same result: flat SHA-256 on as many cores, the others always.
FAMILIES = {"flat sha2": "sha256", "hashlib": "sha256", "model_signing": "sha256", "0G SDK": "storage.root"}


@dataclass(frozen=True)
class Job:
    """One contestant: what it calls, on how many cores and bytes, with which backend."""

    name: str
    cores: int
    size: int = GIB
    backend: str = ""

    def __str__(self) -> str:
        return f"{self.name}, {self.backend}" if self.backend else self.name


Taken = dict[Job, list[dict[str, Any]]]


def jobs(backends: Sequence[str]) -> Iterator[Job]:
    """The contestants of a round, in their order. Without a backend: the default one."""
    for cores in sorted({1, CORES}):
        yield from (Job("commit_bytes", cores, GIB, backend) for backend in backends)
        yield from (Job(name, cores) for name in ("flat sha2", "hashlib", "model_signing", "memory read"))
        yield from (Job(name, cores, size) for size in SIZES.values() for name in ("commit_bytes", "blake3"))
        yield from (Job("commit_tensors", cores, size) for size in STATES.values())
        yield from (Job("blake3", cores, size) for size in STATES.values())
        yield from (Job("storage.root", cores, STORED, each) for each in backends if each != "sha-ni")
    yield from (Job("flat sha2", 1, size) for size in [*SIZES.values(), *STATES.values()] if size != GIB)
    yield Job("sha3 crate", 1, STORED)
    yield from (Job(name, 1, STORED_BY_SDK) for name in ("storage.root", "0G SDK"))


def contestant(job: Job, path: str) -> tuple[Callable[[Any], bytes], Any]:
    """The function to measure and its argument; imported after the process was pinned."""
    if job.name == "model_signing":
        return model_signing(job), path
    if job.name == "0G SDK":
        from core.file import ZgFile

        with open(path, "rb") as file:
            data = file.read(job.size)
        return lambda data: bytes.fromhex(ZgFile.from_bytes(data).merkle_tree()[0].root_hash()[2:]), data
    if job.name == "read alone":
        return read_alone, path

    import blake3
    import numpy as np

    import counterfoil
    from counterfoil import _native, storage

    if job.name == "commit_file":
        return lambda path: counterfoil.commit_file(path).root, path
    if job.backend:
        _native.force_backend(job.backend)
    array = np.fromfile(path, np.uint8, job.size)
    if job.name == "commit_tensors":
        pieces = np.split(array.view("f4"), TENSORS)
        state = {f"layers.{i}.weight": piece.copy() for i, piece in enumerate(pieces)}
        return lambda state: counterfoil.commit_tensors(state).root, state
    each = map if job.cores == 1 else ThreadPoolExecutor(job.cores).map

    def parts(data: Any) -> list[Any]:
        step = -(-data.size // job.cores)
        return [data[at : at + step] for at in range(0, data.size, step)]

    def sha256(part: Any) -> bytes:
        return hashlib.sha256(part).digest()

    def read(data: Any) -> bytes:
        return (sum(map(int, each(np.sum, parts(data.view(np.uint64))))) % 2**64).to_bytes(8)

    return {
        "commit_bytes": lambda data: counterfoil.commit_bytes(data).root,
        "storage.root": lambda data: storage.root(data).root,
        "flat sha2": lambda data: b"".join(each(_native.flat_sha256, parts(data))),
        "hashlib": lambda data: b"".join(each(sha256, parts(data))),
        "blake3": lambda data: blake3.blake3(data, max_threads=job.cores).digest(),
        "memory read": read,
    }[job.name], array


def model_signing(job: Job) -> Callable[[Any], bytes]:
    """Its public hashing.Config().hash: SHA-256 of a file; on more cores of one shard per core."""
    from model_signing import hashing

    config = hashing.Config()
    if job.cores > 1:
        config.use_shard_serialization(shard_size=-(-job.size // job.cores), max_workers=job.cores)
    return lambda path: b"".join(
        each.digest.digest_value for each in config.hash(path).resource_descriptors()
    )


def read_alone(path: str) -> bytes:
    """Reads a file and throws it away: what the disk, or one core from the page cache, gives."""
    buffer = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return b""


def measure(job: Job, path: str) -> dict[str, Any]:
    """Child process: the seconds that one call takes, its result, and the memory if it reads a file."""
    function, argument = contestant(job, path)
    if not isinstance(argument, str):
        function(argument if isinstance(argument, dict) else argument[: len(argument) // 8])
    anonymous, done = [memory()["RssAnon"]], threading.Event()

    def sample() -> None:
        while not done.wait(0.005):
            anonymous.append(memory()["RssAnon"])

    if job.name == "commit_file":
        threading.Thread(target=sample, daemon=True).start()
    calls, start, start_cpu = 0, time.perf_counter(), time.process_time()
    while calls == 0 or time.perf_counter() - start < MIN_SECONDS:
        result = function(argument)
        calls += 1
    wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    done.set()
    taken = {"wall": wall / calls, "cpu": cpu / calls, "result": result.hex()}
    if job.name == "commit_file":
        taken |= {"RssAnon before": anonymous[0], "RssAnon peak": max(anonymous), "samples": len(anonymous)}
        taken["VmHWM"] = memory()["VmHWM"]
    return taken


def memory() -> dict[str, int]:
    """Bytes of the process' resident memory: anonymous now, and the most of any kind so far."""
    lines = [line.partition(":") for line in Path("/proc/self/status").read_text().splitlines()]
    return {key: int(value.split()[0]) << 10 for key, _, value in lines if key in ("RssAnon", "VmHWM")}


def run(job: Job, path: Path, python: str = sys.executable) -> dict[str, Any]:
    """Measures one job in a process of its own."""
    command = [python, __file__, "--child", json.dumps(asdict(job)), str(path)]
    if job.name == "sha3 crate":
        command = ["cargo", "bench", "--quiet", "--bench", "sha3", "--", str(path), str(job.size)]
    cores = sorted(os.sched_getaffinity(0))[: job.cores]
    pinned = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    taken: dict[str, Any] = json.loads(pinned.stdout)
    return taken


def environment(folder: Path, requirements: Sequence[str]) -> str:
    """The Python of a new environment with these packages; "" if they cannot be had."""
    uv, python = Path(sys.executable).with_name("uv"), str(folder / "bin" / "python")
    install = [uv, "pip", "install", "--quiet", "--python", python, *requirements]
    try:
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
        subprocess.run(install, check=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as failed:
        print(failed, file=sys.stderr)
        return ""
    return python


def random_file(path: Path, size: int) -> None:
    """Fills a file with random bytes, which are on the disk when this returns."""
    with open(path, "wb") as file:
        for _ in range(size >> 26):
            file.write(os.urandom(1 << 26))
        file.flush()
        os.fsync(file.fileno())


def take_turns(turns: Sequence[Job], path: Path, rounds: int, scratch: Path) -> tuple[Taken, dict[str, str]]:
    """What every job took in every round, and why a rival is missing."""
    pythons = {name: environment(scratch / name, needed) for name, needed in FOREIGN.items()}
    missing = {name: "could not be installed" for name, python in pythons.items() if not python}
    taken: Taken = {job: [] for job in turns}
    results: dict[tuple[str, int, int], str] = {}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for job in [job for job in taken if job.name not in missing]:
            try:
                one = run(job, path, pythons.get(job.name, sys.executable))
            except subprocess.CalledProcessError:
                if job.name not in FOREIGN:
                    raise
                missing[job.name] = "was installed, but did not run"
                continue
            taken[job].append(one)
            family = FAMILIES.get(job.name, job.name)
            key = (family, job.size, job.cores if family == "sha256" else 0)
            if results.setdefault(key, one["result"]) != one["result"]:
                raise SystemExit(f"{job} on {job.cores} cores disagrees with another {family}")
    return {job: each for job, each in taken.items() if job.name not in missing}, missing


def files(folder: Path, gib: int) -> dict[str, Any]:
    """commit_file and a mere read of a file: its pages dropped from the cache, then again at once."""
    free = shutil.disk_usage(folder).free >> 30
    if free < gib + 4:
        print(f"{free} GiB of disk are free, too few for a file of {gib} GiB.", file=sys.stderr)
        gib = 2 if free >= 6 else 0
    taken: dict[str, Any] = {"GiB": gib}
    if gib:
        random_file(folder / "file", gib * GIB)
        for name in ("read alone", "commit_file"):
            # Nothing to drop where the folder is in memory: "first" is then no slower than "again".
            with open(folder / "file", "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            for when in ("first", "again"):
                taken[f"{name}, {when}"] = run(Job(name, CORES, gib * GIB), folder / "file")
    return taken


def median(taken: Taken, job: Job, clock: str = "wall") -> float:
    """Seconds that a call takes."""
    return statistics.median(each[clock] for each in taken[job])


def ratio(taken: Taken, job: Job, base: Job, clock: str = "wall") -> float:
    """How many times as fast as `base` by the byte."""
    pairs = zip(taken[base], taken[job], strict=True)
    return statistics.median(b[clock] / a[clock] for b, a in pairs) * job.size / base.size


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a Markdown table."""
    print("", "| " + " | ".join(head) + " |", "|---" * len(head) + "|", sep="\n")
    for row in rows:
        shown = [f"{each:#.3g}".rstrip(".") if isinstance(each, float) else str(each) for each in row]
        print("| " + " | ".join(shown) + " |")


def compared(taken: Taken, chosen: Sequence[Job], base: Callable[[Job], Job], called: str) -> None:
    """Prints rates, and their ratios to each job's `base`."""
    head = ["what", "cores", "bytes", "GB/s", "GB per core-second", f"{called} = 1", "per core-second"]
    rows = []
    for job in chosen:
        rates = [job.size / 1e9 / median(taken, job, clock) for clock in ("wall", "cpu")]
        ratios = [ratio(taken, job, base(job), clock) for clock in ("wall", "cpu")]
        rows.append([job, job.cores, f"{job.size:,}", *rates, *ratios])
    table(head, rows)


def by_size(taken: Taken, ours: str, sizes: dict[str, int], unit: str) -> None:
    """Prints GB/s or ms of ours, by the default backend, and of the rivals, size by size."""
    turns = [(name, cores) for name in (ours, "blake3") for cores in sorted({1, CORES})] + [("flat sha2", 1)]
    rows = []
    for called, size in sizes.items():
        seconds = [median(taken, Job(name, cores, size)) for name, cores in turns]
        shown = [each * 1e3 if unit == "ms" else size / 1e9 / each for each in seconds]
        rows.append([called, *shown, ratio(taken, Job(ours, 1, size), Job("flat sha2", 1, size))])
    head = [f"{name}, {cores} core{'s' * (cores > 1)}" for name, cores in turns]
    table([unit, *head, f"{ours} of flat sha2, 1 core"], rows)


def print_tables(taken: Taken, missing: dict[str, str], on_disk: dict[str, Any]) -> None:
    """Prints all tables."""
    whole = [job for job in taken if job.size == GIB]
    compared(taken, whole, lambda job: Job("flat sha2", job.cores), "flat sha2 on as many cores")
    by_size(taken, "commit_bytes", SIZES, "GB/s")
    by_size(taken, "commit_tensors", STATES, "ms")
    stored = [job for job in taken if job.name in ("storage.root", "sha3 crate", "0G SDK")]
    compared(taken, stored, lambda job: Job("sha3 crate", 1, STORED), "flat sha3 crate on one core")
    if (sdk := Job("0G SDK", 1, STORED_BY_SDK)) in taken:
        seconds, times = median(taken, sdk), ratio(taken, Job("storage.root", 1, STORED_BY_SDK), sdk)
        print(f"\n0G SDK: {seconds:.2f} s for {STORED_BY_SDK / 1e6:.0f} MB, which makes")
        print(f"{seconds * STORED / STORED_BY_SDK:.1f} s for {STORED / 1e6:.0f} MB and", end=" ")
        print(f"{STORED_BY_SDK / 1e6 / seconds:.1f} MB/s; storage.root is {times:.0f} times as fast.")
    for name, why in missing.items():
        print(f"\n{name}: not available: it {why}")
    gib, *reads = on_disk.items()
    size, rows, used = gib[1] * GIB, [], ("RssAnon before", "RssAnon peak", "VmHWM")
    for name, one in reads:
        megabytes = [f"{one[key] / 1e6:.1f}" if key in one else "" for key in used]
        rows.append([name, size / 1e9 / one["wall"], size / 1e9 / one["cpu"], *megabytes])
    head = ["GB/s", "GB per core-second", *(f"{key}, MB" for key in used)]
    if reads:
        table([f"file of {gib[1]} GiB, {CORES} cores", *head], rows)


def main() -> None:
    """Measures everything, writes the results, prints the tables."""
    from counterfoil import _native

    options = argparse.ArgumentParser(description="Measures hashing beside its rivals.")
    options.add_argument("--file", type=int, default=2, metavar="GIB", help="size of the file on disk")
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    backends, load = [*_native.backends()], os.getloadavg()[0]
    shared = Path("/dev/shm")
    in_memory = shared.is_dir() and shutil.disk_usage(shared).free > 2 * GIB
    with (
        tempfile.TemporaryDirectory() as disk,
        tempfile.TemporaryDirectory(dir=shared if in_memory else disk) as ram,
    ):
        data = Path(ram) / "data"
        random_file(data, GIB)
        taken, missing = take_turns([*jobs(backends)], data, chosen.rounds, Path(disk))
        data.unlink()
        on_disk = files(Path(disk), chosen.file)
    versions = {name: version(name) for name in ("counterfoil", "blake3", "numpy")}
    versions |= {name: needed[0].partition("==")[2] for name, needed in FOREIGN.items()}
    versions["hashlib"] = ssl.OPENSSL_VERSION
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "cores": CORES,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "backends": backends,
        "default backend": _native.force_backend(None),
        "load before": load,
        "load after": os.getloadavg()[0],
        "rounds": chosen.rounds,
        "data on tmpfs": in_memory,
        "missing": missing,
        "seconds": [
            asdict(job) | {clock: [round(each[clock], 9) for each in rounds] for clock in ("wall", "cpu")}
            for job, rounds in taken.items()
        ],
        "file": on_disk,
    }
    target = Path(__file__).resolve().parent / "results" / "hashing.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{results['processor']}, {CORES} cores, {results['date']}, medians of {chosen.rounds} rounds")
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print(f"backends: {', '.join(backends)}; by default {results['default backend']}")
    print_tables(taken, missing, on_disk)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(Job(**json.loads(sys.argv[2])), sys.argv[3])))
    else:
        main()
