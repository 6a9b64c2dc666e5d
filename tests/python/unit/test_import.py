"""What `import counterfoil` costs and pulls in."""

import subprocess
import sys


def test_import_needs_numpy_alone() -> None:
    program = (
        "import sys, counterfoil\n"
        "counterfoil.commit_bytes(b'abc'), counterfoil.commit_tensors({})\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = set(subprocess.check_output([sys.executable, "-c", program], text=True).split())
    # Each of these would cost as much as all the rest.
    unwanted = {
        "torch",
        "typer",
        "rich",
        "safetensors",
        "sklearn",
        "web3",
        "requests",
        "asyncio",
        "http",
        "ssl",
    }
    assert "numpy" in loaded
    assert not loaded & unwanted


def test_the_public_names_are_listed() -> None:
    """`__all__` is explicit, complete, and small enough to read."""
    import counterfoil

    assert len(counterfoil.__all__) <= 40
    assert sorted(set(counterfoil.__all__)) == sorted(counterfoil.__all__)
    for name in counterfoil.__all__:
        assert getattr(counterfoil, name) is not None
