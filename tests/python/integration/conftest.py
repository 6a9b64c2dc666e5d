"""A key folder of each test's own, where what it submits must not mix with that of others."""

from pathlib import Path

import pytest

from counterfoil import Chain, Key
from counterfoil.market import Market
from markets import COIN, PARAMETERS, Parties


@pytest.fixture
def own_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The key folder: with a device key, an empty outbox and no networks.json."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("COUNTERFOIL_HOME", str(folder))
    return folder


@pytest.fixture
def parties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parties:
    monkeypatch.setenv("COUNTERFOIL_HOME", str(tmp_path / "home"))
    names = ("requester", "worker", "other", "verifier", "challenger")
    return {name: Key.generate(tmp_path / name) for name in names}


@pytest.fixture
def market(tmp_path: Path, parties: Parties) -> Market:
    made = Market.deploy(Chain.dev(tmp_path / "chain"), PARAMETERS, parties["requester"])
    for name in ("worker", "other", "verifier"):
        made.deposit(2 * COIN, parties[name])
    return made


@pytest.fixture
def board(tmp_path: Path) -> Path:
    return tmp_path / "board"
