"""Puts a process into the settings under which equal inputs give equal bits."""

from __future__ import annotations

import os
import platform

import torch

from counterfoil.errors import InvalidInput

PORTABLE = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}
"""Variables that torch, MKL and oneDNN read once, when they first compute."""
CUBLAS, FIXED = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")
"""What cuBLAS reads when it starts, and the values under which it repeats its bits."""


def deterministic(*, portable: bool = False) -> None:
    """Chooses algorithms that repeat their bits, from now until this process ends.

    Torch's deterministic algorithms, a fixed workspace for cuBLAS, no benchmarking by cuDNN, no TF32. An operation
    that has no such algorithm raises `RuntimeError`. Seeds, threads and the number of workers stay yours.

    Args:
        portable: Also one thread, no oneDNN, and the processor's oldest instructions, so that x86-64 machines with
            other threads and other vector instructions compute alike. Slow: for tests and small models.

    Raises:
        InvalidInput: It comes too late: CUDA was initialised, or with `portable` something was computed; the message
            names what to export before Python starts. Or with `portable` the processor is another one.

    Source:
        docs/recorder.md, "Equal bits".
    """
    workspace = os.environ.get(CUBLAS)
    if workspace not in FIXED and torch.cuda.is_initialized():
        raise InvalidInput(
            f"CUDA was initialised without {CUBLAS}: call this before, or export {CUBLAS}={FIXED[0]}",
            expected=" or ".join(FIXED),
            actual=workspace,
            where=CUBLAS,
        )
    if portable:
        _choose_the_oldest_instructions()
        torch.set_num_threads(1)
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    os.environ[CUBLAS] = workspace if workspace in FIXED else FIXED[0]
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # Of all backends since torch 2.9; the older switches, which count where they were used, behind it.
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


def _choose_the_oldest_instructions() -> None:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise InvalidInput("portable bits are those of x86-64", actual=platform.machine(), where="portable")
    before = {name: os.environ.get(name) for name in PORTABLE}
    # Asking fixes torch's answer: where its variable stood before, nobody knows whether MKL was used since.
    if before == PORTABLE or before["ATEN_CPU_CAPABILITY"] != PORTABLE["ATEN_CPU_CAPABILITY"]:
        os.environ.update(PORTABLE)
        if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
            return
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    exports = " ".join(f"{name}={value}" for name, value in PORTABLE.items())
    raise InvalidInput(
        f"portable comes before this process computes anything, or export {exports} before Python starts",
        where="portable",
    )
