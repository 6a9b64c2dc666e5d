"""EIP-712 documents of receipts and tree heads, checked where no run folder is at hand.

An export carries its receipt as a document that any Ethereum library can check. This is that check
for who has only the export: Keccak-256 and the recovery of a secp256k1 signer, slow and plain.
"""

from __future__ import annotations

import re
from typing import Any

from counterfoil import _native
from counterfoil.errors import ProofError

Document = dict[str, Any]

_HEADER = (
    "uint16 schema,bytes32 run,address worker,uint32 lane,uint64 sequence,"
    "bytes32 previous,bytes32 delegation,uint64 time"
)
_TYPES = {
    "CheckpointV1": f"{_HEADER},uint64 step,bytes32 parameters,bytes32 optimizer,bytes32 buffers,"
    "bytes32 hyperparameters,bytes32 randomness,bytes32 environment,bytes32 extensions",
    "TreeHeadV1": "uint16 schema,bytes32 run,address worker,uint32 lane,uint64 size,bytes32 root,"
    "bytes32 previousHead,uint64 time,bytes32 beacon",
}
_DOMAIN_TYPE = "string name,string version,bytes32 salt"

_PRIME = 2**256 - 2**32 - 977
_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
_BASE = (
    0x79BE667E_F9DCBBAC_55A06295_CE870B07_029BFCDB_2DCE28D9_59F2815B_16F81798,
    0x483ADA77_26A3C465_5DA4FBFC_0E1108A8_FD17B448_A6855419_9C47D08F_FB10D4B8,
)

Point = tuple[int, int] | None


def keccak256(data: bytes) -> bytes:
    """Keccak-256 with the padding that Ethereum uses, which hashlib's SHA-3 has not."""
    rate = 136
    padded = bytearray(data) + b"\1" + bytes(-(len(data) + 1) % rate)
    padded[-1] |= 0x80
    lanes = [0] * 25
    for start in range(0, len(padded), rate):
        for index in range(rate // 8):
            at = start + 8 * index
            lanes[index] ^= int.from_bytes(padded[at : at + 8], "little")
        lanes = _permute(lanes)
    return b"".join(lane.to_bytes(8, "little") for lane in lanes[:4])


def _permute(lanes: list[int]) -> list[int]:
    register = 1
    for _ in range(24):
        parity = [lanes[x] ^ lanes[x + 5] ^ lanes[x + 10] ^ lanes[x + 15] ^ lanes[x + 20] for x in range(5)]
        mixed = [parity[x - 1] ^ _rotate(parity[(x + 1) % 5], 1) for x in range(5)]
        lanes = [lane ^ mixed[index % 5] for index, lane in enumerate(lanes)]
        x, y, carried = 1, 0, lanes[1]
        for step in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            at = x + 5 * y
            carried, lanes[at] = lanes[at], _rotate(carried, (step + 1) * (step + 2) // 2 % 64)
        lanes = [
            lanes[i] ^ (~lanes[i - i % 5 + (i + 1) % 5] & lanes[i - i % 5 + (i + 2) % 5]) for i in range(25)
        ]
        for bit in range(7):
            lanes[0] ^= (register & 1) << ((1 << bit) - 1)
            register = (register << 1) ^ (0x171 if register & 0x80 else 0)
    return lanes


def _rotate(lane: int, by: int) -> int:
    return (lane << by | lane >> (64 - by)) & (2**64 - 1)


def log_id(run: bytes, worker: bytes, lane: int) -> bytes:
    """The identity of one worker's lane in a run."""
    words = (keccak256(b"counterfoil.log.v1"), run, worker.rjust(32, b"\0"), lane.to_bytes(32, "big"))
    return keccak256(b"".join(words))


def digest_of(document: Any, primary_type: str) -> bytes:
    """The digest that was signed, after the document was found to be one of ours.

    Raises:
        ProofError: It has another domain or type, or a value is not the one way to write it.
    """
    members = [tuple(member.split(" ")) for member in _TYPES[primary_type].split(",")]
    salt = keccak256(b"counterfoil.receipts.v1")
    frame = {
        "types": {"EIP712Domain": _described(_DOMAIN_TYPE), primary_type: _described(_TYPES[primary_type])},
        "primaryType": primary_type,
        "domain": {"name": "Counterfoil", "version": "1", "salt": "0x" + salt.hex()},
    }
    message = document.get("message") if isinstance(document, dict) else None
    if not isinstance(message, dict) or document != {**frame, "message": message}:
        raise ProofError(f"this is no {primary_type} of Counterfoil", expected=primary_type)
    if message.keys() != {name for _, name in members}:
        raise ProofError(f"{primary_type} has other fields", expected=_TYPES[primary_type])
    body = b"".join(_word(kind, message[name], name) for kind, name in members)
    struct = keccak256(keccak256(f"{primary_type}({_TYPES[primary_type]})".encode()) + body)
    domain_type = keccak256(f"EIP712Domain({_DOMAIN_TYPE})".encode())
    domain = keccak256(domain_type + keccak256(b"Counterfoil") + keccak256(b"1") + salt)
    return keccak256(b"\x19\x01" + domain + struct)


def _described(members: str) -> list[dict[str, str]]:
    pairs = (member.split(" ") for member in members.split(","))
    return [{"name": name, "type": kind} for kind, name in pairs]


def _word(kind: str, value: Any, name: str) -> bytes:
    if isinstance(value, str):
        if kind.startswith("uint"):
            fits = re.fullmatch("0|[1-9][0-9]{0,19}", value) and int(value) < 1 << int(kind[4:])
            if fits:
                return int(value).to_bytes(32, "big")
        elif kind == "bytes32" and re.fullmatch("0x[0-9a-f]{64}", value):
            return bytes.fromhex(value[2:])
        elif kind == "address" and _is_address(value):
            return bytes.fromhex(value[2:]).rjust(32, b"\0")
    raise ProofError(
        f"{name} is no {kind}: {value!r:.80}", expected=kind, actual=f"{value!r:.80}", where=name
    )


def _is_address(text: str) -> bool:
    return bool(re.fullmatch("0x[0-9a-fA-F]{40}", text)) and _native.checksum_address(text) == text


def signer_of(digest: bytes, signature: bytes) -> str:
    """The address, in lower case, whose key signed; only the one accepted encoding is read.

    Raises:
        ProofError: These bytes are no signature.
    """
    r, s = (int.from_bytes(signature[at : at + 32], "big") for at in (0, 32))
    square = (pow(r, 3, _PRIME) + 7) % _PRIME
    y = pow(square, (_PRIME + 1) // 4, _PRIME)
    encoded = len(signature) == 65 and signature[64] in (27, 28)
    if not (encoded and 0 < r < _ORDER and 0 < s <= _ORDER // 2 and y * y % _PRIME == square):
        raise ProofError("these bytes are no signature", expected="r || s || v, s in the lower half")
    if y % 2 != signature[64] - 27:
        y = _PRIME - y
    inverse = pow(r, -1, _ORDER)
    key = _sum(
        _times((r, y), s * inverse % _ORDER),
        _times(_BASE, -int.from_bytes(digest, "big") * inverse % _ORDER),
    )
    if key is None:
        raise ProofError("this signature belongs to no key")
    return "0x" + keccak256(b"".join(part.to_bytes(32, "big") for part in key))[12:].hex()


def _sum(a: Point, b: Point) -> Point:
    if a is None or b is None:
        return a or b
    if a[0] != b[0]:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, _PRIME)
    elif a == b:
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, _PRIME)
    else:
        return None
    x = (slope * slope - a[0] - b[0]) % _PRIME
    return x, (slope * (a[0] - x) - a[1]) % _PRIME


def _times(point: Point, factor: int) -> Point:
    product: Point = None
    while factor:
        if factor & 1:
            product = _sum(product, point)
        point, factor = _sum(point, point), factor >> 1
    return product
