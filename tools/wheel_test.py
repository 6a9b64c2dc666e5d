"""Builds the wheel twice, and uses it as a stranger would: other Pythons, no Rust, nothing of this checkout.

    make wheel-test

Prints what it finds and ends with 1 where the two wheels differ, the wheel does not run, or its platform tag
promises an older system than its symbols need. A Python that this machine does not have is named, and counts as
not tried.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHIM = ROOT / "crates/python/src/lib.rs"
BUILDS = ROOT / "target/wheels-compared"
OLDEST, NEWEST = (3, 11), (3, 14)
RUNS = 5
WITHOUT_RUST = "/usr/bin:/bin"


def main() -> int:
    """Runs every check; returns the exit code."""
    problems: list[str] = []
    wheel = build_twice(problems)
    describe(wheel, problems)
    with tempfile.TemporaryDirectory(prefix="wheel-test-") as folder:
        try:
            for python in interpreters():
                use(python, wheel, Path(folder), problems)
            use_with_torch(wheel, Path(folder), problems)
        except subprocess.CalledProcessError as failed:
            problems.append(f"{' '.join(map(str, failed.cmd))}: {failed.stdout}{failed.stderr}")
    for problem in problems:
        print(f"BAD {problem}")
    print("the wheel is as it should be" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


def build_twice(problems: list[str]) -> Path:
    """Two builds of one commit, of which the second compiles the last crate anew."""
    stamp = ask("git", "-C", ROOT, "log", "-1", "--format=%ct").strip()
    environment = {**os.environ, "SOURCE_DATE_EPOCH": stamp, "VIRTUAL_ENV": sys.prefix}
    environment.pop("CONDA_PREFIX", None)
    digests, before = [], SHIM.stat()
    for number in ("first", "second"):
        out = BUILDS / number
        shutil.rmtree(out, ignore_errors=True)
        began = time.monotonic()
        subprocess.run(
            [beside("maturin"), "build", "--release", "--quiet", "--locked", "--out", out],
            cwd=ROOT,
            env=environment,
            check=True,
        )
        (wheel,) = out.glob("*.whl")
        digests.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
        print(f"{number + ' build':<14} {digests[-1]}  ({time.monotonic() - began:.0f} s)")
        SHIM.touch()
    # Whatever is built next need not compile it once more.
    os.utime(SHIM, ns=(before.st_atime_ns, before.st_mtime_ns))
    if digests[0] != digests[1]:
        problems.append("two builds of one commit differ")
    return wheel


def describe(wheel: Path, problems: list[str]) -> None:
    """Size, platform tag, and the system that the symbols really need."""
    with zipfile.ZipFile(wheel) as content:
        unpacked = sum(entry.file_size for entry in content.infolist())
        library = content.read(next(name for name in content.namelist() if name.endswith(".so")))
    print(f"{'size':<14} {wheel.stat().st_size / 1e6:.1f} MB, unpacked {unpacked / 1e6:.1f} MB")
    tag = wheel.stem.split("-", 2)[2]
    print(f"{'tag':<14} {tag}")
    if not tag.startswith("cp311-abi3-"):
        problems.append(f"{tag} does not serve every Python from 3.11 on")
    promised = re.search(r"manylinux_(\d+)_(\d+)", tag)
    if promised:
        found = re.findall(rb"GLIBC_(\d+)\.(\d+)", library)
        needed = max((int(major), int(minor)) for major, minor in found)
        print(f"{'glibc':<14} needs {needed[0]}.{needed[1]}")
        if needed > (int(promised[1]), int(promised[2])):
            problems.append(f"{tag} promises an older glibc than its symbols need, {needed}")


def interpreters() -> list[Path]:
    """The oldest and the newest Python that this machine has; what is missing of the supported ones is said."""
    listed = json.loads(ask(beside("uv"), "python", "list", "--only-installed", "--output-format", "json"))
    # Of pyenv's versions uv sees the shims alone, which answer for the chosen one.
    paths = sorted((Path.home() / ".pyenv/versions").glob("*/bin/python"))
    paths += [Path(each["path"]) for each in listed]
    found: dict[tuple[int, int], Path] = {}
    for path in paths:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        version = re.match(r"Python (\d+)\.(\d+)", answer.stdout)
        if version and (int(version[1]), int(version[2])) >= OLDEST:
            found.setdefault((int(version[1]), int(version[2])), path)
    missing = [f"3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1) if (3, minor) not in found]
    print(f"{'not tried':<14} {', '.join(missing) or 'none'} (not on this machine)")
    return [found[version] for version in sorted({min(found), max(found)})]


def use(python: Path, wheel: Path, folder: Path, problems: list[str]) -> None:
    """Installs the wheel in an empty environment, and does what an auditor does first."""
    version = ask(python, "--version").split()[1]
    environment = folder / version
    installed = install(python, environment, wheel)
    counterfoil = environment / "bin/counterfoil"
    outside(counterfoil, "--help", cwd=folder)
    verdict = outside(counterfoil, "verify", ROOT / "examples/recorded", cwd=folder)
    costs = [imported(installed, module, folder) for module in ("numpy", "counterfoil")]
    print(
        f"{'Python ' + version:<14} {verdict.splitlines()[0]}; imports in {costs[1]:.0f} ms, "
        f"of which numpy alone takes {costs[0]:.0f} ms (medians of {RUNS})"
    )
    if not verdict.startswith("verified"):
        problems.append(f"Python {version} does not verify the recorded example: {verdict}")


def use_with_torch(wheel: Path, folder: Path, problems: list[str]) -> None:
    """Makes the starter kit beside the torch of this environment, and runs it with its tests."""
    torch = ask(sys.executable, "-c", "import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])")
    environment = folder / "torch"
    installed = install(Path(sys.executable), environment, wheel)
    (libraries,) = environment.glob("lib/python*/site-packages")
    # Behind the environment's own packages, so that counterfoil is the wheel's.
    (libraries / "torch.pth").write_text(torch)
    place = outside(installed, "-c", "import counterfoil; print(counterfoil.__file__)", cwd=folder)
    if not place.startswith(str(environment)):
        problems.append(f"counterfoil was taken from {place}")
    began = time.monotonic()
    outside(environment / "bin/counterfoil", "new", "kit", cwd=folder)
    for arguments in (["train.py"], ["verify.py"], ["-m", "pytest", "-q"]):
        said = outside(installed, *arguments, cwd=folder / "kit")
    print(
        f"{'starter kit':<14} {said.splitlines()[-1]}; with training and checking {time.monotonic() - began:.0f} s"
    )


def install(python: Path, environment: Path, wheel: Path) -> Path:
    """An environment with the wheel and what it declares, and nothing else; its interpreter."""
    ask(beside("uv"), "--quiet", "venv", "--python", python, environment)
    installed = environment / "bin/python"
    ask(beside("uv"), "--quiet", "pip", "install", "--python", installed, wheel)
    return installed


def imported(python: Path, module: str, cwd: Path) -> float:
    """Milliseconds that a module takes to import, the median of some runs."""
    program = f"import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"
    return statistics.median(float(outside(python, "-c", program, cwd=cwd)) for _ in range(RUNS)) * 1000


def outside(*command: str | Path, cwd: Path) -> str:
    """What a command prints in an environment without Rust, this checkout and the user's keys."""
    environment = {"PATH": WITHOUT_RUST, "COUNTERFOIL_HOME": str(cwd / "home")}
    assert shutil.which("cargo", path=WITHOUT_RUST) is None, (
        "this machine has Rust among the system's programs"
    )
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=True
    ).stdout


def ask(*command: str | Path) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def beside(name: str) -> Path:
    """A program of the environment that runs this one."""
    return Path(sys.executable).with_name(name)


if __name__ == "__main__":
    sys.exit(main())
