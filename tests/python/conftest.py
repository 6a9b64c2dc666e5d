"""Keys and runs of the tests live in temporary folders, never in the user's home."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import samples


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
