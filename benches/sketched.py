"""What fingerprints tell of distances, of the sums of ranks, and of a liar who grinds; for benches/tolerance.py."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator
from typing import Any

import forged
import numpy as np
import tolerated
import torch

from counterfoil.fingerprints import SHAPE, distance, fingerprint

State = dict[str, torch.Tensor]
POOLED, GRAIN = 4096, 2.0**-48
"""Elements below which a tensor is pooled, and the unit of a sketch (docs/format.md, section 17)."""
LIE, NAME, SIZE = (5, 777), "w", 4096
"""The two elements that a grinding liar moves, and the tensor that they are of."""
GROUND = {1: 200, 2: 50, 3: 3}
"""How often it is measured how long a liar tries until so many of the four rows see nothing."""
TRIED = 1 << 14


def agreement(ours: State, theirs: State, key: bytes) -> list[tuple[float, float]]:
    """For each unit of two gradients the exact distance, and what their sketches say."""
    exact: dict[str, float] = {}
    for name, value in ours.items():
        unit = f"tensor/{name}" if value.numel() >= POOLED else "pool"
        square = float((value.double() - theirs[name].double()).square().sum())
        exact[unit] = exact.get(unit, 0.0) + square
    told = distance(fingerprint(ours, key), fingerprint(theirs, key))
    return [(exact[unit] ** 0.5, told[unit]) for unit in exact]


def agreed(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """How far the sketches' distances are from the exact ones, where these are far above a sketch's unit."""
    ratios = sorted(told / exact for exact, told in pairs if exact > 1000 * GRAIN)
    if len(ratios) < 2:
        return {"distances": len(ratios)}
    cuts = statistics.quantiles(ratios, n=100)
    found = {"least": ratios[0], "5 %": cuts[4], "median": cuts[49], "95 %": cuts[94], "greatest": ratios[-1]}
    return {
        "distances": len(ratios),
        **{name: round(value, 3) for name, value in found.items()},
        "too near for a sketch's unit": sum(0 < exact <= 1000 * GRAIN for exact, _ in pairs),
    }


def summed() -> dict[str, str]:
    """Of 2 to 4 ranks: their sketches together, against the one of the mean that all apply, times how many they are.

    Returns:
        By model and number of ranks, the distance of the two as a share of the latter's norm.
    """
    found = {}
    key = hashlib.sha256(b"ranks").digest()
    for model_name in ("mlp", "cnn", "transformer"):
        spec = {"model": model_name, "optimizer": "sgd", "dtype": "fp32", "seed": 1}
        for world in (2, 3, 4):
            parts = []
            for _, batch in zip(range(world), forged.batches(1), strict=False):
                model, _, _ = tolerated.recipe(spec)
                tolerated.backward(spec, model, batch)
                parts.append(forged.gradient_of(model))
            mean = {name: sum(part[name] for part in parts) / world for name in parts[0]}
            whole = fingerprint(mean, key)
            sketches = [fingerprint(part, key) for part in parts]
            apart = size = 0.0
            for unit, one in whole.items():
                total = sum(sketch[unit] for sketch in sketches)
                apart += float(np.square((total - world * one).astype(float)).sum())
                size += float(np.square(world * one.astype(float)).sum())
            found[f"{model_name}, {world} ranks"] = f"{(apart / size) ** 0.5:.1e}"
    return found


def ground() -> dict[str, Any]:
    """How many tries a liar needs whose own gradient says under which key it is sketched, and what a later key sees."""
    found: dict[str, Any] = {"lie": f"+d and -d in two of {SIZE} elements"}
    honest = np.random.default_rng(1).normal(size=SIZE).astype(np.float32)
    honest[list(LIE)] = 0.5
    lying = honest.copy()
    # Both exactly representable, or the two would not cancel to the last bit.
    lying[list(LIE)] += np.float32(2.0**-10), np.float32(-(2.0**-10))
    for rows, rounds in GROUND.items():
        tries = []
        for turn in range(rounds):
            number, applied = _first(lying, rows, turn)
            _check(honest, lying, applied, rows)
            tries.append(number)
        found[f"tries until {rows} of 4 rows see nothing"] = {
            "median": round(statistics.median(tries)),
            "mean": round(statistics.fmean(tries)),
            "expected mean": round(_expected(rows)),
            "rounds": rounds,
        }
    found["tries until all rows see nothing, expected, not tried"] = round(_expected(4))
    seen = [
        _seen(honest, lying, hashlib.sha256(b"later" + bytes([*divmod(at, 256)])).digest())
        for at in range(1000)
    ]
    found["keys drawn afterwards, of 1000, that see it"] = sum(told > 0 for told in seen)
    true = float(np.linalg.norm((lying - honest).astype(float)))
    found["their distances, of the exact one"] = [round(min(seen) / true, 3), round(max(seen) / true, 3)]
    return found


def _expected(rows: int) -> float:
    """Tries until at least so many of four rows hide two elements: same bucket of 64, and signs that cancel."""
    chance = 1 / 128
    ways = {1: 4, 2: 6, 3: 4, 4: 1}
    return float(1 / sum(ways[n] * chance**n * (1 - chance) ** (4 - n) for n in range(rows, 5)))


def _varied(lying: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The gradient with a number in the last bits of its last elements, once for each number."""
    bits = (numbers[:, None] >> np.arange(32, dtype=np.uint64)) & np.uint64(1)
    ends = np.broadcast_to(lying[-32:].view(np.uint32), (len(numbers), 32)).copy()
    return (ends & ~np.uint32(1)) | bits.astype(np.uint32)


def _keys(lying: np.ndarray, ends: np.ndarray) -> Iterator[bytes]:
    """A self-derived key of each gradient: SHA-256 over the digest of what stays and what was changed."""
    stays = hashlib.sha256(lying[:-32].tobytes()).digest()
    for end in ends:
        yield hashlib.sha256(stays + end.tobytes()).digest()


def _first(lying: np.ndarray, rows: int, turn: int) -> tuple[int, np.ndarray]:
    """The number of the first try that hides the lie in so many rows, and the last bits that do."""
    begin = turn << 26
    for block in range(1 << 12):
        numbers = np.arange(begin + block * TRIED, begin + (block + 1) * TRIED, dtype=np.uint64)
        ends = _varied(lying, numbers)
        one, other = (_words(list(_keys(lying, ends)), place) for place in LIE)
        hidden = np.zeros(TRIED, int)
        for row in range(SHAPE[0]):
            # Bit 6 is not used; the others are the bucket and the sign.
            differ = ((one ^ other) >> np.uint64(8 * row)) & np.uint64(0xBF)
            hidden += differ == 0
        enough = np.flatnonzero(hidden >= rows)
        if enough.size:
            return block * TRIED + int(enough[0]) + 1, ends[enough[0]]
    raise AssertionError("a try succeeds long before")


def _words(keys: list[bytes], place: int) -> np.ndarray:
    """The word of one element under many keys: Philox4x32-10 with as many keys at once."""
    seeds = b"".join(
        hashlib.sha256(b"counterfoil.fingerprint.v1" + key + NAME.encode()).digest()[:8] for key in keys
    )
    key = np.frombuffer(seeds, "<u4").reshape(-1, 2).astype(np.uint64)
    mask, high = np.uint64(0xFFFFFFFF), np.uint64(32)
    words = [np.full(len(keys), place // 4, np.uint64), *(np.zeros(len(keys), np.uint64) for _ in range(3))]
    for turn in range(10):
        first, second = words[0] * np.uint64(0xD2511F53), words[2] * np.uint64(0xCD9E8D57)
        steps = [
            (key[:, at] + np.uint64(turn * step)) & mask for at, step in enumerate((0x9E3779B9, 0xBB67AE85))
        ]
        words = [
            second >> high ^ words[1] ^ steps[0],
            second & mask,
            first >> high ^ words[3] ^ steps[1],
            first & mask,
        ]
    return words[place % 4]


def _check(honest: np.ndarray, lying: np.ndarray, end: np.ndarray, rows: int) -> None:
    """Holds the library itself against what was found: so many rows of its sketches are equal."""
    (key,) = _keys(lying, end[None])
    one, other = lying.copy(), honest.copy()
    one[-32:] = other[-32:] = end.view(np.float32)
    sketches = [fingerprint({NAME: each}, key)[f"tensor/{NAME}"] for each in (one, other)]
    equal = sum(bool((sketches[0][row] == sketches[1][row]).all()) for row in range(SHAPE[0]))
    assert equal >= rows, f"{equal} rows are equal, {rows} were to be"


def _seen(honest: np.ndarray, lying: np.ndarray, key: bytes) -> float:
    """What the sketches under a key say of the lie."""
    return distance(fingerprint({NAME: honest}, key), fingerprint({NAME: lying}, key))[f"tensor/{NAME}"]
