"""What a job is, and the values that its steps must have."""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from counterfoil import merkle
from counterfoil.commit import canonical_bytes
from counterfoil.errors import InvalidInput

_STEP = (
    "step", "flags", "batch", "samples", "contribution", "gradients", "parameters", "optimizer", "buffers",
    "hyperparameters", "randomness", "environment", "metrics", "workUnits", "extensions",
)  # fmt: skip
_CHECKPOINT = (
    "step",
    "parameters",
    "optimizer",
    "buffers",
    "hyperparameters",
    "randomness",
    "environment",
    "extensions",
)
_STATELESS = ("step", "flags", "workUnits")
FIELDS = {name: number for number, name in enumerate(_STEP) if name not in _STATELESS} | {
    f"checkpoint.{name}": 16 + number for number, name in enumerate(_CHECKPOINT) if name not in _STATELESS
}
"""The states of steps and checkpoints by the numbers that the contracts use."""
_LARGEST, _DEEPEST = 1 << 20, 128
NAMES = {number: name for name, number in FIELDS.items()}


@dataclass(frozen=True)
class Terms:
    """The terms of a job; together with who posts them they name it.

    Attributes:
        specification: SHA-256 of the `spec.json` that is to be trained, 32 bytes.
        pins: Root over the pinned values, 32 bytes; zero for none.
        pin_count: Their number.
        openable: A bit for each of `FIELDS` that the worker must open on demand.
        units: Steps that the run must have; what is credited when the job is paid.
        reward: The most that is paid, wei.
        stake: Of the worker's stake, what answers for the job, wei.
        deposit: Of each bid, wei; lost by whoever does not reveal, accept or submit.
        fee: Of each verifier whose vote is for the verdict, wei: between 1/1024 and 1/32 of the reward.
        bidding_ends, reveal_ends, accept_ends, work_ends: Unix seconds.
        challenge_window: Seconds after the submission.
        salt: Makes equal jobs different, 32 bytes.

    Source:
        contracts/src/interfaces/IJobEscrow.sol.
    """

    specification: bytes
    pins: bytes
    pin_count: int
    openable: int
    units: int
    reward: int
    stake: int
    deposit: int
    fee: int
    bidding_ends: int
    reveal_ends: int
    accept_ends: int
    work_ends: int
    challenge_window: int
    salt: bytes

    @classmethod
    def of(
        cls,
        specification: bytes,
        *,
        now: int,
        windows: tuple[int, int, int, int, int],
        units: int,
        reward: int,
        stake: int,
        deposit: int,
        fee: int,
        openable: tuple[str, ...] = (),
    ) -> Self:
        """Terms for a specification, whose member `pins` lists the pinned values.

        Args:
            specification: The bytes of `spec.json`, as `counterfoil.run.specification` makes them.
            now: Unix seconds from which the windows are counted.
            windows: Seconds for bidding, revealing, accepting and working, one after the other, and for challenges.
            units, reward, stake, deposit, fee: As the attributes.
            openable: Names of `FIELDS`: `checkpoint.parameters` for the result.

        Raises:
            InvalidInput: A field or pin is none.
        """
        unknown = set(openable) - set(FIELDS)
        if unknown:
            raise InvalidInput(
                f"no states of a step or checkpoint: {', '.join(sorted(unknown))}", where="openable"
            )
        leaves = pins(json.loads(specification))
        bidding, revealing, accepting, working, challenging = windows
        ends = list(itertools.accumulate([now + bidding, revealing, accepting, working]))
        return cls(
            specification=hashlib.sha256(specification).digest(),
            pins=merkle.root(leaves) if leaves else bytes(32),
            pin_count=len(leaves),
            openable=sum(1 << FIELDS[field] for field in set(openable)),
            units=units,
            reward=reward,
            stake=stake,
            deposit=deposit,
            fee=fee,
            bidding_ends=ends[0],
            reveal_ends=ends[1],
            accept_ends=ends[2],
            work_ends=ends[3],
            challenge_window=challenging,
            salt=secrets.token_bytes(32),
        )

    @classmethod
    def from_event(cls, fields: Mapping[str, Any]) -> Self:
        """The terms as a chain's event has them."""
        return cls(**{_snake(name): value for name, value in fields.items()})

    def encoded(self) -> dict[str, Any]:
        """The terms as the contracts name their members."""
        return {_camel(name): value for name, value in asdict(self).items()}


def pin(step: int, field: str, name: str, value: Any) -> dict[str, Any]:
    """A value that steps must have, for the member `pins` of a specification.

    Args:
        step: The step's number; 0 for each.
        field: A state field of the step's receipt, such as `hyperparameters`.
        name: The tensor's, such as `0/lr`.
        value: What it must be: a number as PyTorch's hyperparameters have it, or an array of at most 1,024 bytes.

    Raises:
        InvalidInput: There is no such field, or the value is too large.
    """
    if FIELDS.get(field, 16) >= 16:
        raise InvalidInput(f"{field!r} is no state field of a step", where="field")
    content = bytes(canonical_bytes(value))
    if len(content) > 1024:
        raise InvalidInput("a pinned value has at most 1,024 bytes", actual=str(len(content)), where=name)
    return {"step": step, "field": field, "name": name, "value": content.hex()}


def pins(spec: Mapping[str, Any]) -> list[bytes]:
    """The leaves of the tree under a job's pins: `step (u64) || field (u8) || length of the name (u16) || name || value`.

    Raises:
        InvalidInput: The specification's `pins` are none.
    """
    try:
        return [
            b"".join(
                (
                    each["step"].to_bytes(8, "big"),
                    FIELDS[each["field"]].to_bytes(1, "big"),
                    len(each["name"].encode()).to_bytes(2, "big"),
                    each["name"].encode(),
                    bytes.fromhex(each["value"]),
                )
            )
            for each in spec.get("pins", [])
        ]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as refused:
        raise InvalidInput(f"these are no pins: {refused!r}", where="pins") from None


def is_flat(content: bytes) -> bool:
    """Whether a JSON text is as small, and nested as little, as a run's specification may be.

    Python's own parser recurses on the stack: where a library has raised the limit, a stranger's brackets end the process.

    Source:
        docs/format.md, section 10; the core refuses more than 128 levels.
    """
    depth, is_text, is_escaped = 0, False, False
    for byte in content[: _LARGEST + 1]:
        if is_escaped:
            is_escaped = False
        elif byte == ord("\\"):
            is_escaped = is_text
        elif byte == ord('"'):
            is_text = not is_text
        elif not is_text and byte in b"[{":
            depth += 1
            if depth > _DEEPEST:
                return False
        elif not is_text and byte in b"]}":
            depth -= 1
    return len(content) <= _LARGEST


def is_consistent(terms: Terms, spec: Mapping[str, Any]) -> bool:
    """Whether a job's pins are those that its specification lists, and no step is to have two values in one place."""
    try:
        leaves = pins(spec)
    except InvalidInput:
        return False
    if (terms.pin_count, terms.pins) != (len(leaves), merkle.root(leaves) if leaves else bytes(32)):
        return False
    values: dict[tuple[str, str], dict[int, str]] = {}
    for each in spec.get("pins", []):
        known = values.setdefault((each["field"], each["name"]), {})
        if known.setdefault(each["step"], each["value"]) != each["value"]:
            return False
    return all(0 not in known or len(set(known.values())) == 1 for known in values.values())


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
