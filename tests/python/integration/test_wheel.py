"""The built wheel in an environment that holds nothing else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from oracle import ROOT

ABC = "counterfoil.commit_bytes(b'abc').root.hex()"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel and its declared dependencies."""
    wheels = list((ROOT / "dist").glob("counterfoil-*.whl"))
    assert len(wheels) == 1, "run `make wheel` first"
    folder = tmp_path_factory.mktemp("wheel") / "env"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "--quiet", "venv", "--python", sys.executable, folder], check=True)
    interpreter = folder / "bin" / "python"
    subprocess.run([uv, "--quiet", "pip", "install", "--python", interpreter, *wheels], check=True)
    return interpreter


def run(
    python: Path, *arguments: str | Path, cwd: Path, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.defpath, "COUNTERFOIL_HOME": str(cwd / "home")}
    return subprocess.run(
        [python.with_name(str(arguments[0])), *arguments[1:]],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def test_the_platform_tag_is_known() -> None:
    """One wheel serves every Python from 3.11 on; its glibc must be one we know of."""
    (wheel,) = (ROOT / "dist").glob("counterfoil-*.whl")
    assert re.search(r"-cp311-abi3-(manylinux_2_\d+|macosx_\d+_\d+|win|linux)_", wheel.name)


def test_commit_without_anything_else(python: Path, tmp_path: Path) -> None:
    program = f"import counterfoil, sys; print({ABC}); assert 'torch' not in sys.modules"
    result = run(python, "python", "-c", program, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    # SHA-256(0x00 || "abc"), by hand.
    import hashlib

    assert result.stdout.strip() == hashlib.sha256(b"\x00abc").hexdigest()


def test_the_recorded_example_verifies(python: Path, tmp_path: Path) -> None:
    """An auditor without torch: the console script, a copy of nothing but the example."""
    result = run(python, "counterfoil", "verify", ROOT / "examples/recorded", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "verified" in result.stdout


def test_a_forked_child_commits(python: Path, tmp_path: Path) -> None:
    """A pool inherited by fork has no threads: a child that waits for them hangs for ever."""
    program = f"""
import os, counterfoil, numpy
big = numpy.zeros(1 << 24, numpy.uint8)
expected = counterfoil.commit_bytes(big)
child = os.fork()
if child == 0:
    os._exit(0 if counterfoil.commit_bytes(big) == expected and {ABC} else 1)
print(os.waitpid(child, 0)[1])
"""
    result = run(python, "python", "-W", "ignore", "-c", program, cwd=tmp_path, timeout=60)
    assert result.stdout.strip() == "0", result.stderr


def test_nothing_but_the_package_is_in_the_wheel(python: Path, tmp_path: Path) -> None:
    import zipfile

    (wheel,) = (ROOT / "dist").glob("counterfoil-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"counterfoil"}
    assert "counterfoil/py.typed" in names
    assert "counterfoil/_native.pyi" in names
    assert {"counterfoil/report/template.html", "counterfoil/report/style.css"} <= set(names)
    verifier = ROOT / "python/counterfoil/report/verifier.wasm"
    if verifier.exists() and verifier.stat().st_mtime < wheel.stat().st_mtime:
        assert "counterfoil/report/verifier.wasm" in names
    assert not [name for name in names if "__pycache__" in name]
