"""Keys and runs of the tests live in temporary folders, never in the user's home."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import buffers
import host_kernel
import samples
from counterfoil import cuda


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The key folder of this session; child processes inherit it."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTERFOIL_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def recorded(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed run of twelve steps; not to be changed."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    samples.record(folder)
    return folder


@pytest.fixture
def copy(recorded: Path, tmp_path: Path) -> Path:
    """The recorded run again, to be tampered with."""
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


@pytest.fixture(scope="session")
def cases() -> list[buffers.Case]:
    """More than 5,000 runs of bytes and their roots."""
    return buffers.cases()


@pytest.fixture(scope="session")
def guarded() -> buffers.Guarded:
    """Bytes between pages that cannot be touched."""
    return buffers.Guarded()


@pytest.fixture(scope="session")
def bordering(guarded: buffers.Guarded) -> list[buffers.Case]:
    """Runs of bytes at the borders of pages that cannot be touched, and their roots."""
    return buffers.bordering(guarded)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> host_kernel.Launch:
    """The CUDA kernel, compiled for the CPU."""
    if host_kernel.COMPILER is None:
        pytest.skip("there is no C++ compiler here to compile the CUDA kernel with")
    return host_kernel.compile_kernel(tmp_path_factory.mktemp("kernel"))


@pytest.fixture
def device(compiled: host_kernel.Launch, monkeypatch: pytest.MonkeyPatch) -> host_kernel.HostEngine:
    """Every torch tensor counts as one on a GPU, and is hashed by the compiled kernel."""
    engine = host_kernel.HostEngine(compiled)
    monkeypatch.setattr(cuda, "engine", engine)
    monkeypatch.setattr(cuda, "_problems", {})
    return engine
