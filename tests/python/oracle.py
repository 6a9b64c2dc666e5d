"""A second implementation of docs/format.md, slow and plain, to compare the library with.

It shares no code with the library: hashlib, eth_utils' Keccak, struct, and the schema read from
the tables of docs/format.md itself, so that the page, the library and this file must agree.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from eth_utils import keccak

ROOT = Path(__file__).resolve().parents[2]
FORMAT = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
CHUNK = 1024
BYTES_ID = b"tensor/sha256-rfc9162/1024"
STATE_ID = b"state/sha256-rfc9162"
ZERO = bytes(32)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# Section 1: trees, by the recursive definitions of RFC 9162.


class Tree:
    """Leaves, and the nodes above them, remembered: a node of n leaves is one of every larger n."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = leaves
        self._nodes: dict[tuple[int, int], bytes] = {}

    @staticmethod
    def split(low: int, high: int) -> int:
        """Where a range of more than one leaf splits: at the largest power of two below it."""
        return low + (1 << (high - low - 1).bit_length() - 1)

    def node(self, low: int, high: int) -> bytes:
        if low == high:
            return sha256(b"")
        if (low, high) not in self._nodes:
            if high - low == 1:
                value = sha256(b"\x00" + self.leaves[low])
            else:
                middle = self.split(low, high)
                value = sha256(b"\x01" + self.node(low, middle) + self.node(middle, high))
            self._nodes[low, high] = value
        return self._nodes[low, high]

    def root(self, size: int) -> bytes:
        return self.node(0, size)

    def inclusion(self, index: int, high: int, low: int = 0) -> list[bytes]:
        if high - low == 1:
            return []
        middle = self.split(low, high)
        if index < middle:
            return [*self.inclusion(index, middle, low), self.node(middle, high)]
        return [*self.inclusion(index, high, middle), self.node(low, middle)]

    def consistency(self, m: int, high: int, low: int = 0, *, whole: bool = True) -> list[bytes]:
        if m == high:
            return [] if whole else [self.node(low, high)]
        middle = self.split(low, high)
        if m <= middle:
            return [*self.consistency(m, middle, low, whole=whole), self.node(middle, high)]
        return [*self.consistency(m, high, middle, whole=False), self.node(low, middle)]


def root(leaves: Sequence[bytes]) -> bytes:
    return Tree(leaves).root(len(leaves))


# Sections 2 and 3: canonical bytes, entries, commitments.

TAGS = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16",
    "float16": "F16", "int32": "I32", "uint32": "U32", "float32": "F32", "int64": "I64",
    "uint64": "U64", "float64": "F64", "complex64": "C64",
}  # fmt: skip


def canonical(array: np.ndarray) -> bytes:
    """Row-major, little-endian elements: numpy gives the order, the reversal is ours."""
    data = array.tobytes(order="C")
    if array.dtype.byteorder != ">":
        return data
    width = array.dtype.itemsize // (2 if array.dtype.kind == "c" else 1)
    return b"".join(data[at : at + width][::-1] for at in range(0, len(data), width))


def chunks(data: bytes) -> list[bytes]:
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


@dataclass(frozen=True)
class Entry:
    name: str
    kind: int = 0  # 0 dense, 1 absent, 2 alias, 4 sharded
    dtype: str = ""
    shape: tuple[int, ...] = ()
    size: int = 0
    root: bytes = ZERO
    target: str = ""

    @staticmethod
    def of(name: str, array: np.ndarray) -> Entry:
        data = canonical(array)
        tag = TAGS[array.dtype.newbyteorder("=").name]
        return Entry(name, 0, tag, array.shape, len(data), root(chunks(data)))

    def encode(self, entry_key: bytes | None = None) -> bytes:
        name, target = self.name.encode(), self.target.encode()
        dtype = self.dtype.encode()
        digest = self.root
        if entry_key is not None:
            name_key = hmac.digest(entry_key, name, "sha256")
            digest = sha256(b"counterfoil.blinded-root.v1" + name_key + digest)
        return b"".join(
            [
                b"counterfoil.entry.v1",
                bytes([self.kind, entry_key is not None]),
                struct.pack(">H", len(name)) + name,
                bytes([len(dtype)]) + dtype,
                bytes([len(self.shape)]) + b"".join(struct.pack(">Q", d) for d in self.shape),
                struct.pack(">Q", self.size),
                digest,
                struct.pack(">H", len(target)) + target,
            ]
        )

    @staticmethod
    def decode(data: bytes) -> Entry:
        assert data[:20] == b"counterfoil.entry.v1"
        at = 22

        def take(count: int) -> bytes:
            nonlocal at
            at += count
            assert at <= len(data)
            return data[at - count : at]

        name = take(int.from_bytes(take(2))).decode()
        dtype = take(take(1)[0]).decode()
        shape = tuple(int.from_bytes(take(8)) for _ in range(take(1)[0]))
        size, digest = int.from_bytes(take(8)), take(32)
        target = take(int.from_bytes(take(2))).decode()
        assert at == len(data)
        return Entry(name, data[20], dtype, shape, size, digest, target)


def tuple_digest(
    identifier: bytes, kind: int, count: int, size: int, tree: bytes, blind: bytes = ZERO
) -> bytes:
    return sha256(
        b"counterfoil.commitment.v1"
        + sha256(identifier)
        + struct.pack(">BQQ", kind, count, size)
        + tree
        + blind
    )


def bytes_digest(data: bytes, blind: bytes = ZERO) -> bytes:
    parts = chunks(data)
    return tuple_digest(BYTES_ID, 1, len(parts), len(data), root(parts), blind)


def state_root(entries: Sequence[Entry], entry_key: bytes | None = None) -> bytes:
    ordered = sorted(entries, key=lambda entry: entry.name.encode())
    return root([entry.encode(entry_key) for entry in ordered])


def state_digest(entries: Sequence[Entry], blind: bytes = ZERO, entry_key: bytes | None = None) -> bytes:
    size = sum(entry.size for entry in entries)
    return tuple_digest(STATE_ID, 2, len(entries), size, state_root(entries, entry_key), blind)


# Section 3, sharded tensors: runs of bytes that merge, and boxes that do not.


def subtrees(first: int, end: int) -> list[tuple[int, int]]:
    """The largest aligned full subtrees that tile chunks [first, end), left to right."""
    found = []
    while first < end:
        width = first & -first or 1 << 63
        while first + width > end:
            width >>= 1
        found.append((first, first + width))
        first += width
    return found


def shard(data: bytes, offset: int) -> bytes:
    """The encoding of the shard that holds `data` at `offset` of something larger."""
    end = offset + len(data)
    first, last = -(-offset // CHUNK), end // CHUNK
    head = b"counterfoil.shard.v1" + struct.pack(">QQ", offset, len(data))
    if end < first * CHUNK:
        return head + data
    border = first * CHUNK - offset
    whole = chunks(data[border : last * CHUNK - offset])
    roots = [root(whole[low - first : high - first]) for low, high in subtrees(first, last)]
    return b"".join([head, data[:border], *roots, data[last * CHUNK - offset :]])


@dataclass(frozen=True, order=True)
class Block:
    offset: tuple[int, ...]
    extent: tuple[int, ...]
    root: bytes

    @staticmethod
    def of(array: np.ndarray, offset: tuple[int, ...]) -> Block:
        return Block(offset, array.shape, root(chunks(canonical(array))))


def sharded_root(blocks: Sequence[Block]) -> bytes:
    parts = [b"counterfoil.sharded.v1", struct.pack(">I", len(blocks))]
    for block in sorted(blocks):
        parts += [struct.pack(">Q", each) for each in (*block.offset, *block.extent)]
        parts.append(block.root)
    return sha256(b"".join(parts))


# 0G storage roots, by the rule in tests/vectors/zerog_roots.json.

SECTOR = 256  # bytes of a leaf
SEGMENT = 1024  # leaves of a segment


def storage_leaves(data: bytes) -> list[bytes]:
    """The hashes of the sectors and of the zero sectors behind them."""
    found = [keccak(data[at : at + SECTOR].ljust(SECTOR, b"\0")) for at in range(0, len(data), SECTOR)]
    unit = max((1 << (len(found) - 1).bit_length()) // 16, 1)
    return found + [keccak(bytes(SECTOR))] * (-len(found) % unit)


def storage_node(hashes: Sequence[bytes]) -> bytes:
    """The tree of RFC 9162 with Keccak and without prefixes, over hashes."""
    if len(hashes) == 1:
        return hashes[0]
    middle = Tree.split(0, len(hashes))
    return keccak(storage_node(hashes[:middle]) + storage_node(hashes[middle:]))


def storage_submission(leaves: Sequence[bytes]) -> list[tuple[bytes, int]]:
    """The perfect trees, largest first, that the number of leaves in binary asks for."""
    found, at = [], 0
    for height in reversed(range(len(leaves).bit_length())):
        if len(leaves) >> height & 1:
            found.append((storage_node(leaves[at : at + (1 << height)]), height))
            at += 1 << height
    return found


def storage_segments(leaves: Sequence[bytes]) -> list[bytes]:
    return [storage_node(leaves[at : at + SEGMENT]) for at in range(0, len(leaves), SEGMENT)]


def storage_proof(segments: Sequence[bytes], index: int) -> tuple[list[bytes], list[bool]]:
    """Lemma: the segment, its siblings upwards, the root. Path: whether each sibling is on the right."""

    def siblings(low: int, high: int) -> list[tuple[bytes, bool]]:
        if high - low == 1:
            return []
        middle = Tree.split(low, high)
        if index < middle:
            return [*siblings(low, middle), (storage_node(segments[middle:high]), True)]
        return [*siblings(middle, high), (storage_node(segments[low:middle]), False)]

    if len(segments) == 1:
        return [segments[0]], []
    found = siblings(0, len(segments))
    lemma = [segments[index], *(each for each, _ in found), storage_node(segments)]
    return lemma, [right for _, right in found]


# Section 4: receipts, their schema read from the page.

HEADER = re.search(r"`(uint16 schema, .*?)`", FORMAT).group(1)  # type: ignore[union-attr]
TREE_HEAD = re.search(r"`(TreeHeadV1\(.*?\))`", FORMAT).group(1)  # type: ignore[union-attr]


@dataclass(frozen=True)
class Kind:
    number: int
    name: str
    type_name: str
    fields: tuple[tuple[str, str], ...] = field(repr=False)  # (type, name), header included

    @property
    def type_hash(self) -> bytes:
        inside = ",".join(f"{type_} {name}" for type_, name in self.fields)
        return keccak(text=f"{self.type_name}({inside})")

    def digest(self, body: bytes) -> bytes:
        assert len(body) == 32 * len(self.fields)
        return keccak(b"\x19\x01" + DOMAIN_SEPARATOR + keccak(self.type_hash + body))

    def word(self, body: bytes, name: str) -> bytes:
        at = 32 * [n for _, n in self.fields].index(name)
        return body[at : at + 32]

    def with_word(self, body: bytes, name: str, value: bytes) -> bytes:
        at = 32 * [n for _, n in self.fields].index(name)
        return body[:at] + value + body[at + 32 :]


def _fields(text: str) -> tuple[tuple[str, str], ...]:
    return tuple(tuple(item.split()) for item in text.split(","))  # type: ignore[misc]


def _kinds() -> dict[int, Kind]:
    rows = re.findall(r"^\| (\d+) \| ([\w-]+) \| `(\w+)` \| (.*) \|$", FORMAT, re.MULTILINE)
    found = {}
    for number, name, type_name, text in rows:
        quoted = re.findall(r"`(.*?)`", text)
        fields = _fields(HEADER) + _fields(quoted[0])
        if len(quoted) > 1:  # policy: "then `uint32 <field>Every` for a, b, c"
            template = quoted[1]
            names = text.rsplit(" for ", 1)[1].split(", ")
            fields += tuple(tuple(template.replace("<field>", each).split()) for each in names)  # type: ignore[assignment]
        found[int(number)] = Kind(int(number), name, type_name, fields)
    return found


KINDS = _kinds()
BY_NAME = {kind.name: kind for kind in KINDS.values()}
HEAD = Kind(0, "tree-head", "TreeHeadV1", _fields(TREE_HEAD[len("TreeHeadV1(") : -1]))
DOMAIN_SEPARATOR = keccak(
    keccak(text="EIP712Domain(string name,string version,bytes32 salt)")
    + keccak(text="Counterfoil")
    + keccak(text="1")
    + keccak(text="counterfoil.receipts.v1")
)


def word(value: int | bytes) -> bytes:
    """One ABI word: numbers and addresses on the right, 32 bytes as they are."""
    return value.to_bytes(32) if isinstance(value, int) else value.rjust(32, b"\x00")


def run_id(owner: bytes, specification: bytes, flags: int, nonce: bytes) -> bytes:
    words = [keccak(text="counterfoil.run.v1"), word(owner), specification, word(flags), nonce]
    return keccak(b"".join(words))


def log_id(run: bytes, worker: bytes, lane: int) -> bytes:
    words = [keccak(text="counterfoil.log.v1"), run, word(worker), word(lane)]
    return keccak(b"".join(words))


def policy_digest(cadences: Sequence[int]) -> bytes:
    assert len(cadences) == 12
    return keccak(b"".join(word(each) for each in cadences))


# Sections 6 and 7: journal and ledger frames.

_CRC_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = (_byte >> 1) ^ (0x82F63B78 if _byte & 1 else 0)
    _CRC_TABLE.append(_byte)


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = (value >> 8) ^ _CRC_TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def frame_head(payload: bytes, back: int) -> bytes:
    """Length, distance to the group's beginning, checksum of the payload and of these twelve bytes."""
    head = struct.pack(">III", len(payload), back, crc32c(payload))
    return head + struct.pack(">I", crc32c(head))


def frames(journal: bytes) -> list[bytes]:
    """The payloads of a whole journal, the header frame first."""
    found, at, group = [], 0, 0
    while at < len(journal):
        length, back = struct.unpack(">II", journal[at : at + 8])
        payload = journal[at + 16 : at + 16 + length]
        assert journal[at : at + 16] == frame_head(payload, back)
        assert at - back in (group, at), "a frame begins a group or belongs to the one before it"
        found.append(payload)
        group = at - back
        at += 16 + length
    return found


def journal(payloads: Sequence[bytes]) -> bytes:
    """A journal in which each frame was synchronised alone."""
    return b"".join(frame_head(payload, 0) + payload for payload in payloads)


@dataclass(frozen=True)
class ReceiptFrame:
    kind: Kind
    digest: bytes
    signature: bytes
    body: bytes

    @staticmethod
    def decode(payload: bytes) -> ReceiptFrame:
        assert payload[:1] == b"R"
        kind = KINDS[int.from_bytes(payload[1:3])]
        return ReceiptFrame(kind, payload[3:35], payload[35:100], payload[100:])

    def encode(self) -> bytes:
        return b"R" + struct.pack(">H", self.kind.number) + self.leaf + self.body

    @property
    def leaf(self) -> bytes:
        return self.digest + self.signature


@dataclass(frozen=True)
class OpenedField:
    index: int  # in the type, after the header
    blind: bytes
    entry_key: bytes
    layout: bytes
    form: int
    payload: bytes

    def encode(self) -> bytes:
        head = bytes([self.index]) + self.blind + self.entry_key + self.layout
        return head + struct.pack(">BI", self.form, len(self.payload)) + self.payload

    def entries(self, layouts: dict[bytes, list[Entry]]) -> list[Entry]:
        """The layout's entries with their roots filled in from the payload."""
        filled, at = [], 0
        for entry in layouts[self.layout]:
            if entry.kind != 0:
                filled.append(entry)
                continue
            width = 32 if self.form == 0 else entry.size
            part = self.payload[at : at + width]
            at += width
            tree = part if self.form == 0 else root(chunks(part))
            filled.append(Entry(entry.name, 0, entry.dtype, entry.shape, entry.size, tree))
        assert at == len(self.payload)
        return filled


@dataclass(frozen=True)
class OpeningFrame:
    receipt: bytes
    fields: tuple[OpenedField, ...]

    @staticmethod
    def decode(payload: bytes) -> OpeningFrame:
        assert payload[:1] == b"O"
        at, fields = 33, []
        while at < len(payload):
            index, blind = payload[at], payload[at + 1 : at + 33]
            entry_key, layout = payload[at + 33 : at + 65], payload[at + 65 : at + 97]
            form, length = struct.unpack(">BI", payload[at + 97 : at + 102])
            at += 102 + length
            opened = payload[at - length : at]
            fields.append(OpenedField(index, blind, entry_key, layout, form, opened))
        assert at == len(payload)
        return OpeningFrame(payload[1:33], tuple(fields))

    def encode(self) -> bytes:
        return b"O" + self.receipt + b"".join(each.encode() for each in self.fields)


def layout_entries(payload: bytes) -> list[Entry]:
    assert payload[:1] == b"L"
    at, found = 1, []
    while at < len(payload):
        length = int.from_bytes(payload[at : at + 4])
        found.append(Entry.decode(payload[at + 4 : at + 4 + length]))
        at += 4 + length
    return found


@dataclass
class Ledger:
    """A journal taken apart: what test_verify forges and test_receipts recomputes."""

    payloads: list[bytes]  # header frame first

    @staticmethod
    def read(path: Path) -> Ledger:
        return Ledger(frames(path.read_bytes()))

    @property
    def receipts(self) -> list[ReceiptFrame]:
        return [ReceiptFrame.decode(p) for p in self.payloads if p[:1] == b"R"]

    @property
    def openings(self) -> list[OpeningFrame]:
        return [OpeningFrame.decode(p) for p in self.payloads[1:] if p[:1] == b"O"]

    @property
    def layouts(self) -> dict[bytes, list[Entry]]:
        """Layouts under their names, the hashes of their payloads."""
        return {sha256(p): layout_entries(p) for p in self.payloads[1:] if p[:1] == b"L"}

    @property
    def heads(self) -> list[tuple[bytes, bytes]]:
        return [(p[1:66], p[66:]) for p in self.payloads[1:] if p[:1] == b"H"]
