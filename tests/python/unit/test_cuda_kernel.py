"""The CUDA kernel, compiled for the CPU, against hashlib; and that these tests would see its bugs.

What this compiles is the source of the PTX that is shipped. The PTX itself is executed in
test_cuda_ptx.py, and on a GPU by `make gpu`.
"""

import faulthandler
import hashlib
import os
import random
import signal
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import counterfoil
import host_kernel
from buffers import EDGES, POOL, Case, root_of
from counterfoil import _native
from counterfoil.errors import InvalidInput
from oracle import CHUNK

KERNEL = host_kernel.KERNEL.read_text()
BLOCK = 256 * CHUNK


def roots(launch: host_kernel.Launch, tensors: Sequence[np.ndarray]) -> list[bytes]:
    """What a device would answer, in memory that holds something else before."""
    plan = _native.CudaPlan([tensor.size for tensor in tensors])
    memory = np.full(plan.size + 31, 0xCC, np.uint8)
    memory = memory[-memory.ctypes.data % 32 :][: plan.size]
    table, launches = plan.launches([tensor.ctypes.data for tensor in tensors], memory.ctypes.data)
    memory[: len(table)] = np.frombuffer(table, np.uint8)
    launch(launches)
    return plan.roots(memory[plan.size - plan.roots_size :].tobytes())


def wrong(launch: host_kernel.Launch, cases: Sequence[Case]) -> list[int]:
    """Sizes of the runs of bytes whose roots are not what hashlib says; they go in batches."""
    chosen, rest, found = random.Random(4), list(cases), []
    while rest:
        count = chosen.choice([1, 2, 3, 30, 200])
        batch, rest = rest[:count], rest[count:]
        answers = roots(launch, [case.data for case in batch])
        found += [case.data.size for case, answer in zip(batch, answers, strict=True) if case.root != answer]
    return found


def test_random_bytes_at_any_alignment_in_launches_of_many(
    compiled: host_kernel.Launch, cases: list[Case]
) -> None:
    """A wrong shift, padding, promotion of an odd digest, or a block given to its neighbour's tensor."""
    assert len(cases) > 5000
    assert wrong(compiled, cases) == []


def test_no_page_is_touched_that_holds_nothing_of_a_tensor(
    compiled: host_kernel.Launch, bordering: list[Case]
) -> None:
    """Vectors reach over a tensor's ends; on a device such a load can lie in nobody's memory."""
    assert wrong(compiled, bordering) == []


def test_one_two_and_three_launches(compiled: host_kernel.Launch) -> None:
    """Where a level ends: 256 chunks are one block, 512 blocks one of the next launch."""
    sizes = [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 511 * BLOCK + 1, 512 * BLOCK, 512 * BLOCK + 1]
    whole = np.resize(POOL, max(sizes))
    whole[::5001] ^= np.resize(np.arange(251, dtype=np.uint8), len(range(0, max(sizes), 5001)))
    tensors = [whole[:size] for size in sizes]
    launches = [len(_native.CudaPlan([size]).launches([0], 0)[1]) for size in sizes]
    assert launches == [1, 1, 2, 2, 2, 2, 3]
    assert roots(compiled, tensors) == [counterfoil.commit_bytes(tensor).root for tensor in tensors]
    assert roots(compiled, tensors[:2]) == [root_of(tensor) for tensor in tensors[:2]]


def test_empty_tensors_and_none_at_all(compiled: host_kernel.Launch) -> None:
    """The root of nothing is that of no bytes (RFC 9162), and shifts nobody else's."""
    nothing = hashlib.sha256(b"").digest()
    assert roots(compiled, []) == []
    assert roots(compiled, [POOL[:0]]) == [nothing]
    tensors = [POOL[:0], POOL[:5], POOL[:0], POOL[: 3 * BLOCK], POOL[:0]]
    assert roots(compiled, tensors) == [root_of(tensor) for tensor in tensors]


def test_positions_beyond_32_bits(compiled: host_kernel.Launch) -> None:
    """The block that begins at byte 2^40 of a tensor reads there, not 2^40 modulo 2^32 bytes on."""
    block = (1 << 40) // BLOCK
    start = POOL.ctypes.data - (1 << 40)
    segment = np.array([start, (1 << 40) + 5 * CHUNK, 0], np.uint64)
    digests = np.full(48, 0xCC, np.uint8)
    digests = digests[-digests.ctypes.data % 16 :][:32]
    compiled([(block + 1, segment.ctypes.data, 1, 0, digests.ctypes.data - 32 * block)], first=block)
    assert digests.tobytes() == root_of(POOL[: 5 * CHUNK])


def test_more_than_a_launch_can_take_is_refused() -> None:
    """A grid has fewer than 2^31 blocks; more would come back as an error of the driver, or wrap."""
    largest = (2**31 - 1) * BLOCK
    assert _native.CudaPlan([largest]).size > 0
    for lengths in ([largest + 1], [largest, 1], [2**64 - 1] * 3):
        with pytest.raises(InvalidInput, match="too many bytes"):
            _native.CudaPlan(lengths)


MUTANTS = {
    "one bit of a round constant": ("0x19a4c116", "0x19a4c117"),
    "one bit of the initial state": ("0x510e527f", "0x510e527e"),
    "a rotation by one more": ("rotate(e, 25)", "rotate(e, 26)"),
    "one bit of the padding": ("? 0x80u : 0", "? 0x81u : 0"),
    "the length of the message": ("words[15] = 8 * size", "words[15] = 8 * length"),
    "the mask of the last bytes": ("count - 4 * i : 0", "count - 4 * i : 8"),
    "the vector in which the message ends": ("const u32 end = lead + size, count", "const u32 end = lead + size - 1, count"),
    "the first block of the copy": ("(last == 0 ? 0 : last - 1) / 4", "last / 4"),
    "the shift of unaligned tensors": ("0x1111 * (lead % 4)", "0x1111 * (lead % 2)"),
    "the words of unaligned tensors": ("u32 i = lead / 4; i < 3", "u32 i = lead / 4; i < 2"),
    "the domain of a leaf": ("LEAF = 0, NODE = 1", "LEAF = 2, NODE = 1"),
    "the segment search at its border": ("first_block <= block", "first_block < block"),
    "the segment search in its half": ("count -= half;", "count -= half + 1;"),
    "the promotion of an odd digest": ("length == 32", "length == 31"),
    "the end of the tensor": ("thread + 1 < width ? chunk", "thread < width ? chunk"),
}  # fmt: skip


def exit_code(launch: host_kernel.Launch, cases: Sequence[Case]) -> int:
    """0 if a child finds all roots right, 1 if not, -n if signal n ended it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which end here
        child = os.fork()
    if child == 0:
        faulthandler.disable()
        signal.alarm(60)
        os._exit(bool(wrong(launch, cases)))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def mutant(folder: Path, before: str, after: str) -> host_kernel.Launch:
    if host_kernel.COMPILER is None:
        pytest.skip("there is no C++ compiler here to compile the CUDA kernel with")
    assert KERNEL.count(before) == 1
    return host_kernel.compile_kernel(folder, KERNEL.replace(before, after))


@pytest.mark.parametrize("change", MUTANTS)
def test_a_change_of_the_kernel_is_seen(tmp_path: Path, cases: list[Case], change: str) -> None:
    """Each of these bugs would pass if nobody looked there."""
    assert exit_code(mutant(tmp_path, *MUTANTS[change]), cases[:1500]) in (1, -signal.SIGSEGV)


def test_a_load_before_a_tensor_is_seen(tmp_path: Path, bordering: list[Case]) -> None:
    """The test of forbidden pages means something: without its guard the kernel does not survive it."""
    unguarded = mutant(tmp_path, "(index > 0 || lead < 15)", "(index > 0 || lead < 16)")
    assert exit_code(unguarded, bordering) == -signal.SIGSEGV


@pytest.mark.parametrize("size", EDGES)
def test_all_alignments_of_short_tensors(compiled: host_kernel.Launch, size: int) -> None:
    """Sixteen ways to lie in a vector, times four in a word."""
    tensors = [POOL[start : start + size] for start in range(16)]
    assert roots(compiled, tensors) == [root_of(tensor) for tensor in tensors]


def test_the_ptx_belongs_to_the_source() -> None:
    """A kernel that was changed and not compiled anew: `make ptx` was forgotten."""
    digest = hashlib.sha256(host_kernel.KERNEL.read_bytes()).hexdigest()
    first = host_kernel.KERNEL.with_suffix(".ptx").read_text().splitlines()[0]
    assert first.startswith(f"// reduce.cu sha256:{digest} NVRTC 11.8.89 ")
