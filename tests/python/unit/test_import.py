"""What `import counterfoil` costs and pulls in."""

import subprocess
import sys

REPEATS = 7


def seconds(statement: str) -> float:
    """The least time that a fresh interpreter needs for an import: noise only ever adds."""
    program = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    return min(float(subprocess.check_output([sys.executable, "-c", program])) for _ in range(REPEATS))


def test_import_takes_little_more_than_numpy() -> None:
    """An eager import of torch, typer or asyncio would show at once."""
    extra = seconds("import counterfoil") - seconds("import numpy")
    assert extra < 0.100, f"{extra * 1000:.0f} ms more than numpy"


def test_import_needs_numpy_alone() -> None:
    program = (
        "import sys, counterfoil\n"
        "counterfoil.commit_bytes(b'abc'), counterfoil.commit_tensors({})\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = set(subprocess.check_output([sys.executable, "-c", program], text=True).split())
    unwanted = {"torch", "typer", "rich", "safetensors", "sklearn", "web3", "requests"}
    assert "numpy" in loaded
    assert not loaded & unwanted


def test_the_public_names_are_listed() -> None:
    """`__all__` is explicit, complete, and small enough to read."""
    import counterfoil

    assert len(counterfoil.__all__) <= 40
    assert sorted(set(counterfoil.__all__)) == sorted(counterfoil.__all__)
    for name in counterfoil.__all__:
        assert getattr(counterfoil, name) is not None
