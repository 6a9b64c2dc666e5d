"""Measures what tolerance accepts and refuses, of honest trainings and of lies; `make bench-tolerance` runs it.

Trainings are recorded in one environment and judged in others (benches/forged.py, benches/judged.py). Writes
benches/results/tolerance.json and prints the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forged
import torch
from bench import HERE, machine
from bounds import bounds
from judged import Environment
from sketched import agreed, ground, summed
from tallied import DTYPES, by, counted, of, tables

from counterfoil.torch.tolerance import Calibration

MODELS, OPTIMIZERS = ("mlp", "cnn", "transformer"), ("sgd", "adam", "adamw")
STEPS, CALIBRATED = 8, 4
"""Steps of an honest training, and how many of them are calibrated: half of those that are judged are not."""
FAR: Environment = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "threads": 1, "mkldnn": False}
ENVIRONMENTS: dict[str, Environment] = {
    "default instructions": {"ATEN_CPU_CAPABILITY": "default"},
    "everything other": FAR,
    "other matrix products": {"MKL_CBWR": "COMPATIBLE"},
    "one thread, no oneDNN": {"threads": 1, "mkldnn": False},
}
"""The verifier's; the trainings are recorded with AVX2, two threads and oneDNN, which none of them calibrates."""
WARM, MARKS, DRIFTED = 1500, (8, 50, 200), 10
"""Steps before a training that is recorded late, steps at which a drift is measured, and of how many one is judged."""


def plans(share: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """What is recorded: here, with an older torch, and the jobs of judging all that."""
    trainings, older, jobs, lying = [], [], [], []
    environments = list(ENVIRONMENTS)
    grid = [(model, each, dtype) for dtype in DTYPES for model in MODELS for each in OPTIMIZERS]
    for place, (model, optimizer, dtype) in enumerate(grid[:: max(1, round(0.5 / share))]):
        spec = {"model": model, "optimizer": optimizer, "dtype": dtype, "seed": place + 1}
        honest = {"name": f"{model}-{optimizer}-{dtype}", "spec": spec}
        trainings.append({**honest, "told": [""] * STEPS})
        chosen = [*environments[:2], environments[2 + place % 2]]
        jobs += [{**honest, "title": title, "calibrated": CALIBRATED} for title in chosen]
        if place % 3 == 0:
            older.append({**honest, "name": f"{honest['name']}-older", "told": [""] * STEPS})
        if optimizer == "adamw" and dtype != "fp64":
            late = {**honest, "name": f"{honest['name']}-late"}
            trainings.append({**late, "told": [""] * STEPS, "warm": WARM})
            jobs += [{**late, "title": title, "calibrated": CALIBRATED} for title in environments[:2]]
    rounds = max(1, round(3 * share))
    for place, model in enumerate(MODELS[: max(1, round(3 * share))]):
        for turn, dtype in enumerate(DTYPES):
            spec = {"model": model, "optimizer": OPTIMIZERS[(place + turn) % 3], "dtype": dtype, "seed": 101}
            for kind, lies in (("updates", list(forged.SETTINGS)), ("gradients", forged.lies(dtype))):
                job = {"name": f"{model}-{dtype}-{kind}", "spec": spec}
                trainings.append({**job, "told": ["", *lies] * rounds})
                lying.append({**job, "title": environments[turn % 2], "calibrated": STEPS})
    # Two processes take turns: each gets as many of the long ones.
    lying.sort(key=lambda job: job["name"].endswith("gradients"))
    return trainings, older, jobs + lying


def main() -> None:
    """Records, judges, counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--older", help="the Python of an environment that has an older torch")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="tolerance-", dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        os.environ |= {"COUNTERFOIL_HOME": f"{folder}/home", "OMP_WAIT_POLICY": "PASSIVE"}
        trainings, older, jobs = plans(arguments.share)
        starts = [started("forged.py", folder, trainings[at::2]) for at in (0, 1)]
        if arguments.older:
            starts.append(started("forged.py", folder, older, python=arguments.older))
            told = [{"name": each["name"], "spec": each["spec"], "calibrated": CALIBRATED} for each in older]
            jobs += [{**each, "title": "default instructions", "older": True} for each in told]
        finished(starts)
        whole = {"mlp-sgd-fp32": "1:8", "mlp-fp32-gradients": "1:3", "mlp-bf16-gradients": "1,9,10"}
        for job in jobs:
            job["environment"] = ENVIRONMENTS[job["title"]]
            job["replay"] = whole.get(job["name"]) if job["title"] != "other matrix products" else None
        say(f"judging {len(jobs)} trainings, {time.perf_counter() - begin:.0f} s")
        lines = finished([started("judged.py", folder, jobs[at::2]) for at in (0, 1)])
        done = [json.loads(line) for line in lines]
        say(f"drifting, {time.perf_counter() - begin:.0f} s")
        drift = drifted(folder, arguments.share)
    rows = [
        row | {name: job[name] for name in ("spec", "title", "name")} for job in done for row in job["rows"]
    ]
    results = {
        "machine": machine() | {"torch": torch.__version__},
        "seconds": round(time.perf_counter() - begin),
        "share": arguments.share,
        **counted(rows, done),
        "drift": drift,
        "bounds": bounds(),
        "fingerprints": {
            **{
                dtype: agreed([pair for row in of(rows, dtype) for pair in row["sketched"]])
                for dtype in DTYPES
            },
            "sums of ranks": summed(),
            "grinding": ground(),
        },
    }
    (HERE / "results" / "tolerance.json").write_text(json.dumps(results, indent=1) + "\n")
    print(tables(results))


@dataclass
class Started:
    """A program beside this one, what it is to do, and the file that it prints to."""

    process: subprocess.Popen[str]
    wanted: list[dict[str, Any]]
    printed: Path


def started(
    program: str,
    folder: Path,
    wanted: list[dict[str, Any]],
    python: str = sys.executable,
    variables: dict[str, str] | None = None,
) -> Started:
    """Starts one."""
    imported = os.pathsep.join([str(HERE.parent / "python"), os.environ.get("PYTHONPATH", "")])
    descriptor, name = tempfile.mkstemp(".lines", dir=folder)
    with os.fdopen(descriptor, "w") as printed:
        process = subprocess.Popen(
            [python, str(HERE / program), str(folder)], stdin=subprocess.PIPE, stdout=printed, text=True,
            env=os.environ | {"PYTHONPATH": imported} | (variables or {}),
        )  # fmt: skip
    return Started(process, wanted, Path(name))


def finished(starts: list[Started]) -> list[str]:
    """The lines that all of them printed."""
    for each in starts:
        assert each.process.stdin is not None
        each.process.stdin.write(json.dumps(each.wanted))
        each.process.stdin.close()
    for each in starts:
        if each.process.wait() != 0:
            raise RuntimeError(f"{each.process.args!r} ended with {each.process.returncode}")
    return [line for each in starts for line in each.printed.read_text().splitlines()]


def say(text: str) -> None:
    """Says what is done now."""
    print(f"... {text}", file=sys.stderr, flush=True)


def drifted(folder: Path, share: float) -> dict[str, Any]:
    """How far a liar comes who moves each gradient by a little less than is accepted."""
    title = "default instructions"
    marks = MARKS if share > 0.5 else MARKS[:2]
    tried = [("mlp", "sgd", "fp32"), ("mlp", "sgd", "bf16"), ("transformer", "adamw", "bf16")]
    tried = tried[: 3 if share > 0.5 else 1]
    found, steps = {}, marks[-1]
    lying, honest, jobs = [], [], []
    for model, optimizer, dtype in tried:
        name = f"{model}-{optimizer}-{dtype}"
        spec = {"model": model, "optimizer": optimizer, "dtype": dtype, "seed": 7}
        first = {"name": f"{name}-first", "spec": spec}
        lying.append({**first, "told": [""] * STEPS})
        honest.append({"name": f"{name}-honest", "spec": spec, "steps": steps, "marks": marks})
        jobs.append({**first, "title": title, "environment": ENVIRONMENTS[title], "calibrated": STEPS})
    twins = [{**each, "name": f"{each['name']}-twin"} for each in honest]
    finished([started("forged.py", folder, [*lying, *honest])])
    variables = {"ATEN_CPU_CAPABILITY": "default"}
    finished([started("forged.py", folder, twins, variables=variables), started("judged.py", folder, jobs)])
    drifts = []
    for each in lying:
        calibration = Calibration.load(folder / f"{each['name']}.{title}.calibration")
        name = each["name"].replace("first", "drift")
        accepted = {unit: calibration.accepted(unit) for unit in calibration.noise}
        told = {"told": [""] * steps, "accepted": accepted, "marks": marks}
        drifts.append({"name": name, "spec": each["spec"], **told})
    finished([started("forged.py", folder, drifts[at::2]) for at in (0, 1)])
    numbers = list(range(1, steps + 1, DRIFTED))
    for job in jobs:
        # They were published before: with its own calibration a verifier would accept less here, or more.
        job["thresholds"] = f"{job['name']}.{title}.calibration"
        job |= {"name": job["name"].replace("first", "drift"), "steps": numbers}
    done = [json.loads(line) for line in finished([started("judged.py", folder, jobs)])]
    for job in done:
        name = job["name"].removesuffix("-drift")
        stood = {
            each: torch.load(folder / f"{name}-{each}.pt") for each in ("drift", "honest", "honest-twin")
        }
        found[name] = {
            "judged": by(job["rows"], lambda _: "steps"),
            "lie at most, of the norm": f"{max(row['lie, of the norm'] for row in job['rows']):.1e}",
            "behind": {str(mark): apart(*(each[mark] for each in stood.values())) for mark in marks},
        }
    return found


def apart(drift: dict[str, Any], honest: dict[str, Any], twin: dict[str, Any]) -> dict[str, str]:
    """A liar's model beside an honest one, and an honest one of another machine beside that."""
    size = float(honest["parameters"].norm())
    found = {}
    for name, other in (("liar", drift), ("honest elsewhere", twin)):
        found[f"{name}: parameters"] = (
            f"{float((other['parameters'] - honest['parameters']).norm()) / size:.1e}"
        )
        found[f"{name}: score of 0"] = f"{other['score of 0'] - honest['score of 0']:+.1e}"
        found[f"{name}: right"] = f"{other['right'] - honest['right']:+.4f}"
    return found


if __name__ == "__main__":
    main()
