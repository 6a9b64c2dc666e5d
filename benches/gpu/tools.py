"""What NVIDIA's tools say about the kernel: the profiler, and the checks of memory accesses and races."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import rates
import roots
from place import HERE, Gpu, Notes

SECTIONS = ["SpeedOfLight", "ComputeWorkloadAnalysis", "Occupancy", "LaunchStats", "WarpStateStats"]
SHOWN = re.compile(
    r"sm__inst_executed_pipe_(alu|fma\w*|xu|lsu)\.avg\.pct_of_peak_sustained_active|sm__throughput\.avg.*elapsed"
    r"|sm__warps_active\.avg\.pct.*|launch__registers_per_thread|gpu__time_duration\.sum|sm__inst_issued.*pct.*"
)


def missing(place: Gpu, notes: Notes, tool: str) -> bool:
    """Whether a tool cannot be had here, which is noted."""
    if place.dry:
        notes.skip(tool, "no GPU")
    elif shutil.which(tool) is None:
        notes.skip(tool, "it is not on the PATH")
    else:
        return False
    return True


def run(command: list[str], **environment: str) -> tuple[int, str]:
    """The exit status and the output of a command."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment
    )
    return done.returncode, done.stdout


def last(output: str) -> str:
    """The last lines of an output."""
    return " / ".join(line.strip() for line in output.strip().splitlines()[-4:])


def ncu(place: Gpu, notes: Notes) -> None:
    """Hardware counters of the first launch of 500 MB."""
    if missing(place, notes, "ncu"):
        if place.dry:
            rates.profiled(place, notes)
        return
    with tempfile.TemporaryDirectory() as folder:
        report = f"{folder}/report"
        options = ["--profile-from-start", "off", "--clock-control", "none", "--target-processes", "all"]
        options += [word for section in SECTIONS for word in ("--section", section)]
        child = [sys.executable, str(HERE), "--child", "profiled", "--results", f"{folder}/profiled"]
        status, output = run(["ncu", *options, "--force-overwrite", "--export", report, *child])
        if not Path(f"{report}.ncu-rep").exists():
            notes.skip("ncu", f"exit status {status}: {last(output)}")
            return
        shown = ["--page", "raw", "--csv", "--print-units", "base"]
        _, output = run(["ncu", "--import", f"{report}.ncu-rep", *shown])
    lines = output.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if first is None or len(lines) < first + 3:
        notes.skip("ncu", f"its table is not understood: {last(output)}")
        return
    names, units, values = list(csv.reader(lines[first : first + 3]))
    rows = zip(names, units, values, strict=False)
    counters = {name: f"{value} {unit}".strip() for name, unit, value in rows}
    notes.found["counters"] = {name: value for name, value in counters.items() if "__" in name}
    for name, value in counters.items():
        if SHOWN.fullmatch(name):
            notes.note(name, value)
    notes.save()


def sanitize(place: Gpu, notes: Notes, tool: str) -> None:
    """Runs the sanitised checks under one of compute-sanitizer's tools and counts its findings."""
    if missing(place, notes, "compute-sanitizer"):
        if place.dry:
            roots.sanitized(place, notes)
        return
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "sanitized"
        child = [sys.executable, str(HERE), "--child", "sanitized", "--results", str(results)]
        # Every tensor has an allocation of its own, and only our kernel is watched.
        for chosen in (["--kernel-name", "kns=counterfoil"], ["--kernel-regex", "kns=counterfoil"], []):
            command = ["compute-sanitizer", "--tool", tool, "--report-api-errors", "no", *chosen, *child]
            status, output = run(command, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
            found = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", output)
            if found:
                break
        checked = json.loads(results.read_text())["sanitized"] if results.exists() else {}
    if not found or "Device not supported" in output:
        notes.skip(tool, f"it did not run: exit status {status}: {last(output)}")
        return
    notes.note("options", chosen)
    notes.note("checks under it", checked.get("checks", 0))
    notes.same(f"{tool}: findings", sum(map(int, found)), 0)
    notes.same(f"{tool}: the checks under it", checked.get("state"), "ok")
    if notes.found["failed"]:
        about = [line for line in output.splitlines() if line.startswith("=========")]
        notes.note("report", about[:40])


def memcheck(place: Gpu, notes: Notes) -> None:
    """Accesses outside of allocations."""
    sanitize(place, notes, "memcheck")


def racecheck(place: Gpu, notes: Notes) -> None:
    """Races in shared memory."""
    sanitize(place, notes, "racecheck")


def initcheck(place: Gpu, notes: Notes) -> None:
    """Reads of memory that nobody wrote."""
    sanitize(place, notes, "initcheck")
