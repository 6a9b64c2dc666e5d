"""Where the tensors of these measurements lie, and what is noted about them.

`Gpu` is the first NVIDIA GPU. `Dry` is the CPU, where the kernel compiled as C++ hashes: everything
runs as on a GPU, in small.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import counterfoil
from counterfoil import _native, cuda

HERE = Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE.parent), str(HERE.parents[1] / "tests/python")]


class Gpu:
    """The first GPU, and its current stream."""

    dry = False

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise RuntimeError(f"PyTorch sees no GPU; {cuda.info().reason or 'its build is another one'}")
        self.device = torch.device("cuda", 0)
        self._ballast: torch.Tensor | None = None
        self._cost = 0.0

    def scaled(self, size: int) -> int:
        """A size, as large as it is to be here."""
        return size

    def fits(self, size: int) -> bool:
        """Whether so many bytes fit beside what is held."""
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self.device)[0] > 1.1 * size + (1 << 30)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def mark(self) -> Any:
        """A place in the stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def reached(self, mark: Any) -> bool:
        """Whether the device came to this place."""
        return bool(mark.query())

    def between(self, first: Any, last: Any) -> float:
        """Seconds that the device took from one place to another."""
        last.synchronize()
        return float(first.elapsed_time(last)) / 1e3

    def stream(self) -> contextlib.AbstractContextManager[Any]:
        """Makes a new stream the current one."""
        return torch.cuda.stream(torch.cuda.Stream(self.device))

    def busy(self, seconds: float = 0.02) -> None:
        """Keeps the stream busy, so that the host gets ahead of the device. It leaves the caches cold."""
        if self._ballast is None:
            self._ballast = torch.ones(1 << 28, device=self.device)
            self._ballast.add_(1)
            begin = self.mark()
            for _ in range(5):
                self._ballast.add_(1)
            self._cost = self.between(begin, self.mark()) / 5
        for _ in range(math.ceil(seconds / self._cost)):
            self._ballast.add_(1)

    @contextlib.contextmanager
    def never_waiting(self) -> Any:
        """Makes every wait for the device that PyTorch knows of an error."""
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def random(self, size: int) -> torch.Tensor:
        """So many random bytes."""
        whole = torch.empty(size, dtype=torch.uint8, device=self.device)
        for piece in whole.split(1 << 30):
            piece.random_(0, 256)
        return whole

    def poison(self) -> None:
        """Fills the memory that the allocator hands out next, so that what is not written shows."""
        sizes = [self.scaled(size) for size in (512, 8 << 10, 128 << 10, 1 << 20, 8 << 20, 64 << 20)]
        held = [torch.full((size,), 0xCC, dtype=torch.uint8, device=self.device) for size in sizes * 8]
        del held


class Dry(Gpu):
    """The CPU, where `cuda.engine` is the kernel compiled as C++ and every torch tensor counts as a GPU's."""

    dry = True

    def __init__(self) -> None:
        from host_kernel import HostEngine, compile_kernel

        self.device = torch.device("cpu")
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            cuda.engine = HostEngine(compile_kernel(Path(folder)))

    def scaled(self, size: int) -> int:
        return min(size, 1_000_000 + size % 1000)

    def fits(self, size: int) -> bool:
        return True

    def synchronize(self) -> None:
        pass

    def mark(self) -> Any:
        return time.perf_counter()

    def reached(self, mark: Any) -> bool:
        return True

    def between(self, first: Any, last: Any) -> float:
        return float(last - first)

    def stream(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def busy(self, seconds: float = 0.0) -> None:
        pass

    def never_waiting(self) -> Any:
        return contextlib.nullcontext()


class Notes:
    """What a section found. The file is written again and again, so that little is lost when it is stopped."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self.found: dict[str, Any] = {"state": "stopped", "checks": 0, "failed": 0}
        self.found |= {"failures": [], "skipped": {}}

    def save(self) -> None:
        whole = json.loads(self._path.read_text()) if self._path.exists() else {}
        self._path.write_text(json.dumps(whole | {self._name: rounded(self.found)}))

    def note(self, what: str, value: Any) -> None:
        """Notes and prints a finding."""
        self.found[what] = value
        print(f"  {what}: {rounded(value)}")
        self.save()

    def skip(self, what: str, why: str) -> None:
        """Notes what is not done here."""
        self.found["skipped"][what] = why
        print(f"  {what}: skipped: {why}")
        self.save()

    def same(self, what: str, found: Any, expected: Any) -> None:
        """One check."""
        self.found["checks"] += 1
        if found != expected:
            self.found["failed"] += 1
            if len(self.found["failures"]) < 20:
                shown = [one.hex() if isinstance(one, bytes) else str(one) for one in (found, expected)]
                self.found["failures"].append(f"{what}: found {shown[0]}, expected {shown[1]}")
                print(f"  FAILED {self.found['failures'][-1]}")
                self.save()

    def roots(self, what: str, tensors: dict[str, torch.Tensor]) -> None:
        """Commits to tensors where they lie, all at once, and compares each root with the CPU's."""
        found = roots_of(counterfoil.commit_tensors(tensors))
        for name, tensor in tensors.items():
            self.same(f"{what}: {name}", found[name], root(tensor))
        self.save()


def rounded(value: Any) -> Any:
    """Six significant digits of every float."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def content(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's canonical bytes, on the CPU."""
    dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return dense.reshape(-1).view(torch.uint8).numpy()


def root(tensor: torch.Tensor) -> bytes:
    """The root that the CPU computes of a copy."""
    return _native.commit_bytes(content(tensor)).root


def roots_of(commitment: Any) -> dict[str, bytes]:
    """The roots of a commitment, or of an opened one, by name."""
    return {entry.name: entry.root for entry in commitment.entries if entry.kind != "alias"}


def spread(seconds: list[float]) -> dict[str, float]:
    """The median of some times, and between what they lie."""
    return {
        "median": statistics.median(seconds),
        "least": min(seconds),
        "most": max(seconds),
        "times": len(seconds),
    }


def state_of_gpu() -> str:
    """Clocks, temperature and power, as the driver's tool tells them now."""
    asked = "clocks.sm,clocks.max.sm,clocks.mem,temperature.gpu,power.draw,power.limit,clocks_event_reasons.active"
    if shutil.which("nvidia-smi") is None:
        return "nvidia-smi is not on the PATH"
    command = ["nvidia-smi", "--id=0", f"--query-gpu={asked}", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()


def machine(place: Gpu, notes: Notes) -> None:
    """What is measured, and with what."""
    from bench import processor

    print(cuda.info())
    info = cuda.info()
    notes.note("driver supports CUDA", info.driver)
    for name in ("counterfoil", "torch", "numpy"):
        notes.note(name, version(name))
    notes.note("torch's CUDA", torch.version.cuda)
    notes.note("python", platform.python_version())
    notes.note("processor", processor())
    notes.note("hashing backend of the CPU", _native.force_backend(None))
    if place.dry:
        notes.note("device", "dry")
        return
    notes.same("this process can hash on GPUs", (info.available, info.reason), (True, ""))
    properties = torch.cuda.get_device_properties(place.device)
    notes.note("device", properties.name)
    notes.note("capability", f"{properties.major}.{properties.minor}")
    notes.note("multiprocessors", properties.multi_processor_count)
    notes.note("memory", properties.total_memory)
    notes.note("L2 cache", getattr(properties, "L2_cache_size", None))
    notes.note("GPUs", torch.cuda.device_count())
    notes.note("driver", driver())
    notes.note("clocks and power, idle", state_of_gpu())


def driver() -> str:
    """The driver's version."""
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    command = ["nvidia-smi", "--id=0", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()
