"""Keccak, secp256k1 and EIP-712 in plain numbers: how a forger signs what the library would refuse to sign.

Not constant in time, and for forgeries alone.
"""

from __future__ import annotations

import hashlib
from typing import Any

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_PRIME = 2**256 - 2**32 - 977
_GENERATOR = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)
_RATE, _LANES, _WORD = 136, 25, 2**64 - 1
_Point = tuple[int, int] | None


def keccak256(data: bytes) -> bytes:
    """The hash of Ethereum: Keccak as before FIPS 202, 32 bytes.

    Source:
        The Keccak reference, version 3.0.
    """
    padded = data + b"\x01" + bytes(-(len(data) + 1) % _RATE)
    padded = padded[:-1] + bytes([padded[-1] | 0x80])
    state = [0] * _LANES
    for at in range(0, len(padded), _RATE):
        for lane in range(_RATE // 8):
            state[lane] ^= int.from_bytes(padded[at + 8 * lane : at + 8 * lane + 8], "little")
        state = _permute(state)
    return b"".join(lane.to_bytes(8, "little") for lane in state[:4])


def _permute(state: list[int]) -> list[int]:
    feedback = 1
    for _ in range(24):
        columns = [state[x] ^ state[x + 5] ^ state[x + 10] ^ state[x + 15] ^ state[x + 20] for x in range(5)]
        spread = [columns[x - 1] ^ _rotate(columns[(x + 1) % 5], 1) for x in range(5)]
        state = [lane ^ spread[at % 5] for at, lane in enumerate(state)]
        x, y, moved = 1, 0, state[1]
        for turn in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            state[x + 5 * y], moved = _rotate(moved, (turn + 1) * (turn + 2) // 2 % 64), state[x + 5 * y]
        state = [
            state[at] ^ (~state[at - at % 5 + (at + 1) % 5] & state[at - at % 5 + (at + 2) % 5])
            for at in range(_LANES)
        ]
        for power in range(7):
            state[0] ^= (feedback & 1) << ((1 << power) - 1)
            feedback = feedback << 1 ^ (0x171 if feedback & 0x80 else 0)
    return state


def _rotate(value: int, by: int) -> int:
    return (value << by | value >> (64 - by)) & _WORD if by else value


def sign(digest: bytes, secret: bytes) -> bytes:
    """Signs 32 bytes as docs/format.md, section 4, has it: `r || s || v`, 65 bytes.

    Source:
        SEC 1, version 2.0, section 4.1.3.
    """
    scalar = int.from_bytes(secret)
    nonce = int.from_bytes(hashlib.sha256(secret + digest).digest()) % ORDER
    point = _multiply(_GENERATOR, nonce)
    assert point is not None, "a nonce below the order has a point"
    r = point[0] % ORDER
    s = pow(nonce, -1, ORDER) * (int.from_bytes(digest) + r * scalar) % ORDER
    is_odd = point[1] % 2
    if s > ORDER // 2:
        s, is_odd = ORDER - s, 1 - is_odd
    return r.to_bytes(32) + s.to_bytes(32) + bytes([27 + is_odd])


def other_half(signature: bytes) -> bytes:
    """The other signature of the same digest by the same key: `s` in the upper half of the order."""
    s = ORDER - int.from_bytes(signature[32:64])
    return signature[:32] + s.to_bytes(32) + bytes([55 - signature[64]])


def _multiply(point: _Point, scalar: int) -> _Point:
    result: _Point = None
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point, scalar = _add(point, point), scalar >> 1
    return result


def _add(one: _Point, other: _Point) -> _Point:
    if one is None or other is None:
        return one or other
    if one[0] == other[0] and (one[1] + other[1]) % _PRIME == 0:
        return None
    if one == other:
        slope = 3 * one[0] ** 2 * pow(2 * one[1], -1, _PRIME)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, _PRIME)
    x = (slope**2 - one[0] - other[0]) % _PRIME
    return x, (slope * (one[0] - x) - one[1]) % _PRIME


def typed_body(document: dict[str, Any]) -> bytes:
    """The words of an EIP-712 message whose fields all have one word."""
    kinds = document["types"][document["primaryType"]]
    return b"".join(_word(document["message"][each["name"]], each["type"]) for each in kinds)


def typed_digest(document: dict[str, Any]) -> bytes:
    """What is signed of an EIP-712 document whose fields all have one word, 32 bytes."""
    domain = {**document, "primaryType": "EIP712Domain", "message": document["domain"]}
    return keccak256(b"\x19\x01" + _struct(domain) + _struct(document))


def type_hash(document: dict[str, Any]) -> bytes:
    """The hash, 32 bytes, of the type of an EIP-712 message that holds no other struct."""
    name = document["primaryType"]
    fields = ",".join(f"{each['type']} {each['name']}" for each in document["types"][name])
    return keccak256(f"{name}({fields})".encode())


def _struct(document: dict[str, Any]) -> bytes:
    return keccak256(type_hash(document) + typed_body(document))


def _word(value: Any, kind: str) -> bytes:
    if kind == "string":
        return keccak256(value.encode())
    if kind.startswith("uint"):
        return int(value).to_bytes(32)
    return bytes.fromhex(value.removeprefix("0x")).rjust(32, b"\0")
