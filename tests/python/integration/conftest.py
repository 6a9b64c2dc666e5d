"""A key folder of each test's own, where what it submits must not mix with that of others."""

from pathlib import Path

import pytest


@pytest.fixture
def own_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The key folder: with a device key, an empty outbox and no networks.json."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("COUNTERFOIL_HOME", str(folder))
    return folder
