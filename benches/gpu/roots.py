"""Roots that the GPU computes against those of the CPU."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from place import Gpu, Notes, content, root, roots_of

import counterfoil
from counterfoil import _native, cuda
from counterfoil.commit import start
from counterfoil.torch.collect import DTYPES, metric

BLOCK, MIB = 256 * 1024, 1 << 20
# Around nothing, blocks of padding, blocks and chunks; around the 256 chunks of a block of the kernel,
# and around those that need a third launch.
EDGES = [*range(4), *range(30, 35), *range(54, 67), *range(118, 131), *range(1022, 1027), 2047, 2048, 2049]
EDGES += [BLOCK + more for more in (-1025, -1024, -1, 0, 1, 63, 64, 1023, 1024, 1025)]
EDGES += [2 * BLOCK + more for more in (-1, 0, 1)]
LARGE_EDGES = [64 * MIB + more for more in (-1024, -1, 0, 1, 1024, 1025, BLOCK, BLOCK + 1)]


def roots(place: Gpu, notes: Notes) -> None:
    """Dtypes, layouts, sizes, alignments, many tensors, mixtures, PyTorch's settings."""
    torch.manual_seed(1)
    for what, tensors in groups(place, notes):
        place.poison()
        notes.roots(what, tensors)
    for size in EDGES + [place.scaled(size) for size in LARGE_EDGES]:
        notes.roots("alone", {f"{size} bytes": place.random(size)})
    mixed(place, notes)
    settings(place, notes)
    devices(place, notes)


def groups(place: Gpu, notes: Notes) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Tensors that are committed to at once."""
    for tag, dtype in DTYPES.items():
        yield tag, dict(layouts(place, notes, tag, dtype))
    yield "sizes", {f"{size} bytes": place.random(size) for size in EDGES}
    sizes = {place.scaled(size) for size in LARGE_EDGES}
    yield "large sizes", {f"{size} bytes": place.random(size) for size in sizes}
    whole = place.random(3 * BLOCK)
    lengths = [1, 15, 16, 17, *range(54, 57), *range(63, 66), *range(1007, 1010), *range(1023, 1026), 2050]
    lengths += [BLOCK + 1, 2 * BLOCK]
    cuts = {f"[{at}:][:{size}]": whole[at : at + size] for size in lengths for at in range(33)}
    yield "alignments", cuts
    chosen = random.Random(2)
    for number in range(1 if place.dry else 4):
        most = 16 if place.dry else 22
        sizes_at_random = [int(2 ** chosen.uniform(0, most)) for _ in range(400)]
        yield f"many {number}", {f"{i}": place.random(size) for i, size in enumerate(sizes_at_random)}


def layouts(place: Gpu, notes: Notes, tag: str, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of a dtype that lie in memory in any way. Of random bits: NaNs of all kinds are among them."""
    some = place.random(2 * 4 * 6 * 11 * 8 * dtype.itemsize)
    flat = (some % 2 if dtype == torch.bool else some).view(dtype)
    matrix = flat.reshape(33, 128)
    ways = {
        "flat": lambda: flat,
        "odd": lambda: flat[3:1030],
        "0-dim": lambda: flat[5],
        "empty": lambda: matrix[:, :0],
        "transposed": lambda: matrix.t(),
        "columns": lambda: matrix[1:, 1::3],
        "expanded": lambda: matrix[2].expand(5, 128),
        "channels last": lambda: flat.reshape(4, 8, 12, 11).contiguous(memory_format=torch.channels_last),
        "permuted": lambda: flat.reshape(4, 8, 12, 11).permute(2, 0, 3, 1),
        "parameter": lambda: torch.nn.Parameter(matrix[1:], requires_grad=dtype.is_floating_point),
    }
    if dtype.is_complex:
        values = torch.randn(7, 300, dtype=dtype, device=place.device)
        ways |= {
            "conjugated": values.conj,
            "conjugated and transposed": lambda: values.conj().t(),
            "negated": lambda: values.conj().imag,
        }
    for name, make in ways.items():
        try:
            tensor = make()
            tensor.contiguous()
        except RuntimeError as refused:
            notes.skip(f"{tag} {name}", f"PyTorch refuses: {str(refused).splitlines()[0]}")
        else:
            yield name, tensor


def mixed(place: Gpu, notes: Notes) -> None:
    """Everything that a state may hold, on both sides."""
    weight = torch.randn(300, 700, device=place.device)
    state: dict[str, Any] = {
        "weight": weight,
        "step": torch.tensor(3.0, device=place.device),
        "nothing": torch.empty(0, device=place.device),
        "weight, tied": counterfoil.Alias("weight"),
        "array": np.arange(5000.0),
        "host": torch.arange(70_000),
        "absent": None,
        "flag": True,
        "count": -7,
        "rate": 1e-3,
        "text": "zwölf",
    }
    here = {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in state.items()}
    expected = _native.commit_tensors(here, False, None)
    for keep in (False, True):
        notes.same(f"mixed, keep={keep}", counterfoil.commit_tensors(state, keep=keep).root, expected.root)
    opening = counterfoil.commit_tensors(state).prove("weight", chunk=600, tensor=weight)
    opening.verify(expected.digest())
    notes.same("an opened chunk", opening.chunk, content(weight)[600 * 1024 : 601 * 1024].tobytes())


def settings(place: Gpu, notes: Notes) -> None:
    """Modes of PyTorch under which memory is made differently."""
    tensors = {"a": place.random(BLOCK + 77), "b": place.random(50)}
    expected = {name: root(tensor) for name, tensor in tensors.items()}

    @contextlib.contextmanager
    def deterministic() -> Iterator[None]:
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)

    modes = {
        "inference mode": torch.inference_mode,
        "no_grad": torch.no_grad,
        "default device": lambda: place.device,
        "deterministic algorithms": deterministic,
        "autocast": lambda: torch.autocast(place.device.type, torch.bfloat16),
    }
    for name, mode in modes.items():
        place.poison()
        with mode():
            pending = start(tensors)
            within = roots_of(pending.finish())
            pending = start(tensors)
        notes.same(name, within, expected)
        notes.same(f"{name}, finished outside", roots_of(pending.finish()), expected)


def devices(place: Gpu, notes: Notes) -> None:
    """Tensors on all GPUs in one commitment."""
    count = 0 if place.dry else torch.cuda.device_count()
    if count < 2:
        notes.skip("several GPUs", f"{count} here")
        return
    tensors = {f"cuda:{i}": torch.randn(100_000 + i, device=f"cuda:{i}") for i in range(count)}
    notes.roots("several GPUs", tensors)


def streams(place: Gpu, notes: Notes) -> None:
    """What is hashed is what the stream has come to, whatever is queued before, beside and behind."""
    torch.manual_seed(2)
    cuda.usable(place.device)  # which waits, the first time
    size, rounds = place.scaled(64 * MIB), 100
    place.busy(0.2)  # of the default stream, which nothing here may wait for
    with place.stream():
        place.busy(0.05)
        chain = torch.zeros(size, dtype=torch.uint8, device=place.device)
        for _ in range(rounds):
            chain.add_(1)
        behind = place.mark()
        pending = start({"x": chain})
        queued = not place.reached(behind)
        found = roots_of(pending.finish())["x"]
    notes.note("work was queued when hashing began", queued)
    notes.same("behind the work of a side stream", found, root(torch.full_like(chain, rounds)))
    del chain

    kept = place.random(size)
    expected = root(kept)
    place.busy()
    pending = start({"x": kept})
    kept.fill_(7)
    notes.same("overwritten", roots_of(pending.finish())["x"], expected)

    freed = place.random(size)
    expected, address = root(freed), freed.data_ptr()
    place.busy()
    pending = start({"x": freed})
    del freed
    after = torch.full((size,), 9, dtype=torch.uint8, device=place.device)
    notes.note("freed memory was used again at once", after.data_ptr() == address)
    notes.same("freed", roots_of(pending.finish())["x"], expected)

    matrix = place.random(1000 * 999).reshape(1000, 999)
    expected = root(matrix.t())
    place.busy()
    pending = start({"x": matrix.t()})
    after = [torch.full((1000 * 999,), 9, dtype=torch.uint8, device=place.device) for _ in range(4)]
    matrix.fill_(1)
    notes.same("a copy that was freed", roots_of(pending.finish())["x"], expected)

    rate = torch.tensor([0.5, 0.25], device=place.device)
    expected = root(rate)
    place.busy()
    pending = start({"x": rate}, keep=True)
    rate.fill_(0)
    notes.same("overwritten, kept by value", roots_of(pending.finish())["x"], expected)

    negated = torch.full((1,), 2 + 3j, device=place.device).conj().imag[0]
    place.busy()
    logged = metric("loss", negated)
    notes.same("a logged number that is a negated view", logged(), -3.0)

    tensors = [place.random(1 + 4999 * i) for i in range(60)]
    expected_roots = [root(tensor) for tensor in tensors]
    place.busy(0.1)
    many = [start({"x": tensor, "y": tensors[0]}) for tensor in tensors]
    for tensor in tensors:
        tensor.fill_(3)
    for i in reversed(range(60)):
        notes.same(f"number {i} of many that wait", roots_of(many[i].finish())["x"], expected_roots[i])

    tensors = [place.random(200_000 + i) for i in range(20)]
    expected_roots = [root(tensor) for tensor in tensors]
    place.synchronize()
    many = []
    for tensor in tensors:
        with place.stream():
            many.append(start({"x": tensor}))
    for i, pending in enumerate(many):
        notes.same(f"stream {i} of many", roots_of(pending.finish())["x"], expected_roots[i])


def large(place: Gpu, notes: Notes) -> None:
    """Tensors that 32 bits do not count, and that need three and four launches."""
    torch.manual_seed(3)
    begin = time.monotonic()
    for size in (5_000_000_000, (1 << 34) + 12_345):
        name, size = f"{size:,} bytes", place.scaled(size)
        if not place.fits(size):
            notes.skip(name, "too little memory is free")
        elif time.monotonic() - begin > 40:
            notes.skip(name, "the one before took too long")
        else:
            whole, step = place.random(size), size // 7 + 1
            found = roots_of(counterfoil.commit_tensors({"x": whole}))["x"]
            cut = range(0, size, step)
            shards = [counterfoil.commit_shard(content(whole[at : at + step]), at) for at in cut]
            notes.same(name, found, counterfoil.merge_shards(shards).root)
            notes.note(f"{name}, seconds", round(time.monotonic() - begin, 1))
            del whole


def sanitized(place: Gpu, notes: Notes) -> None:
    """A few sizes at all alignments, for compute-sanitizer: no kernel but ours, and no memory to spare.

    The kernel reads whole vectors of 16 bytes, so allocations end with the tensor's last vector.
    """
    # The known question that a device is asked first does not end with a vector.
    cuda._problems[place.device] = ""
    torch.manual_seed(4)
    shapes = [(size, at) for size in (1, 55, 56, 1023, 1024, 1025, 2050) for at in range(16)]
    shapes += [(size, at) for size in (BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5) for at in (0, 1, 6)]
    tensors, expected = {}, {}
    for size, at in [*shapes, (place.scaled(64 * MIB + 1), 3)]:
        bytes_there = torch.randint(0, 256, ((at + size + 15) // 16 * 16,), dtype=torch.uint8)
        name = f"[{at}:][:{size}]"
        expected[name] = root(bytes_there[at : at + size])
        tensors[name] = bytes_there.to(place.device)[at : at + size]
    for name, tensor in tensors.items():
        notes.same(f"alone: {name}", roots_of(counterfoil.commit_tensors({"x": tensor}))["x"], expected[name])
    found = roots_of(counterfoil.commit_tensors(tensors))
    for name in tensors:
        notes.same(f"together: {name}", found[name], expected[name])
