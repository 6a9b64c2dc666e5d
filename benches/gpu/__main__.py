"""Checks and measures hashing on an NVIDIA GPU; `make gpu` runs it, `make gpu DRY=1` without a GPU.

Needs neither a network nor a compiler. Every section runs in a process of its own with a limit of
time, so that none takes another with it; what it found until then is kept. Correctness comes first.
The exit status is 1 if a check failed or a section did not end. Writes
benches/results/gpu-DEVICE.json after each section and prints a table last. GB are 10^9 bytes.

Options: --only SECTION.. (none: lists them), --results FOLDER, --limit SECONDS, --dry.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Module and limit in seconds of each section.
SECTIONS = {
    "machine": ("place", 60),
    "roots": ("roots", 120),
    "streams": ("roots", 60),
    "graph": ("steps", 60),
    "large": ("roots", 90),
    "attach": ("steps", 60),
    "rates": ("rates", 120),
    "bf16": ("steps", 90),
    "bf16_own": ("steps", 90),
    "fp32": ("steps", 90),
    "autocast": ("steps", 90),
    "ncu": ("tools", 90),
    "memcheck": ("tools", 90),
    "racecheck": ("tools", 90),
    "initcheck": ("tools", 90),
}
# Run by the tools.
INNER = {"profiled": "rates", "sanitized": "roots"}


def child(names: list[str], path: Path, dry: bool) -> None:
    """Runs sections in this process."""
    from place import Dry, Gpu, Notes

    # What the CPU hashes instead would always agree with the CPU.
    warnings.filterwarnings("error", message="tensors on .* are copied and hashed by the CPU")
    where: Gpu | None = None
    with tempfile.TemporaryDirectory() as home:
        os.environ["COUNTERFOIL_HOME"] = home
        for name in names:
            notes, begin = Notes(path, name), time.monotonic()
            notes.save()
            print(f"{name}:")
            try:
                where = where or (Dry() if dry else Gpu())
                module = INNER.get(name) or SECTIONS[name][0]
                getattr(importlib.import_module(module), name)(where, notes)
                notes.found["state"] = "failed" if notes.found["failed"] else "ok"
            except Exception as error:
                traceback.print_exc()
                frame = traceback.extract_tb(error.__traceback__)[-1]
                notes.found["state"] = f"broke off in {frame.name}: {type(error).__name__}: {error}"
            notes.found["seconds"] = round(time.monotonic() - begin, 1)
            notes.save()


def run(names: list[str], path: Path, dry: bool, limit: float) -> dict[str, Any]:
    """Runs sections in a child and returns what they found."""
    command = [
        sys.executable,
        str(HERE),
        *(["--dry"] if dry else []),
        "--results",
        str(path),
        "--child",
        *names,
    ]
    process = subprocess.Popen(command, process_group=0, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    ended = ""
    try:
        if status := process.wait(limit):
            ended = f"ended with status {status}"
    except subprocess.TimeoutExpired:
        ended = f"was stopped after {limit:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
        section = found.setdefault(name, {"state": "stopped"})
        if section["state"] == "stopped":
            section["state"] = ended or "stopped"
    return found


def table(found: dict[str, Any], dry: bool) -> None:
    """Prints what matters, briefly."""
    print(f"\n{found.get('machine', {}).get('device', 'no device')}, {datetime.now(UTC).date().isoformat()}")
    print("| section | checks | failed | skipped | s | state |\n|---|---|---|---|---|---|")
    for name, section in found.items():
        keys = ("checks", "failed", "skipped", "seconds")
        row = [len(each) if isinstance(each := section.get(key, ""), dict) else each for key in keys]
        print(f"| {name} | {' | '.join(map(str, row))} | {section['state'][:300]} |")
    for name, section in found.items():
        for failure in section.get("failures", [])[:5]:
            print(f"FAILED {name}: {failure[:300]}")
        for what, why in list(section.get("skipped", {}).items())[:5]:
            print(f"skipped {name}: {what}: {why[:200]}")
    if dry:
        print("nothing was measured: this was a dry run")
        return
    measured = found.get("rates", {})
    print("\n| hashed | GB/s | first launch | whole call | of the ceiling |\n|---|---|---|---|---|")
    for name, row in measured.items():
        if isinstance(row, dict) and "GB/s" in row:
            speeds = [f"{row[key]:.4g}" for key in ("GB/s", "GB/s, first launch", "GB/s, whole call")]
            share = f"{100 * row['of the ceiling']:.1f} %" if "of the ceiling" in row else "-"
            print(f"| {name} | {' | '.join(speeds)} | {share} |")
    for key, value in measured.items():
        if key.startswith(("ceiling", "copy", "our")):
            print(f"{key}: {value}")
    print("\n| step | bare, ms | recorded, ms | overhead | rival |\n|---|---|---|---|---|")
    for name in ("bf16", "bf16_own", "fp32", "autocast"):
        if "overhead, %" in (one := found.get(name, {})):
            steps = [
                f"{1e3 * one[f'{which}, seconds of a step']['median']:.2f}" for which in ("bare", "recorded")
            ]
            print(
                f"| {name} | {' | '.join(steps)} | {one['overhead, %']:.2f} % | x {one['rival over bare']:.2f} |"
            )
    for key, value in found.get("ncu", {}).items():
        if "__" in key:
            print(f"ncu: {key}: {value}")


def main() -> int:
    """Runs the chosen sections, writes the results, prints the table."""
    options = argparse.ArgumentParser(description="Checks and measures hashing on an NVIDIA GPU.")
    options.add_argument(
        "--dry", action="store_true", help="without a GPU: the kernel compiled as C++, in small"
    )
    options.add_argument("--only", nargs="*", metavar="SECTION", help="these sections; none: list them")
    options.add_argument("--limit", type=float, default=560, metavar="SECONDS", help="for everything")
    options.add_argument("--results", type=Path, default=HERE.parent / "results", metavar="FOLDER")
    options.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child:
        child(chosen.child, chosen.results, chosen.dry)
        return 0
    if chosen.only == [] or set(chosen.only or []) - SECTIONS.keys():
        print("sections:", *SECTIONS)
        return 2 if chosen.only else 0
    wanted = [name for name in SECTIONS if name == "machine" or name in (chosen.only or SECTIONS)]
    begin = time.monotonic()
    results: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["benches/gpu", *sys.argv[1:]]),
        "sections": {},
    }
    found = results["sections"]
    # A dry run is one process, to be short.
    for names in [wanted] if chosen.dry else [[name] for name in wanted]:
        left = chosen.limit - (time.monotonic() - begin)
        limit = min(left, sum(SECTIONS[name][1] for name in names))
        if limit < 20:
            found |= {name: {"state": "not run: out of time"} for name in names}
        else:
            with tempfile.TemporaryDirectory() as folder:
                found |= run(names, Path(folder) / "found", chosen.dry, limit)
        if chosen.dry:
            break
        print(
            f"{names[0]}: {found[names[0]]['state']}, {found[names[0]].get('seconds', '?')} s\n", flush=True
        )
        if found["machine"]["state"] != "ok":
            break
        slug = re.sub(r"[^a-z0-9]+", "-", found["machine"]["device"].lower()).strip("-")
        chosen.results.mkdir(parents=True, exist_ok=True)
        target = chosen.results / f"{'-'.join(['gpu', slug, *(chosen.only or [])])}.json"
        target.write_text(json.dumps(results, indent=1) + "\n")
    table(found, chosen.dry)
    print(f"{time.monotonic() - begin:.0f} s in all")
    return int(any(section["state"] != "ok" for section in found.values()))


if __name__ == "__main__":
    sys.exit(main())
