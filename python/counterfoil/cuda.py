"""Hashing on NVIDIA GPUs: tensors are hashed where they lie, on PyTorch's current stream.

Memory, streams and events are PyTorch's own: its allocator frees in the order of its streams, so
that nothing here waits. `commit_tensors` and `Run.attach` use this module by themselves; what a
device cannot hash is copied and hashed by the CPU, with a warning and a flag in the receipt.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from counterfoil import _native
from counterfoil.errors import DeviceError, InvalidInput

Launches = list[tuple[int, int, int, int, int]]
KERNEL = "PTX 7.8 for compute capability 7.5 and newer"


@dataclass(frozen=True)
class Device:
    """A GPU: its name, and its compute capability as major and minor number."""

    name: str
    capability: tuple[int, int]


@dataclass(frozen=True)
class Info:
    """What this process can hash on GPUs.

    Attributes:
        available: Whether there is a driver and a GPU that can run the kernel.
        reason: Why not, and what to do about it; empty if available.
        driver: The CUDA version that the NVIDIA driver supports, such as "12.4", or None.
        devices: The GPUs that this process may see, in the order of their numbers.
        kernel: What the kernel is compiled for.
    """

    available: bool
    reason: str
    driver: str | None
    devices: tuple[Device, ...]
    kernel: str = KERNEL

    def __str__(self) -> str:
        """A line for each fact."""
        names = [
            f"GPU {number}: {device.name}, compute capability {device.capability[0]}.{device.capability[1]}"
            for number, device in enumerate(self.devices)
        ]
        state = "GPU hashing: available" if self.available else f"GPU hashing: not available: {self.reason}"
        return "\n".join([state, f"kernel: {self.kernel}", f"driver: CUDA {self.driver or 'none'}", *names])


def info() -> Info:
    """What this process can hash on GPUs; needs no GPU and no torch.

    It initialises the driver, after which processes forked from this one cannot use CUDA.

    Example:
        >>> isinstance(info().available, bool)
        True
    """
    try:
        version, found = _native.cuda_devices()
    except DeviceError as missing:
        return Info(False, str(missing), None, ())
    driver = f"{version // 1000}.{version % 1000 // 10}"
    devices = tuple(Device(name, capability) for name, capability in found)
    if version < 11080:
        reason = f"the driver supports CUDA {driver}, the kernel needs 11.8: install driver 525 or newer"
    elif not any(device.capability >= (7, 5) for device in devices):
        reason = "this process sees no GPU of compute capability 7.5 or newer (CUDA_VISIBLE_DEVICES?)"
    else:
        reason = ""
    return Info(not reason, reason, driver, devices)


class Engine(Protocol):
    """What hashes tensors that lie elsewhere. Tests put the kernel compiled for the CPU in its place."""

    def away(self, value: Any) -> bool:
        """Whether a value of a state is a tensor that does not lie in the CPU's memory."""
        ...

    def takes(self, device: Any) -> bool:
        """Whether the kernel could run on this device."""
        ...

    def launch(self, device: Any, launches: Launches) -> None:
        """Puts launches behind the work that the device has, and returns."""
        ...

    def mark(self, device: Any) -> Callable[[], object]:
        """A function that waits until the device has done the work that it has now."""
        ...


class TorchStreams:
    """PyTorch's current streams on NVIDIA GPUs."""

    def away(self, value: Any) -> bool:
        """Whether a value of a state is a tensor that does not lie in the CPU's memory."""
        return not getattr(value, "is_cpu", True)

    def takes(self, device: Any) -> bool:
        """Whether PyTorch reaches the device through CUDA, and not through another library of that name."""
        return device.type == "cuda" and sys.modules["torch"].version.cuda is not None

    def launch(self, device: Any, launches: Launches) -> None:
        """Puts launches on the device's current stream."""
        stream = sys.modules["torch"].cuda.current_stream(device)
        _native.cuda_launch(device.index, stream.cuda_stream, launches)

    def mark(self, device: Any) -> Callable[[], object]:
        """Records an event on the device's current stream."""
        cuda = sys.modules["torch"].cuda
        event = cuda.Event()
        event.record(cuda.current_stream(device))
        return event.synchronize  # type: ignore[no-any-return]


engine: Engine = TorchStreams()
_problems: dict[Any, str] = {}
"""What is wrong with each device that was met; empty if it hashes as the CPU does."""


def usable(device: Any) -> bool:
    """Whether a device hashes. A device that is met for the first time must first give right answers.

    A device that does not is warned about once.
    """
    if device not in _problems:
        _problems[device] = _problem(device)
        if _problems[device]:
            text = f"tensors on {device} are copied and hashed by the CPU: {_problems[device]}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
    return not _problems[device]


def refuse_capture() -> None:
    """Hashing inside a CUDA graph would read what a later replay overwrites.

    Raises:
        InvalidInput: A CUDA graph is being captured on the current stream.
    """
    cuda = sys.modules["torch"].cuda
    if cuda.is_initialized() and cuda.is_current_stream_capturing():
        raise InvalidInput(
            "a CUDA graph is being captured: attach after the capture, and call recorder.record() after each replay",
            where="torch.cuda.graph",
        )


def _problem(device: Any) -> str:
    if not engine.takes(device):
        return "it is no NVIDIA GPU"
    torch = sys.modules["torch"]
    try:
        # More chunks than a block takes, a ragged end, every alignment of a short tensor.
        sample = torch.arange(300 * 1024 + 7, device=device).remainder(251).to(torch.uint8)
        tensors = [sample, *(sample[start : start + 100] for start in range(16))]
        answers = Roots(tensors).get()
    except DeviceError as failed:
        return str(failed)
    expected = [_native.commit_bytes(tensor.cpu().numpy()).root for tensor in tensors]
    return "" if answers == expected else "its answers to a known question are wrong"


class Roots:
    """Roots that a device computes of contiguous tensors in its memory.

    What the current stream does later may free or overwrite the tensors.
    """

    def __init__(self, tensors: Sequence[Any]) -> None:
        torch, device = sys.modules["torch"], tensors[0].device
        self._plan = _native.CudaPlan([tensor.nbytes for tensor in tensors])
        memory = torch.empty(self._plan.size, dtype=torch.uint8, device=device)
        table, launches = self._plan.launches([tensor.data_ptr() for tensor in tensors], memory.data_ptr())
        if launches:
            segments = torch.frombuffer(bytearray(table), dtype=torch.uint8)
            segments = segments.pin_memory() if device.type == "cuda" else segments
            memory[: len(table)].copy_(segments, non_blocking=True)
            engine.launch(device, launches)
        self._found = bring(memory[self._plan.size - self._plan.roots_size :])

    def get(self) -> list[bytes]:
        """The roots, 32 bytes each; waits for the device."""
        return self._plan.roots(self._found().numpy().tobytes())


def bring(tensor: Any) -> Callable[[], Any]:
    """Copies a tensor to the CPU's memory behind the work that its device has; the result waits for it."""
    torch, device = sys.modules["torch"], tensor.device
    # Copying a negated view would negate on the host, before the bytes are there.
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if not (engine.away(tensor) and engine.takes(device)):
        copy = tensor.to("cpu", copy=True)
        return lambda: copy
    host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=device.type == "cuda")
    host.copy_(tensor, non_blocking=True)
    wait = engine.mark(device)

    def arrived() -> Any:
        wait()
        return host

    return arrived
