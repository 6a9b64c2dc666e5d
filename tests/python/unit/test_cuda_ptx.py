"""The PTX that users run on their GPUs, run here by an interpreter: its roots are those of the library."""

import re
import struct

import pytest

import oracle
from counterfoil import commit_bytes
from oracle import CHUNK, sha256
from ptx import Fault, Kernel, Memory, Unsupported

PTX = (oracle.ROOT / "src/commit/cuda/reduce.ptx").read_text(encoding="utf-8")
KERNEL = Kernel(PTX, "counterfoil_reduce")
THREADS = 256
DIGEST = 32
# Bytes that a block turns into one digest, of tensors and of digests.
SPAN, NODE_SPAN = THREADS * CHUNK, THREADS * 2 * DIGEST
# Within a vector of 16 bytes, and around the ends of SHA-256's blocks and of the room for padding there.
SHORT = [1, 2, 7, 13, *range(54, 58), *range(62, 67), *range(118, 122)]


def some(size: int) -> bytes:
    return b"".join(sha256(struct.pack("<QQ", size, i)) for i in range(-(-size // 32)))[:size]


def launch(
    memory: Memory, runs: list[tuple[int, int]], domain: int, kernel: Kernel = KERNEL
) -> list[tuple[int, int]]:
    """One launch over runs of bytes; the runs of digests that it leaves."""
    span, blocks, rows = (SPAN, NODE_SPAN)[domain], 0, []
    for address, length in runs:
        rows.append((address, length, blocks))
        blocks += -(-length // span)
    table = memory.place(b"".join(struct.pack("<QQQ", *row) for row in rows))
    digests = memory.room(DIGEST * blocks)
    kernel.launch(range(blocks), THREADS, [table, len(rows), domain, digests], memory)
    return [(digests + DIGEST * first, DIGEST * -(-length // span)) for _, length, first in rows]


def roots(tensors: list[tuple[bytes, int]], kernel: Kernel = KERNEL) -> list[bytes]:
    """Roots of tensors, each at a place behind a multiple of 32, by as many launches as it takes."""
    memory = Memory(sum(len(data) + 512 for data, _ in tensors) + 4096)
    runs = launch(memory, [(memory.place(data, lead), len(data)) for data, lead in tensors], 0, kernel)
    while any(length > DIGEST for _, length in runs):
        runs = launch(memory, runs, 1, kernel)
    return [memory.read(address, DIGEST) for address, _ in runs]


def expected(tensors: list[tuple[bytes, int]]) -> list[bytes]:
    return [commit_bytes(data).root for data, _ in tensors]


# Roots.


@pytest.mark.parametrize("lead", range(16))
def test_short_tensors_of_any_alignment(lead: int) -> None:
    """Catches a wrong selector, padding at the wrong byte, and vectors read that hold no byte of a tensor."""
    tensors = [(some(size), lead) for size in SHORT]
    assert roots(tensors) == expected(tensors)


@pytest.mark.parametrize(
    ("size", "lead"),
    [
        *zip(range(1022, 1027), (0, 15, 1, 7, 2), strict=True),
        *zip(range(2047, 2050), (0, 9, 16), strict=True),
        *((3 * CHUNK, 0), (3 * CHUNK + 5, 4), (5 * CHUNK, 13), (6 * CHUNK + 1, 8), (7 * CHUNK, 31)),
    ],
)
def test_tensors_of_a_few_chunks(size: int, lead: int) -> None:
    """Catches a wrong last chunk, and digests without a sibling that are hashed, or lost, on the way up."""
    assert roots([(some(size), lead)]) == [commit_bytes(some(size)).root]


@pytest.mark.parametrize(
    ("size", "lead"),
    [
        (255 * CHUNK + 1, 0),
        (256 * CHUNK, 3),
        (256 * CHUNK + 1, 16),
        (300 * CHUNK + 7, 15),
    ],
)
def test_tensors_that_fill_a_block_or_more(size: int, lead: int) -> None:
    """Catches levels that overwrite each other, and a block that begins at the wrong chunk."""
    assert roots([(some(size), lead)]) == [commit_bytes(some(size)).root]


def test_tensors_of_one_launch() -> None:
    """Catches a search that misses segments of one block between those of several, at either end too."""
    tensors = [(some(size), size % 16) for size in (1, SPAN + 1, 33, 1, 2 * SPAN + 5, 2000)]
    assert roots(tensors) == expected(tensors)


def test_any_number_of_segments() -> None:
    """Catches a search that ends early for some number of segments."""
    for count in range(1, 10):
        tensors = [(some(11 * count + i), i) for i in range(count)]
        assert roots(tensors) == expected(tensors)


def test_digests_of_many_blocks() -> None:
    """Catches later launches that mistake a node for a leaf, or one digest for the child of a node."""

    def root(digests: list[bytes]) -> bytes:
        while len(digests) > 1:
            pairs = [digests[i : i + 2] for i in range(0, len(digests), 2)]
            digests = [sha256(b"\x01" + b"".join(pair)) if len(pair) == 2 else pair[0] for pair in pairs]
        return digests[0]

    memory = Memory(1 << 17)
    counts = [1, 2, 3, 257, 1, 511, 512, 513]
    digests = [[sha256(bytes([count % 251, i % 251, i // 251])) for i in range(count)] for count in counts]
    runs = launch(memory, [(memory.place(b"".join(own)), DIGEST * len(own)) for own in digests], 1)
    assert [length // DIGEST for _, length in runs] == [1, 1, 1, 1, 1, 1, 1, 2]
    runs = launch(memory, runs, 1)
    assert [memory.read(address, DIGEST) for address, _ in runs] == [root(own) for own in digests]


@pytest.mark.parametrize("block", [1 << 14, 2**31 - 2])
def test_blocks_far_into_a_tensor(block: int) -> None:
    """Catches an offset or a block's number that is computed in 32 bits: it lies in no region."""
    memory, data, begin = Memory(1 << 14), some(2 * CHUNK + 77), (block - 1) * SPAN
    address = (memory.place(data, 5) - begin) % 2**64
    table = memory.place(struct.pack("<6Q", 0, 1, 0, address, begin + len(data), 1))
    digest = memory.room(DIGEST)
    KERNEL.launch(range(block, block + 1), THREADS, [table, 2, 0, digest - DIGEST * block], memory)
    assert memory.read(digest, DIGEST) == commit_bytes(data).root


# Mutants: what the tests above would miss, they miss here.

ROUNDS = {0x71374491: "1", 0x2DE92C6F: "20", 0xC67178F2: "63"}
OTHER = {"lt": "le", "le": "lt", "gt": "ge", "ge": "gt"}
# A branch around the load of a vector.
AROUND = r"@%p\d+ bra\s+\S+;(?=[^:]*?ld\.v4)(?![^:]*?\bbra\b[^:]*?ld\.v4)"


def signed(word: int) -> int:
    return word - (word >> 31 << 32)


MUTANTS = {
    **{
        f"constant of round {i}": (rf"(add\.s32\s+%\w+, %\w+, ){signed(word)};", rf"\g<1>{signed(word ^ 1)};")
        for word, i in ROUNDS.items()
    },
    "initial state": (rf", {signed(0xA54FF53A)};", f", {signed(0xA54FF53B)};"),
    "rotation": (r"(shf\.l\.wrap\.b32\s+%\w+, (%\w+), \2, )26;", r"\g<1>27;"),
    "shift that wraps": (r"shf\.l\.clamp", "shf.l.wrap"),
    "selector of a digest's bytes": (rf"(mov\.u32\s+%\w+, ){0x0123};", rf"\g<1>{0x0132};"),
    "selector of a message's bytes": (rf", {0x1111}, {0x0123};", rf", {0x1111}, {0x0122};"),
    "domain": (r"(shl\.b32\s+%\w+, %\w+, )24;", r"\g<1>25;"),
    "digest without a sibling": (r"(setp\.\w+\.[su]32\s+%\w+, %\w+, )32;", r"\g<1>33;"),
    "segment that begins here": (
        r"(\+16\];\s+setp\.)(gt|ge|lt|le)(?=\.u64)",
        lambda found: found[1] + OTHER[found[2]],
    ),
    "no barrier": (r"bar\.sync\s+0;", ""),
    "levels in one place": (r"(and\.b32\s+%\w+, %\w+, )512;", r"\g<1>0;"),
    "vectors beside a tensor": (AROUND, ""),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_found(name: str) -> None:
    """The interpreter tells the shipped PTX from one with a bug."""
    pattern, replacement = MUTANTS[name]
    mutant, count = re.subn(pattern, replacement, PTX)
    assert count, f"no {name} in the PTX"
    tensors = [(some(3 * CHUNK), 0), (some(62), 1), (some(121), 16), (some(30), 6)]
    try:
        found = roots(tensors, Kernel(mutant, "counterfoil_reduce"))
    except Fault:
        return
    assert found != expected(tensors)


# The interpreter itself.

SMALL = """
.version 7.8
.target sm_75
.address_size 64
.const .align 4 .b8 TABLE[4] = {1, 2, 3, 4};
.visible .entry small(
	.param .u64 out
)
.maxntid 256, 1, 1
{
	.local .align 16 .b8 	frame[32];
	.reg .pred 	%p<4>;
	.reg .b32 	%r<8>;
	.reg .b64 	%rd<8>;
	.shared .align 16 .b8 row[1024];
	ld.param.u64 	%rd0, [out];
	mov.u32 	%r7, %tid.x;
	xor.b32 	%r6, %r7, %r7;
	cvt.u64.u32 	%rd6, %r6;
	mul.wide.u32 	%rd7, %r7, 4;
	mov.u64 	%rd2, row;
	add.s64 	%rd2, %rd2, %rd7;
BODY
	ret;

}
"""


def run(body: str, threads: int = 1) -> bytes:
    """The 8 bytes that the only thread stores at %rd0, or the first of several."""
    memory = Memory(1024)
    out = memory.room(8)
    Kernel(SMALL.replace("BODY", body), "small").launch(range(1), threads, [out], memory)
    return memory.read(out, 8)


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        ("shf.l.wrap.b32 -1985229329 19088743 8", 0x23456789),
        ("shf.l.wrap.b32 -1985229329 19088743 0", 0x01234567),
        ("shf.l.wrap.b32 -1985229329 19088743 32", 0x01234567),
        ("shf.l.wrap.b32 -1985229329 19088743 33", 0x02468ACF),
        ("shf.l.clamp.b32 -1985229329 19088743 31", 0xC4D5E6F7),
        ("shf.l.clamp.b32 -1985229329 19088743 32", 0x89ABCDEF),
        ("shf.l.clamp.b32 -1985229329 19088743 33", 0x89ABCDEF),
        ("shl.b32 -1 31", 0x80000000),
        ("shl.b32 -1 32", 0),
        ("shl.b32 -1 -1", 0),
        ("shr.u32 -1 31", 1),
        ("shr.u32 -1 33", 0),
        (f"prmt.b32 {0x03020100} {0x07060504} {0x7531}", 0x07050301),
        (f"prmt.b32 {0x000080FF} {0x7F000080} {0xC98F}", 0xFFFFFF00),
        ("mad.lo.s32 65537 65537 -1", 0x00020000),
        ("sub.s32 1 2", 0xFFFFFFFF),
        ("not.b32 1", 0xFFFFFFFE),
    ],
)
def test_instructions(operation: str, result: int) -> None:
    """Results that the PTX ISA defines, for numbers and for registers."""
    opcode, *operands = operation.split()
    registers = [f"%r{i + 1}" for i in range(len(operands))]
    fill = "".join(f"add.s32 {x}, %r6, {y};" for x, y in zip(registers, operands, strict=True))
    store = "setp.eq.u32 %p0, %r7, 0; @%p0 st.global.v2.u32 [%rd0], {%r0, %r6};"
    assert run(f"{opcode} %r0, {', '.join(operands)}; {store}") == struct.pack("<Q", result)
    assert run(f"{fill} {opcode} %r0, {', '.join(registers)}; {store}", 2) == struct.pack("<Q", result)


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ("mul.wide.u32 %rd1, -1, -1;", 0xFFFFFFFE00000001),
        ("add.s64 %rd3, %rd6, -1; shl.b64 %rd1, %rd3, 63;", 1 << 63),
        ("shl.b64 %rd1, -1, 64;", 0),
        ("mov.u64 %rd3, -1; cvt.u32.u64 %r1, %rd3; cvt.u64.u32 %rd1, %r1;", 0xFFFFFFFF),
        ("setp.gt.u32 %p1, -1, 1; selp.b64 %rd1, 5, 6, %p1;", 5),
        ("setp.lt.u64 %p1, -1, 1; not.pred %p2, %p1; and.pred %p3, %p1, %p2; selp.b64 %rd1, 5, 6, %p3;", 6),
        ("mov.u64 %rd1, 7; setp.ne.s32 %p1, %r7, 0; @%p1 mov.u64 %rd1, 8;", 7),
        ("mov.u64 %rd1, 7; setp.ne.s32 %p1, %r7, 0; @!%p1 mov.u64 %rd1, 8;", 8),
        ("mov.u64 %rd1, TABLE; ld.const.u32 %r1, [%rd1]; cvt.u64.u32 %rd1, %r1;", 0x04030201),
        (
            "st.shared.u32 [%rd2], 9; cvta.shared.u64 %rd3, %rd2; ld.u32 %r1, [%rd3]; mul.wide.u32 %rd1, %r1, 1;",
            9,
        ),
        (
            "mov.u64 %rd3, frame; cvta.local.u64 %rd4, %rd3; st.u64 [%rd4+8], 3; ld.local.u64 %rd1, [%rd3+8];",
            3,
        ),
    ],
)
def test_instructions_of_64_bits(body: str, result: int) -> None:
    assert run(f"{body} st.global.u64 [%rd0], %rd1;") == struct.pack("<Q", result)


def test_threads_part_and_meet() -> None:
    """A loop that each thread leaves in another turn, then a barrier behind which each reads another's word."""
    loop = "mov.u32 %r1, 0; $again: add.s32 %r1, %r1, 2; setp.lt.u32 %p1, %r1, %r7; @%p1 bra $again;"
    meet = "st.shared.u32 [%rd2], %r1; bar.sync 0; setp.ne.s32 %p2, %r7, 0; @%p2 bra $end;"
    read = "ld.shared.v2.u32 {%r2, %r3}, [%rd2+24]; st.global.v2.u32 [%rd0], {%r2, %r3};"
    assert run(f"{loop} {meet} {read} $end:", 9) == struct.pack("<2I", 6, 8)


@pytest.mark.parametrize(
    "body",
    [
        *("shf.r.wrap.b32 %r0, 1, 2, 3;", "prmt.b32.f4e %r0, 1, 2, 3;", "add.sat.s32 %r0, 1, 2;", "frob;"),
        *("setp.lt.s32 %p0, 1, 2;", "setp.eq.and.u32 %p0, 1, 2, %p1;", "mul.hi.u32 %r0, 1, 2;", "trap;"),
        *("ld.volatile.u32 %r0, [%rd0];", "ld.global.nc.u32 %r0, [%rd0];", "ld.v2.u32 %r0, [%rd0];"),
        *("ld.v4.u64 {%rd1, %rd2, %rd3, %rd4}, [%rd0];", "mov.u64 %rd1, [out];", "ld.param.u64 %rd1, %rd0;"),
        *("ld.u32 %r0, [%rd0+%r1];", "ld.u32 %r0, %rd0;", "ld.u32 %rd1, [%rd0];", "st.u32 [%r0], 1;"),
        *("mov.u32 %r0, %laneid;", "mov.u32 %r0, %r99;", "mov.u32 %r0, 1.5;", "mov.u32 %rd0, 1;"),
        *("mov.u32 1, 1;", "mov.u32 %tid.x, 1;", "add.s32 %r0, %r1;", "add.s32 %r0, {%r1}, 1;"),
        *("bar.sync 1;", "@%p0 bar.sync 0;", "@%r0 bra $x; $x:", "bra $nowhere;", ".reg .f32 %f0;"),
        *('.pragma "other";', ".shared .align 4 .u32 word;"),
    ],
)
def test_what_the_interpreter_does_not_know_is_refused(body: str) -> None:
    """Nothing in a kernel is passed over."""
    with pytest.raises(Unsupported):
        run(body)


@pytest.mark.parametrize(
    ("known", "unknown"),
    [
        *((".const", ".weak .const"), (".address_size 64", ".address_size 32"), (".maxntid", ".reqntid")),
        *((".u64 out", ".f64 out"), ("\tret;", ""), (".entry small", ".entry other"), ("3, 4}", "3, x}")),
    ],
)
def test_modules_that_the_interpreter_does_not_know_are_refused(known: str, unknown: str) -> None:
    with pytest.raises(Unsupported):
        Kernel(SMALL.replace("BODY", "").replace(known, unknown), "small")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("ld.global.u64 %rd1, [%rd0];", "never written"),
        ("ld.shared.u32 %r0, [%rd2];", "never written"),
        ("st.global.u64 [%rd0+8], 1;", "store outside every region"),
        ("st.shared.u32 [%rd2+1024], 1;", "access of 4 bytes outside every region"),
        ("mov.u64 %rd1, frame; st.local.u32 [%rd1+32], 1;", "access of 4 bytes outside every region"),
        ("ld.u32 %r0, [%rd2];", "access of 4 bytes outside every region, at 0x"),
        ("st.global.u32 [%rd0+2], 1;", "misaligned access of 4 bytes"),
        ("st.shared.u32 [%rd2], 1; ld.shared.v2.u32 {%r1, %r2}, [%rd2];", "misaligned|load races a store"),
        ("mov.u64 %rd1, row; st.shared.u32 [%rd1], 1;", "store races another thread"),
        ("mov.u64 %rd1, TABLE; ld.const.u32 %r1, [%rd1]; st.const.u32 [%rd1], 1;", "store outside"),
        ("setp.eq.u32 %p1, %r7, 0; @%p1 bra $x; bar.sync 0; $x:", "not all threads reach"),
        ("setp.eq.u32 %p1, %r7, 0; @%p1 bra $x; bar.sync 0; ret; $x: bar.sync 0;", "not all threads reach"),
        ("$x: bra $x;", "no end"),
    ],
)
def test_what_a_gpu_leaves_to_chance_is_a_fault(body: str, fault: str) -> None:
    """The faults that the tests above rely on are seen."""
    with pytest.raises(Fault, match=fault):
        run(body, 2)


def test_loads_take_along_only_their_own_vector() -> None:
    """An aligned load of 16 bytes may pass the ends of a region whose bytes it loads; no other may."""
    memory = Memory(1024)
    address = memory.place(b"x" * 20, 8)
    for body, fine in [
        ("ld.v4.u32 {%r0, %r1, %r2, %r3}, [%rd0+-8];", True),
        ("ld.v4.u32 {%r0, %r1, %r2, %r3}, [%rd0+8];", True),
        ("ld.v4.u32 {%r0, %r1, %r2, %r3}, [%rd0+24];", False),
        ("ld.v4.u32 {%r0, %r1, %r2, %r3}, [%rd0+-24];", False),
        ("ld.v2.u32 {%r0, %r1}, [%rd0+-8];", False),
        ("ld.u32 %r0, [%rd0+20];", False),
    ]:
        kernel = Kernel(SMALL.replace("BODY", body), "small")
        if fine:
            kernel.launch(range(1), 1, [address], memory)
        else:
            with pytest.raises(Fault):
                kernel.launch(range(1), 1, [address], memory)
