"""Measures a hunt for nondeterminism beside torch's own tool; `make bench-hunt` runs it.

Each hunt looks for the first place in which one training in two environments differs. Ours records the training once
and executes it in both environments, `counterfoil.torch.diff_live`. Torch's trains in both with hashes of what each
operation gives, `DebugMode` with `log_tensor_hashes`, saves the log of each step and compares the logs; both of its
processes begin from the same state, which is given to them. Its hash is `hash_tensor`; the default one, a sum, is
tried on other threads as well. Two processes run at the same time in either case.
Writes benches/results/hunt.json and prints the table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bench import HERE, machine
from torch.utils._debug_mode import DebugMode

import counterfoil
import hunted
from counterfoil.torch import diff_live

Environment = dict[str, str | int]
PLAIN = {"by_index": False, "dropout": 0.0}
HUNTS: dict[str, tuple[dict[str, Any], Environment, Environment]] = {
    "threads 1, 2": (PLAIN, {"threads": 1}, {"threads": 2}),
    "instructions avx2, default": (
        PLAIN,
        {"threads": 1, "ATEN_CPU_CAPABILITY": "avx2"},
        {"threads": 1, "ATEN_CPU_CAPABILITY": "default"},
    ),
    "one ulp in one layer at step 5": (PLAIN, {"threads": 1}, {"threads": 1, "NUDGED": "1"}),
    "one random number drawn at step 5": (
        PLAIN | {"dropout": 0.1},
        {"threads": 1},
        {"threads": 1, "DREW": "1"},
    ),
    "chance: `table[tokens]`, two threads": (PLAIN | {"by_index": True}, {"threads": 2}, {"threads": 2}),
}


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def record(path: Path, spec: dict[str, Any]) -> float:
    """Seconds of a recorded training."""
    torch.set_num_threads(1)
    begin = time.perf_counter()
    with counterfoil.Run.create(path, spec=spec, recipe=hunted.__file__) as run:
        model, optimizer, step = hunted.recipe(spec)
        recorder = run.attach(model, optimizer)
        for number, batch in enumerate(run.batches(hunted.batches()), 1):
            step(batch, number, recorder.log)
    return time.perf_counter() - begin


def ours(path: Path, one: Environment, two: Environment) -> dict[str, Any]:
    """The hunt by executing the record."""
    begin = time.perf_counter()
    found = diff_live(path, one, two, run_untrusted=True)
    seconds = time.perf_counter() - begin
    return {"s": seconds, "bytes": size(path), "said": str(found).splitlines()}


def theirs(folder: Path, spec: dict[str, Any], hashed: str, *environments: Environment) -> dict[str, Any]:
    """The hunt by torch's logs."""
    folder.mkdir()
    begin = time.perf_counter()
    state = folder / "begin.pt"
    torch.save(hunted.recipe(spec)[0].state_dict(), state)
    programs = []
    for place, environment in enumerate(environments):
        (folder / str(place)).mkdir()
        variables = {name: str(value) for name, value in environment.items() if name != "threads"}
        command = [sys.executable, __file__, "--logs", folder / str(place), state, json.dumps(spec)]
        programs.append(
            subprocess.Popen(
                [*command, str(environment["threads"]), hashed],
                env={"OMP_WAIT_POLICY": "PASSIVE", "HOME": str(folder)} | variables,
            )
        )
    assert [program.wait() for program in programs] == [0, 0]
    said = next(filter(None, (compare(folder, number) for number in range(1, hunted.STEPS + 1))), "nothing")
    seconds = time.perf_counter() - begin
    return {"s": seconds, "bytes": size(folder / "0") + size(folder / "1"), "said": said}


def logs(folder: Path, state: Path, spec: dict[str, Any], threads: int, hashed: str) -> None:
    """Trains in this process and saves what torch logs of each step."""
    torch.set_num_threads(threads)
    model, _, step = hunted.recipe(spec)
    model.load_state_dict(torch.load(state))
    torch.manual_seed(1)
    for number, batch in enumerate(hunted.batches(), 1):
        with (
            DebugMode(record_nn_module=True) as mode,
            DebugMode.log_tensor_hashes(hash_fn=hashed),
        ):
            step(batch, number, lambda **_: None)
        DebugMode.save_logs(mode.logs, folder / f"{number}.json")


def compare(folder: Path, number: int) -> list[str] | None:
    """What torch's comparison says of a step, and where in the log the first of it stands."""
    first, second = (DebugMode.load_logs(folder / str(side) / f"{number}.json") for side in (0, 1))
    try:
        wrong = DebugMode.check_hash_mismatches(first, second)
    except ValueError as refused:
        # The comparison ends here; who looks at the logs finds the first call that only one of them has.
        names = [[str(call).partition("(")[0].strip() for call in log] for log in (first, second)]
        place = next(at for at, (one, two) in enumerate(zip(*names, strict=False)) if one != two)
        at = f"call {place + 1}: {names[0][place]} | {names[1][place]} in {module(first, place) or 'no module'}"
        return [f"step {number}: {refused}", at]
    if not wrong:
        return None
    place = next(
        at
        for at, pair in enumerate(zip(first, second, strict=True))
        if DebugMode.check_hash_mismatches(*([call] for call in pair))
    )
    return [
        f"step {number}: {wrong[0]['call']} (output {wrong[0]['pytree_path'] or 'whole'}), call {place + 1} of "
        f"{len(first)}, in {module(first, place) or 'no module'}",
        f"hashes {wrong[0]['hash1']} | {wrong[0]['hash2']}; calls that differ in this step: {len(wrong)}",
    ]


def module(log: list[Any], place: int) -> str | None:
    """The innermost module that was entered and not left before a call."""
    depth = log[place].call_depth
    for call in reversed(log[:place]):
        if getattr(call, "header", "") == "nn.Mod" and call.call_depth < depth:
            return str(call.tag)
    return None


def measure(spec: dict[str, Any], one: Environment, two: Environment, rounds: int) -> dict[str, Any]:
    """One hunt, so many times by each tool in turn."""
    recorded, found, logged, by_default = [], [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            os.environ["COUNTERFOIL_HOME"] = str(folder / "home")
            recorded.append(record(folder / "run", spec))
            found.append(ours(folder / "run", one, two))
            logged.append(theirs(folder / "logs", spec, "hash_tensor", one, two))
            if one["threads"] != two["threads"]:
                by_default.append(theirs(folder / "logs-by-norm", spec, "norm", one, two)["said"])
    return {
        "record, s": [round(seconds, 2) for seconds in recorded],
        "diff --env, s": [round(each["s"], 1) for each in found],
        "DebugMode, s": [round(each["s"], 1) for each in logged],
        "diff --env, bytes": [each["bytes"] for each in found],
        "DebugMode, bytes": [each["bytes"] for each in logged],
        "diff --env said": [each["said"] for each in found],
        "DebugMode said": [each["said"] for each in logged],
        "DebugMode said with its default hash": by_default,
    }


def main() -> None:
    """Hunts for everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--logs", nargs=5)
    arguments = parser.parse_args()
    if arguments.logs:
        folder, state, spec, threads, hashed = arguments.logs
        logs(Path(folder), Path(state), json.loads(spec), int(threads), hashed)
        return
    hunts = {}
    for name, (spec, one, two) in HUNTS.items():
        hunts[name] = measure(spec, one, two, arguments.rounds)
        print(name, json.dumps(hunts[name], indent=1), flush=True)
    results = {"machine": machine(), "hunts": hunts}
    (HERE / "results" / "hunt.json").write_text(json.dumps(results, indent=1) + "\n")
    for name, hunt in hunts.items():
        spans = [
            f"{min(hunt[what]):g} to {max(hunt[what]):g}"
            for what in ("record, s", "diff --env, s", "DebugMode, s")
        ]
        print(f"| {name} | {' | '.join(spans)} |")


if __name__ == "__main__":
    main()
