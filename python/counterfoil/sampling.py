"""Which steps are executed again, and what a sample of them is worth.

Whoever chooses decides who can cheat: a verifier draws with randomness that nobody knows before, or
lets a block decide that did not exist when the run was anchored (docs/format.md, section 15).
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from collections.abc import Iterable, Sequence

from counterfoil.errors import InvalidInput

TRIES = 1_000_000
"""How often a prover is taken to sign a run anew until the sample is kind: a second each."""


def choose(steps: str | Sequence[int], last: int, beacon: Sequence[int] | None = None) -> list[int]:
    """The chosen steps of 0..last in ascending order, 0 for the state before the first.

    Args:
        steps: As for `counterfoil.torch.replay`.
        last: The last recorded step.
        beacon: What a block drew, for `beacon:k`.

    Raises:
        InvalidInput: It names no steps, or steps that are not recorded.
    """
    try:
        if not isinstance(steps, str):
            chosen: Iterable[int] = [int(step) for step in steps]
        elif steps == "all":
            chosen = range(last + 1)
        elif steps.startswith("beacon:"):
            if beacon is None:
                raise InvalidInput(
                    "a beacon is a block of a chain: name one you trust with chain=", where="steps"
                )
            chosen = beacon
        elif sampled(steps):
            chosen = secrets.SystemRandom().sample(range(1, last + 1), min(sampled(steps), last))
        else:
            spans = [part.partition(":") for part in steps.split(",")]
            ends = [(int(first), int(final or first)) for first, _, final in spans]
            if any(not 0 <= first <= final <= last for first, final in ends):
                raise InvalidInput(f"{steps!r} is not within the recorded steps 0..{last}", where="steps")
            chosen = [step for first, final in ends for step in range(first, final + 1)]
    except ValueError:
        raise InvalidInput(
            f"{steps!r} is not all, sample:k, beacon:k, or steps and spans such as 3,7,207:217", where="steps"
        ) from None
    found = sorted(set(chosen))
    if not found or found[0] < 0 or found[-1] > last:
        raise InvalidInput(f"{steps!r} is not within the recorded steps 0..{last}", where="steps")
    return found


def sampled(steps: str | Sequence[int]) -> int:
    """How many steps `sample:k` or `beacon:k` draws; 0 where no number of them is drawn.

    Raises:
        InvalidInput: k is no number from 1 to 2^64 - 1.
    """
    kind, _, count = steps.partition(":") if isinstance(steps, str) else ("", "", "")
    if kind not in ("sample", "beacon"):
        return 0
    if re.fullmatch("[0-9]{1,20}", count) is None or not 0 < int(count) < 1 << 64:
        raise InvalidInput(f"{steps!r} draws no number of steps", where="steps")
    return int(count)


def draw(beacon: bytes, head: bytes, last: int, count: int) -> list[int]:
    """The steps of 1..last that a block draws, each at most once, in the order of drawing.

    Args:
        beacon: The block's hash, 32 bytes.
        head: Digest of the anchored tree head, 32 bytes.
        last: The last recorded step.
        count: How many; all when there are fewer.

    Source:
        docs/format.md, section 15.
    """
    numbers = b"".join(number.to_bytes(8, "big") for number in (last, count))
    seed = hashlib.sha256(b"counterfoil.sample.v1" + beacon + head + numbers).digest()
    found: dict[int, None] = {}
    # Above this the remainder would prefer small steps.
    limit = (1 << 64) - (1 << 64) % max(last, 1)
    at = 0
    while len(found) < min(count, last):
        word = int.from_bytes(hashlib.sha256(seed + at.to_bytes(8, "big")).digest()[:8], "big")
        at += 1
        if word < limit:
            found[1 + word % last] = None
    return list(found)


def odds(steps: int, count: int) -> str:
    """What a sample of `count` of `steps` misses, in words: for one try of a prover, and for many.

    Drawn without replacement, so the odds that b false steps are missed are hypergeometric.
    """
    false = max(1, math.ceil(steps / 100))
    missed = 0.0
    if count <= steps - false:
        ways = [math.lgamma(1 + steps - gone) for gone in (false, count, false + count, 0)]
        missed = min(1.0, math.exp(ways[0] + ways[1] - ways[2] - ways[3]))
    often = -math.expm1(TRIES * math.log1p(-missed)) if missed < 1 else 1.0
    return (
        f"{count} of {steps} steps were drawn: if {false} were false, none of those would be among them with odds of "
        f"{missed:.3g}, and once in {TRIES:,} signings of such a run with odds of {often:.3g}"
    )
