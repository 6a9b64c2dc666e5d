"""Throughput of hashing on the GPU, beside the most that it could reach."""

from __future__ import annotations

import ctypes
import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from place import HERE, Gpu, Notes, rounded, spread, state_of_gpu

from counterfoil import _native, cuda
from counterfoil.commit import start

THREADS, REPEATS = 256, 20
MIN_ROTATED = 256 * 10**6
"""Bytes among which the inputs rotate, several times what caches hold."""


def gpt2_shapes() -> list[tuple[int, ...]]:
    """The 148 parameters of GPT-2 of 124 million."""
    block = [(768,), (768,), (768, 2304), (2304,), (768, 768), (768,), (768,), (768,)]
    block += [(768, 3072), (3072,), (3072, 768), (768,)]
    return [(50257, 768), (1024, 768), *block * 12, (768,), (768,)]


def compressions(size: int) -> int:
    """Calls of SHA-256's compression function for a tensor of so many bytes.

    A leaf has a domain byte before its bytes and at least nine behind them: 17 blocks of 64 bytes when
    full. Of n leaves n - 1 nodes are made, two blocks each (a domain byte and two digests). So 256
    leaves, which a block of the kernel takes, cost 256 * 17 + 255 * 2 = 4,862: 53.9 bytes for each.
    """
    full, rest = divmod(size, 1024)
    leaves = full + (rest > 0)
    return 17 * full + (rest > 0) * -(-(rest + 10) // 64) + 2 * max(0, leaves - 1)


@dataclass
class Work:
    """Tensors, and the launches that hash them."""

    tensors: list[torch.Tensor]
    memory: torch.Tensor
    launches: list[tuple[int, int, int, int, int]]

    @staticmethod
    def of(tensors: list[torch.Tensor]) -> Work:
        plan = _native.CudaPlan([tensor.nbytes for tensor in tensors])
        memory = torch.empty(plan.size, dtype=torch.uint8, device=tensors[0].device)
        table, launches = plan.launches([tensor.data_ptr() for tensor in tensors], memory.data_ptr())
        memory[: len(table)].copy_(torch.frombuffer(bytearray(table), dtype=torch.uint8))
        return Work(tensors, memory, launches)


class Driver:
    """The ceiling kernel, which compresses and does nothing else."""

    def __init__(self, device: torch.device) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self.processors = torch.cuda.get_device_properties(device).multi_processor_count
        torch.cuda.synchronize(device)  # PyTorch's context is now the thread's
        self._module = ctypes.c_void_p()
        image = (HERE / "ceiling.ptx").read_bytes() + b"\0"
        self._call("cuModuleLoadData", ctypes.byref(self._module), image)
        self.function = self._function("counterfoil_ceiling")
        self.reduce = self._function("counterfoil_reduce")
        occupancy = ctypes.c_int()
        name = "cuOccupancyMaxActiveBlocksPerMultiprocessor"
        self._call(name, ctypes.byref(occupancy), self.function, ctypes.c_int(THREADS), ctypes.c_size_t(0))
        self.grid = self.processors * occupancy.value
        self.digests = torch.empty(32 * THREADS * self.grid, dtype=torch.uint8, device=device)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} failed with error {status}")

    def _function(self, name: str) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        self._call("cuModuleGetFunction", ctypes.byref(function), self._module, name.encode())
        return function

    def attributes(self, function: ctypes.c_void_p) -> dict[str, int]:
        """What the driver made of a kernel."""
        found = {}
        numbers = {"shared bytes": 1, "local bytes": 3, "registers": 4, "binary version": 6}
        for name, number in numbers.items():
            value = ctypes.c_int()
            self._call("cuFuncGetAttribute", ctypes.byref(value), ctypes.c_int(number), function)
            found[name] = value.value
        return found

    def launch(self, blocks: int) -> None:
        """Compresses so many blocks in each thread, on the current stream."""
        count, digests = ctypes.c_uint32(blocks), ctypes.c_uint64(self.digests.data_ptr())
        places = [ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in (count, digests)]
        parameters = (ctypes.c_void_p * 2)(*places)
        sizes = [ctypes.c_uint(size) for size in (self.grid, 1, 1, THREADS, 1, 1, 0)]
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self._call("cuLaunchKernel", self.function, *sizes, stream, parameters, None)


def ceiling(place: Gpu, notes: Notes, driver: Driver, when: str) -> float:
    """The most compressions per second."""

    def seconds(blocks: int) -> float:
        begin = place.mark()
        driver.launch(blocks)
        return place.between(begin, place.mark())

    seconds(100)
    blocks = max(100, int(1000 * 0.1 / seconds(1000)))
    taken = [seconds(blocks) for _ in range(5)]
    rate = driver.grid * THREADS * blocks / statistics.median(taken)
    notes.note(f"ceiling {when}, seconds of a launch", spread(taken))
    notes.note(f"ceiling {when}, compressions per second", rate)
    notes.note(f"ceiling {when}, GB/s of whole blocks of leaves", rate * 256 * 1024 / 4862 / 1e9)
    for _ in range(20):
        driver.launch(blocks)
    notes.note(f"ceiling {when}, clocks and power", state_of_gpu())
    place.synchronize()
    return rate


def copying(place: Gpu, notes: Notes) -> None:
    """How fast the device copies within its memory, reading and writing counted."""
    size = place.scaled(2 * 10**9)
    if not place.fits(2 * size):
        notes.skip("copy", "too little memory is free")
        return
    source, target = place.random(size), place.random(size)
    taken = []
    for _ in range(REPEATS):
        begin = place.mark()
        target.copy_(source)
        taken.append(place.between(begin, place.mark()))
    notes.note("copy, GB/s read and written", 2 * size / statistics.median(taken) / 1e9)


def cases(place: Gpu) -> dict[str, tuple[int, Any]]:
    """What is hashed: by its name the bytes, and what makes one input."""

    def one(size: int, at: int = 0) -> tuple[int, Any]:
        size = place.scaled(size)
        return size, lambda: [place.random(size + at)[at:]]

    def many(dtype: torch.dtype) -> tuple[int, Any]:
        shapes = [(5, 7), (300, 40)] * 4 if place.dry else gpt2_shapes()
        sizes = [torch.Size(shape).numel() * dtype.itemsize for shape in shapes]
        return sum(sizes), lambda: [place.random(size) for size in sizes]

    return {
        "1 MB": one(10**6),
        "35 MB": one(35 * 10**6),
        "500 MB": one(500 * 10**6),
        "500 MB, 1 byte off": one(500 * 10**6, 1),
        "500 MB, 2 bytes off": one(500 * 10**6, 2),
        "500 MB, 4 bytes off": one(500 * 10**6, 4),
        "500 MB, 8 bytes off": one(500 * 10**6, 8),
        "GPT-2, bf16": many(torch.bfloat16),
        "GPT-2, fp32": many(torch.float32),
        "5 GB": one(5 * 10**9),
    }


def rates(place: Gpu, notes: Notes) -> None:
    """Launches alone, each launch alone, and whole calls."""
    torch.manual_seed(5)
    driver, reached = None, None
    try:
        if place.dry:
            notes.skip("ceiling", "no GPU")
        else:
            driver = Driver(place.device)
            notes.note("ceiling's kernel", driver.attributes(driver.function))
            notes.note("our kernel", driver.attributes(driver.reduce))
            notes.note("ceiling's blocks per multiprocessor", driver.grid // driver.processors)
            reached = ceiling(place, notes, driver, "before")
    except (OSError, RuntimeError) as failed:
        notes.skip("ceiling", str(failed))
    copying(place, notes)
    for name, (size, make) in cases(place).items():
        count = 2 if place.dry else max(2, -(-MIN_ROTATED // size))
        while count and not place.fits(count * size):
            count -= 1
        if not count:
            notes.skip(name, "too little memory is free")
            continue
        inputs = [Work.of(make()) for _ in range(count)]
        row = {"bytes": size, "tensors": len(inputs[0].tensors), "inputs": count}
        row |= launched(place, inputs) | called(place, inputs)
        needed = sum(compressions(tensor.nbytes) for tensor in inputs[0].tensors)
        row["GB/s"] = size / row["all launches"]["median"] / 1e9
        row["GB/s, first launch"] = size / row["first launch"]["median"] / 1e9
        row["GB/s, whole call"] = size / row["whole call"]["median"] / 1e9
        if reached:
            row["of the ceiling"] = needed / row["all launches"]["median"] / reached
        notes.found[name] = row
        notes.save()
        print(f"  {name}:", rounded({key: value for key, value in row.items() if isinstance(value, float)}))
        del inputs
    if driver and reached:
        ceiling(place, notes, driver, "after")


def launched(place: Gpu, inputs: list[Work]) -> dict[str, Any]:
    """Seconds of the device, behind other work, so that no launch waits for the host."""
    repeats = 3 if place.dry else max(REPEATS, min(60, 2 * len(inputs)))
    for work in inputs[:2]:
        cuda.engine.launch(place.device, work.launches)
    place.synchronize()
    place.busy()
    marks = []
    for i in range(repeats):
        begin = place.mark()
        cuda.engine.launch(place.device, inputs[i % len(inputs)].launches)
        marks.append((begin, place.mark()))
    queued = not place.reached(marks[0][0])
    whole = [place.between(*pair) for pair in marks]
    place.busy()
    marks = []
    for i in range(repeats):
        own = [place.mark()]
        for launch in inputs[i % len(inputs)].launches:
            cuda.engine.launch(place.device, [launch])
            own.append(place.mark())
        marks.append(own)
    each = [[place.between(*pair) for pair in pairwise(own)] for own in marks]
    return {
        "all launches": spread(whole),
        "first launch": spread([seconds[0] for seconds in each]),
        "later launches": spread([sum(seconds[1:]) for seconds in each]),
        "launches": len(inputs[0].launches),
        "all were queued before the first began": queued,
    }


def called(place: Gpu, inputs: list[Work]) -> dict[str, Any]:
    """Seconds of a whole call, and of its part before it waits."""
    whole, before = [], []
    named = [{f"{i}": tensor for i, tensor in enumerate(work.tensors)} for work in inputs]
    for i in range(3 if place.dry else REPEATS + 2):
        place.synchronize()
        begin = time.perf_counter()
        pending = start(named[i % len(named)])
        middle = time.perf_counter()
        pending.finish()
        whole.append(time.perf_counter() - begin)
        before.append(middle - begin)
    return {"whole call": spread(whole[2:]), "until it waits": spread(before[2:])}


def profiled(place: Gpu, notes: Notes) -> None:
    """One first launch of 500 MB between the marks of the profiler."""
    work = Work.of([place.random(place.scaled(500 * 10**6))])
    cuda.engine.launch(place.device, work.launches)
    place.synchronize()
    if place.dry:
        return
    with torch.cuda.profiler.profile():
        cuda.engine.launch(place.device, work.launches[:1])
        place.synchronize()
    notes.note("profiled", True)
