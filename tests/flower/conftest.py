"""Three client processes, and what a server does with them."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from flwr.app import Array, ArrayRecord

from counterfoil import Run
from counterfoil.flower import Recorded
from federated import task
from local_grid import LocalGrid

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "federated"


@pytest.fixture(scope="session")
def grid(tmp_path_factory):
    grid = LocalGrid("liars:app", [HERE, EXAMPLE], tmp_path_factory.mktemp("homes"), nodes=3)
    yield grid
    grid.close()


@pytest.fixture
def federation(grid, tmp_path):
    """A function that trains and gives back the server's folder, what it refused, and each round's arrays."""

    def train(strategy="FedAvg", rounds=3, *, recorded=True, resume=False, name="server", **config):
        inner = task.make_strategy(strategy) if isinstance(strategy, str) else strategy
        initial = ArrayRecord({key: Array(array) for key, array in task.initial().items()})
        grid.run_config = {"folder": str(tmp_path / f"clients-of-{name}"), **config}
        folder = tmp_path / name
        arrays = []

        def keep(_round, record):
            arrays.append({key: array.numpy() for key, array in record.items()})

        def start(outer):
            outer.start(grid=grid, initial_arrays=initial, num_rounds=rounds, evaluate_fn=keep)

        if not recorded:
            start(inner)
            return SimpleNamespace(arrays=arrays)
        with Run.open(folder) if resume else Run.create(folder, spec={"strategy": str(strategy)}) as run:
            outer = Recorded(inner, run)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                start(outer)
        told = [str(each.message) for each in caught if "is left out" in str(each.message)]
        return SimpleNamespace(folder=folder, refused=outer.refused, warned=told, arrays=arrays)

    return train
