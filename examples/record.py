"""Makes examples/recorded: a short training run whose evidence verifies without torch.

    python examples/record.py

The key is made for this run and thrown away, so the folder can be made again but not continued.
Its tree head is anchored on a development chain that is thrown away as well: the anchor record
stays as a hint, and the verdict says that nobody confirmed it.
"""

import os
import shutil
import tempfile
from pathlib import Path

TARGET = Path(__file__).parent / "recorded"


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ["COUNTERFOIL_HOME"] = home
        import counterfoil
        from counterfoil.torch.demo import mlp, record

        shutil.rmtree(TARGET, ignore_errors=True)
        losses = record(TARGET, mlp, steps=10)
        counterfoil.Chain.dev(Path(home) / "chain").anchor(TARGET)
        print(f"loss {losses[0]:.2f} to {losses[-1]:.2f}")
        print(counterfoil.verify(TARGET))


if __name__ == "__main__":
    main()
