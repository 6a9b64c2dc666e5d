"""An interpreter of PTX, for tests: it runs a kernel's text without a GPU.

Instructions do what the PTX ISA defines. One that is not known here, or a modifier or operand of it, raises
`Unsupported`; what a GPU would leave to chance raises `Fault`: bytes outside every region, bytes that were
never written, misaligned addresses, races between two barriers, barriers that some threads do not reach.
Registers begin with random bits.

The threads of a block go together: a register is an array with an entry for each of them, or with one entry
where all have the same value. Of several places that threads have come to, those at the first one go on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from operator import add, and_, eq, ge, gt, invert, le, lt, mul, ne, or_, pos, sub, xor
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

DTYPE = {1: np.dtype(np.bool_), 32: np.dtype(np.uint32), 64: np.dtype(np.uint64)}
# Where the windows of shared and local memory lie among the generic addresses.
WINDOWS = {"shared": 0x7E00_0000_0000, "local": 0x7E01_0000_0000}
WINDOW = 1 << 24
READABLE, WRITABLE, EDGE = 1, 2, 4
NOBODY, MANY = -1, -2
# Stretches of code, from one label or jump to the next, that a block of threads may run through.
ENDLESS = 20_000


class Unsupported(Exception):
    """The text holds what this interpreter does not know."""


class Fault(Exception):
    """The kernel did what has no defined result."""


def expect(fine: Array, address: Array, otherwise: str) -> None:
    """Raises if something is not fine for a thread, with that thread's address."""
    wrong = ~np.all(fine.reshape(len(address), -1), axis=1)
    if np.any(wrong):
        raise Fault(f"{otherwise}, at {int(address[wrong][0]):#x}")


class Memory:
    """All bytes that a kernel can address, and who touched them: shared, constant, local, then global ones.

    Regions of global memory lie apart, and their addresses on both sides of a multiple of 4 GiB.
    """

    BASE = 0x7F01_0000_0000 - 4096
    OWN = 1 << 18

    def __init__(self, size: int) -> None:
        # Whoever keeps a bit of a byte that holds nothing keeps one that is set.
        self.bytes = np.full(self.OWN + size, 255, np.uint8)
        self.state = np.zeros(len(self.bytes), np.uint8)
        self.reader, self.writer = np.full((2, len(self.bytes)), NOBODY)
        self._end = self.OWN + 64

    def place(self, data: bytes, lead: int = 0) -> int:
        """The address of a new region that holds `data`, `lead` bytes behind a multiple of 32."""
        at = self._region(lead, len(data))
        # An aligned load of 16 bytes may take along what surrounds the region.
        self.state[at.start // 16 * 16 : -(-at.stop // 16) * 16] = EDGE
        self.bytes[at], self.state[at] = np.frombuffer(data, np.uint8), READABLE
        return self.BASE + int(at.start) - self.OWN

    def room(self, size: int) -> int:
        """The address of a new region that may be written."""
        at = self._region(0, size)
        self.state[at] = WRITABLE
        return self.BASE + int(at.start) - self.OWN

    def read(self, address: int, size: int) -> bytes:
        """What a region holds; all of it must have been written."""
        at = slice(address - self.BASE + self.OWN, address - self.BASE + self.OWN + size)
        if not (self.state[at] & READABLE).all():
            raise Fault(f"of {size} bytes at {address:#x} not all were written")
        return self.bytes[at].tobytes()

    def _region(self, lead: int, size: int) -> slice:
        at = slice(self._end + lead, self._end + lead + size)
        self._end = -(-at.stop // 32) * 32 + 64
        if self._end > len(self.bytes):
            raise ValueError("memory is full")
        return at

    def settle(self, end: int | None) -> None:
        """Forgets who touched what before `end`: a kernel's own memory at a barrier, all before a launch."""
        self.reader[:end] = self.writer[:end] = NOBODY

    def load(self, address: Array, at: Array, thread: Array) -> Array:
        """Bytes, each thread's in a row; `address` is for messages."""
        state, writer, reader = self.state[at], self.writer[at], self.reader[at]
        known = state & READABLE > 0
        beside = (state & EDGE > 0) & (at.shape[1] == 16) & known.any(axis=1, keepdims=True)
        expect(known | beside, address, "load outside every region, or of what was never written")
        expect((writer == NOBODY) | (writer == thread), address, "load races a store")
        self.reader[at] = np.where((reader == NOBODY) | (reader == thread), thread, MANY)
        self.reader[at[self.reader[at] != thread]] = MANY
        return self.bytes[at]

    def store(self, address: Array, at: Array, thread: Array, values: Array) -> None:
        expect(self.state[at] & WRITABLE > 0, address, "store outside every region")
        for touched in (self.reader[at], self.writer[at]):
            expect((touched == NOBODY) | (touched == thread), address, "store races another thread")
        self.writer[at] = thread
        expect(self.writer[at] == thread, address, "store races another thread")
        self.bytes[at], self.state[at] = values, READABLE | WRITABLE


def u32(word: Array) -> Array:
    return word.astype(np.uint32)


def u64(word: Array) -> Array:
    return word.astype(np.uint64)


def shift(by: Callable[..., Array], word: Array, count: Array) -> Array:
    """Counts of the register's width and more give 0."""
    bits = 8 * word.itemsize
    return np.where(count < bits, by(word, (count % bits).astype(word.dtype)), word.dtype.type(0))


def shf_l(low: Array, high: Array, count: Array) -> Array:
    """The upper half of `high:low` shifted left by at most 32."""
    if count.size == 1 and 0 < count[0] < 32:
        return np.asarray(high << count | low >> 32 - count)
    return u32((u64(high) << 32 | low) << u64(count) >> 32)


def prmt(low: Array, high: Array, selector: Array) -> Array:
    """A nibble of the selector names a byte of `high:low`; its upper bit asks for that byte's sign instead."""
    place = np.array([[0], [4], [8], [12]], np.uint64)
    nibble = selector >> place & 15
    byte = (u64(high) << 32 | low) >> 8 * (nibble & 7) & 255
    byte = np.where(nibble < 8, byte, (byte >> 7) * 255)
    return u32(np.bitwise_or.reduce(byte << 2 * place, axis=0))


# For each opcode the widths of its result and of its operands, 1 for predicates, and what it computes.
OPCODES: dict[str, tuple[tuple[int, ...], Callable[..., Any]]] = {
    "mul.wide.u32": ((64, 32, 32), lambda a, b: u64(a) * u64(b)),
    "shf.l.wrap.b32": ((32, 32, 32, 32), lambda a, b, c: shf_l(a, b, c & 31)),
    "shf.l.clamp.b32": ((32, 32, 32, 32), lambda a, b, c: shf_l(a, b, np.minimum(c, 32))),
    "prmt.b32": ((32, 32, 32, 32), prmt),
    "cvt.u64.u32": ((64, 32), u64),
    "cvt.u32.u64": ((32, 64), u32),
    "cvta.to.global.u64": ((64, 64), pos),
    "cvta.shared.u64": ((64, 64), lambda a: a + WINDOWS["shared"]),
    "cvta.local.u64": ((64, 64), lambda a: a + WINDOWS["local"]),
}
for n in (32, 64):
    for sign in "us":
        OPCODES |= {f"add.{sign}{n}": ((n, n, n), add), f"sub.{sign}{n}": ((n, n, n), sub)}
        OPCODES |= {f"mul.lo.{sign}{n}": ((n, n, n), mul)}
        OPCODES |= {f"mad.lo.{sign}{n}": ((n, n, n, n), lambda a, b, c: a * b + c)}
        OPCODES |= {f"setp.{f.__name__}.{sign}{n}": ((1, n, n), f) for f in (eq, ne)}
    OPCODES |= {f"setp.{f.__name__}.u{n}": ((1, n, n), f) for f in (lt, le, gt, ge)}
    OPCODES |= {f"shl.b{n}": ((n, n, 32), lambda a, b: shift(np.left_shift, a, b))}
    OPCODES |= {f"shr.u{n}": ((n, n, 32), lambda a, b: shift(np.right_shift, a, b))}
    OPCODES |= {f"mov.u{n}": ((n, n), pos), f"ld.param.u{n}": ((n, n), pos)}
    OPCODES |= {f"selp.b{n}": ((n, n, n, 1), lambda a, b, c: np.where(c, a, b))}
for kind, n in (("pred", 1), ("b32", 32), ("b64", 64)):
    OPCODES |= {f"and.{kind}": ((n, n, n), and_), f"or.{kind}": ((n, n, n), or_)}
    OPCODES |= {f"xor.{kind}": ((n, n, n), xor), f"not.{kind}": ((n, n), invert)}
JUMPS = ("bra", "ret", "bar.sync")
# Where returning threads go.
END = "the end"
ACCESS = r"(ld|st)(?:\.(global|shared|local|const))?(\.v[24])?\.u(32|64)"


class Instruction(NamedTuple):
    """Its operands are names whose values a block of threads has; that of a jump is a label."""

    name: str
    guard: str
    targets: Sequence[str] = ()
    sources: Sequence[str] = ()
    compute: Callable[..., Any] | None = None
    # Of a load or store, whose first two sources make its address.
    space: str = ""
    width: int = 0


class Kernel:
    """An entry of a PTX module."""

    def __init__(self, text: str, name: str) -> None:
        text = re.sub(r"//.*", "", text)
        entry = re.search(rf"\.visible \.entry {name}\(([^)]*)\)([^{{]*)\{{(.*?)\n\}}", text, re.DOTALL)
        if entry is None:
            raise Unsupported(f"no entry {name}")
        # Widths of registers, and of what is only read: parameters, numbers and addresses, these with values.
        self.registers: dict[str, int] = {}
        self.parameters = {
            f"[{p[2]}]": int(p[1]) for p in accounted(r"\.param \.u(32|64) (\w+),?\s", entry[1])
        }
        self._constant = {"%tid.x": 32, "%ctaid.x": 32, **self.parameters}
        self.values: dict[str, Array] = {}
        # Bytes of variables by space; global ones can be declared, but not used.
        self.sizes = {"shared": 0, "const": 0, "local": 0}
        self.tables: list[tuple[int, bytes]] = []
        known = r"\.version [\d.]+\s|\.target sm_\d+\s|\.address_size 64\s|\.global [^;{]*;"
        for found in accounted(known + r"|\.const ([^;=]*)= \{([\d, ]*)\};", text.replace(entry[0], "")):
            if found[1]:
                self.tables.append((self._variable("const", found[1]), bytes(map(int, found[2].split(",")))))
        limits = accounted(r"\.maxntid (\d+), 1, 1\s|\.minnctapersm \d+\s", entry[2])
        self.most_threads = max(int(limit[1] or 0) for limit in limits)
        self.code: list[Instruction] = []
        self.labels: dict[str, int] = {}
        for statement in filter(None, map(str.strip, entry[3].replace(":", ":;").split(";"))):
            try:
                self._statement(statement)
            except (KeyError, ValueError) as error:
                raise Unsupported(statement) from error
        if self.code[-1].name not in ("ret", "bra") or self.code[-1].guard:
            raise Unsupported("an entry that does not end with ret or bra")
        self.labels[END] = len(self.code)
        if unknown := {op.sources[0] for op in self.code if op.name == "bra"} - self.labels.keys():
            raise Unsupported(f"no label {unknown}")
        # Where stretches begin, and registers whose values some stretch takes from another or an earlier turn.
        self.leaders = {*self.labels.values()} | {i for i, op in enumerate(self.code, 1) if op.name in JUMPS}
        self.kept: set[str] = set()
        given: set[str] = set()
        for at, op in enumerate(self.code):
            given = set() if at in self.leaders else given
            self.kept |= {*op.sources, op.guard.removeprefix("!"), *(op.targets if op.guard else ())} - given
            given.update(op.targets)

    def launch(self, blocks: range, threads: int, arguments: Sequence[int], memory: Memory) -> None:
        """Runs some blocks of a launch, one after the other."""
        if threads > self.most_threads:
            raise Fault(f"{threads} threads in a block made for {self.most_threads}")
        memory.settle(None)
        for index in blocks:
            Block(self, index, threads, arguments, memory).run()

    def _variable(self, space: str, declaration: str) -> int:
        found = re.fullmatch(r"\.align (\d+) \.b8\s+(\w+)\[(\d+)\]\s*", declaration)
        if found is None:
            raise Unsupported(declaration)
        place = -(-self.sizes[space] // int(found[1])) * int(found[1])
        self._constant[found[2]], self.values[found[2]] = 64, np.array([place], np.uint64)
        self.sizes[space] = place + int(found[3])
        return place

    def _statement(self, statement: str) -> None:
        if found := re.fullmatch(r"([$\w]+):", statement):
            self.labels[found[1]] = len(self.code)
        elif found := re.fullmatch(r"\.reg \.(b32|b64|pred)\s+(%\w+)(?:<(\d+)>)?", statement):
            names = [f"{found[2]}{i}" for i in range(int(found[3]))] if found[3] else [found[2]]
            self.registers |= dict.fromkeys(names, {"pred": 1, "b32": 32, "b64": 64}[found[1]])
        elif found := re.fullmatch(r"\.(shared|local) (.*)", statement):
            self._variable(found[1], found[2])
        elif statement.split() != [".pragma", '"nounroll"']:
            found = re.fullmatch(r"(?:@(!?%\w+)\s+)?([a-z][\w.]*)\s*(.*)", statement)
            operands = re.findall(r"\{[^}]*\}|[^\s,{}]+", found[3]) if found else []
            if found is None or re.sub(r"\s", "", found[3]) != re.sub(r"\s", "", ",".join(operands)):
                raise ValueError(statement)
            if found[1]:
                self._source(found[1].removeprefix("!"), 1)
            self.code.append(self._instruction(found[2], found[1] or "", operands))

    def _instruction(self, opcode: str, guard: str, operands: list[str]) -> Instruction:
        if opcode in OPCODES:
            (width, *widths), compute = OPCODES[opcode]
            target, *sources = operands
            if any((source[0] == "[") != opcode.startswith("ld.param") for source in sources):
                raise ValueError(sources)
            sources = [self._source(*source) for source in zip(sources, widths, strict=True)]
            return Instruction(opcode, guard, self._targets([target], width), sources, compute)
        if found := re.fullmatch(ACCESS, opcode):
            words, place = operands if found[1] == "ld" else operands[::-1]
            vector = [word.strip() for word in words.strip("{}").split(",")]
            address = re.fullmatch(r"\[([%\w]+)(?:\+(-?\d+))?\]", place)
            form = f".v{len(vector)}" if words[0] == "{" else None
            if address is None or form != found[3] or len(vector) * int(found[4]) > 128:
                raise ValueError(operands)
            sources = [self._source(address[1], 64), self._source(address[2] or "0", 64)]
            if found[1] == "ld":
                targets = self._targets(vector, int(found[4]))
            else:
                targets, sources = [], sources + [self._source(word, int(found[4])) for word in vector]
            return Instruction(found[1], guard, targets, sources, None, found[2] or "generic", int(found[4]))
        if opcode in ("bra", "bra.uni") and len(operands) == 1:
            return Instruction("bra", guard, (), operands)
        if (opcode, operands) == ("ret", []):
            return Instruction("ret", guard, (), [END])
        if (opcode, operands, guard) == ("bar.sync", ["0"], ""):
            return Instruction("bar.sync", guard)
        raise ValueError(opcode)

    def _targets(self, names: list[str], width: int) -> list[str]:
        if any(self.registers[name] != width for name in names):
            raise ValueError(names)
        return names

    def _source(self, text: str, width: int) -> str:
        """The name of a register, of a parameter, of a variable's address or of a number."""
        if re.fullmatch(r"-?\d+", text):
            self.values[name := f"{text} of {width}"] = np.array([int(text, 0) % 2**width], DTYPE[width])
            return name
        if (self.registers if text in self.registers else self._constant)[text] != width:
            raise ValueError(text)
        return text


def accounted(pattern: str, text: str) -> Iterator[re.Match[str]]:
    """The matches of a pattern that must account for all of a text but its white space."""
    if rest := re.sub(pattern, "", text).strip():
        raise Unsupported(rest)
    return re.finditer(pattern, text)


class Block:
    """A block of threads that runs."""

    def __init__(
        self, kernel: Kernel, index: int, threads: int, arguments: Sequence[int], memory: Memory
    ) -> None:
        self._kernel, self._memory = kernel, memory
        self._lanes, self._threads = np.arange(threads), index * threads + np.arange(threads)[:, None]
        chosen = np.random.default_rng(index)
        random = {n: chosen.integers(0, 2**n, threads, dtype) for n, dtype in DTYPE.items()}
        self._values = {name: random[width] for name, width in kernel.registers.items()} | kernel.values
        self._values |= {"%tid.x": u32(self._lanes), "%ctaid.x": np.array([index], np.uint32)}
        for (name, width), value in zip(kernel.parameters.items(), arguments, strict=True):
            self._values[name] = np.array([value], DTYPE[width])
        # Of each space the bytes before it, its own for one thread, and those from one thread's to the next's.
        shared, const, local = kernel.sizes.values()
        self._areas = {"shared": (0, shared, 0), "const": (shared, const, 0)}
        self._areas |= {"local": (shared + const, local, local)}
        self._areas |= {"global": (memory.OWN, len(memory.bytes) - memory.OWN, 0)}
        if shared + const + local * threads > memory.OWN:
            raise Unsupported("more shared and local memory")
        memory.state[: memory.OWN] = WRITABLE
        memory.state[shared : shared + const] = 0
        for place, table in kernel.tables:
            at = slice(shared + place, shared + place + len(table))
            memory.bytes[at], memory.state[at] = np.frombuffer(table, np.uint8), READABLE
        memory.settle(memory.OWN)

    def run(self) -> None:
        """Goes on until all threads have returned."""
        at, waiting = np.zeros(len(self._lanes), np.intp), np.zeros(len(self._lanes), np.bool_)
        for _ in range(ENDLESS):
            ready = ~waiting & (at != len(self._kernel.code))
            if ready.any():
                first = int(at[ready].min())
                active = ready & (at == first)
                last, following = self._stretch(first, active)
                at = np.where(active, following, at)
                waiting |= active & (last == "bar.sync")
            elif waiting.all() and (at == at[0]).all():
                waiting[:] = False
                self._memory.settle(self._memory.OWN)
            elif waiting.any():
                raise Fault("a barrier that not all threads reach")
            else:
                return
        raise Fault("no end")

    def _stretch(self, at: int, active: Array) -> tuple[str, Array]:
        """Runs code up to a label or a jump: the last instruction, and where each thread goes on."""
        kernel, values, full = self._kernel, self._values, bool(active.all())
        while True:
            name, guard, targets, sources, compute, space, width = kernel.code[at]
            at += 1
            if guard:
                condition = values[guard.removeprefix("!")]
                guarded = active & (~condition if guard[0] == "!" else condition)
            else:
                guarded = active
            if name in JUMPS:
                return name, np.where(guarded, kernel.labels[sources[0]] if sources else at, at)
            results = []
            if compute:
                results = [compute(*[values[source] for source in sources])]
            elif targets:
                results = self._load(space, sources, guarded, len(targets), width)
            else:
                self._store(space, sources, guarded)
            for target, result in zip(targets, results, strict=True):
                if guard or (target in kernel.kept and not full):
                    result = np.where(guarded, result, values[target])
                values[target] = result
            if at in kernel.leaders:
                return name, np.array(at)

    def _load(self, space: str, sources: Sequence[str], active: Array, count: int, width: int) -> list[Array]:
        lanes, address, at = self._at(space, sources, active, count * width // 8)
        found = np.zeros((len(self._lanes), at.shape[1]), np.uint8)
        found[lanes] = self._memory.load(address, at, self._threads[lanes])
        return list(found.view(DTYPE[width]).T.copy())

    def _store(self, space: str, sources: Sequence[str], active: Array) -> None:
        words = [np.broadcast_to(self._values[source], self._lanes.shape) for source in sources[2:]]
        values = np.stack(words, axis=1).view(np.uint8)
        lanes, address, at = self._at(space, sources, active, values.shape[1])
        self._memory.store(address, at, self._threads[lanes], values[lanes])

    def _at(self, space: str, sources: Sequence[str], active: Array, size: int) -> tuple[Array, Array, Array]:
        """The active threads, their addresses, and the places of the bytes there."""
        lanes = np.flatnonzero(active)
        address = self._values[sources[0]] + self._values[sources[1]]
        address = np.broadcast_to(address, self._lanes.shape)[lanes]
        expect(address % size == 0, address, f"misaligned access of {size} bytes")
        place = self._place(space, address, lanes, size)
        expect(place >= 0, address, f"access of {size} bytes outside every region")
        return lanes, address, place[:, None] + np.arange(size)

    def _place(self, space: str, address: Array, lanes: Array, size: int) -> Array:
        """Where the bytes at an address lie; below 0 if nowhere."""
        if space == "generic":
            place = self._place("global", address, lanes, size)
            for window, base in WINDOWS.items():
                inside = self._place(window, address - base, lanes, size)
                place = np.where(address - base < WINDOW, inside, place)
            return place
        before, own, stride = self._areas[space]
        offset = address - Memory.BASE if space == "global" else address
        inside = (offset < own) & (offset + size <= own)
        return np.where(inside, before + stride * lanes + offset.astype(np.int64), -1)
