"""Checks a run, or a bundle of it, against what its trainer published, and executes steps of it again.

    python verify.py                    # the run that published.json names, ten steps drawn here and now
    python verify.py x.counterfoil all  # another run or bundle, every step

Exit codes: 0 verified, 1 error, 3 refuted, 4 undecided.
"""

import json
import sys
from pathlib import Path

import counterfoil
from counterfoil.torch import replay

CODES = {"verified": 0, "refuted": 3, "undecided": 4}


def main(path=None, steps="sample:10"):
    """Prints the verdict on a run against the published signer and recipe; returns the exit code."""
    published = json.loads(Path("published.json").read_text())
    signer, recipe, network = published["signer"], published["recipe"], published["network"]
    try:
        # A development chain is its owner's: it confirms nothing to anybody else.
        chain = None if network == "dev" else counterfoil.Chain.connect(network)
        verdict = replay(path or published["run"], steps, signer=signer, recipe=recipe, chain=chain)
    except counterfoil.Refuted as refuted:
        verdict = refuted.verdict
    except counterfoil.CounterfoilError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(verdict)
    return CODES[verdict.status]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
