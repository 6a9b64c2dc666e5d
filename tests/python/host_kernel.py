"""The CUDA kernel compiled as C++: what a GPU would compute, on a machine without one."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

KERNEL = Path(__file__).parents[2] / "src/commit/cuda/reduce.cu"
SHIM = Path(__file__).parents[1] / "cuda/host.cpp"
COMPILER = shutil.which("c++")

Launch = Callable[..., None]
"""Carries out launches, from a block on."""


def compile_kernel(folder: Path, source: str | None = None) -> Launch:
    """A function that carries out launches with the kernel, or with a changed source of it."""
    copy, library = folder / "reduce.cu", folder / "kernel.so"
    copy.write_text(source or KERNEL.read_text())
    shim = folder / "host.cpp"
    shim.write_text(SHIM.read_text().replace("../../src/commit/cuda/reduce.cu", str(copy)))
    options = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror", "-shared", "-fPIC"]
    subprocess.run([str(COMPILER), *options, str(shim), "-o", str(library)], check=True)
    run = ctypes.CDLL(str(library)).launch
    word, long = ctypes.c_uint32, ctypes.c_uint64
    run.argtypes = [word, word, long, word, word, long]
    run.restype = None

    def launch(launches: list[tuple[int, ...]], first: int = 0) -> None:
        for parameters in launches:
            run(first, *parameters)

    return launch


class HostEngine:
    """Treats every torch tensor as one that lies on a GPU, and hashes it with the compiled kernel.

    Attributes:
        launched: How many times the kernel was launched.
        waited: How many times somebody waited for results.
    """

    def __init__(self, launch: Launch) -> None:
        self._launch, self.launched, self.waited = launch, 0, 0

    def away(self, value: Any) -> bool:
        return hasattr(value, "is_cpu")

    def takes(self, device: Any) -> bool:
        return True

    def launch(self, device: Any, launches: list[tuple[int, ...]]) -> None:
        self.launched += 1
        self._launch(launches)

    def mark(self, device: Any) -> Callable[[], object]:
        def wait() -> None:
            self.waited += 1

        return wait
