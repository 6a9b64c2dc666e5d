"""The verifier for browsers, under node: the same verdict, word for word, as the native one."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

import counterfoil
from counterfoil import Key, Record, Run, Session, commit_tensors
from counterfoil.testing.tamper import TAMPERINGS

ROOT = Path(__file__).parents[3]
MODULE = ROOT / "target/wasm32-unknown-unknown/wasm/counterfoil_wasm.wasm"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(
    NODE is None or not MODULE.exists(), reason="node or the build of `make wasm` is missing"
)


def in_node(judgement: str, *bundles: Path) -> list[dict]:
    done = subprocess.run(
        [str(NODE), str(ROOT / "crates/wasm/verify.mjs"), str(MODULE), judgement, *map(str, bundles)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def natively(judgement: str, bundle: Path) -> dict:
    try:
        headline, verdict = Record(bundle).verify(judgement)
    except counterfoil.CounterfoilError as refused:
        return {"error": refused.code, "message": str(refused)}
    return {"headline": headline, "verdict": json.loads(verdict)}


def test_all_bundles_get_the_native_verdict(recorded: Path, tmp_path: Path) -> None:
    """A check that only one of the two builds makes."""
    bundles = []

    def add(run: Path, **options: object) -> Path:
        bundles.append(tmp_path / f"{len(bundles)}.counterfoil")
        counterfoil.export(run, bundles[-1], **options)  # type: ignore[arg-type]
        return bundles[-1]

    whole = add(recorded)
    for options in ({"steps": [5]}, {"tensors": []}, {"steps": [4], "tensors": ["gradients/weights"]}):
        add(recorded, **options)
    for name, tamper in TAMPERINGS.items():
        copy = tmp_path / name
        shutil.copytree(recorded, copy)
        try:
            tamper(copy)
            add(copy)
        except (ValueError, IndexError, StopIteration, counterfoil.errors.CorruptJournal):
            bundles = [bundle for bundle in bundles if bundle.exists()]
    assert len(bundles) >= 7, "most tamperings leave a record that can be exported"
    session = Session(Key.generate(), int(time.time()) + 3600)
    with Run.create(tmp_path / "session", key=Key.generate(), session=session) as run:
        run.record_step(1, {"gradients": commit_tensors({"w": 1.0})})
    add(tmp_path / "session")
    data = whole.read_bytes()
    for position in range(0, len(data), len(data) // 60):
        bundles.append(tmp_path / f"{len(bundles)}.counterfoil")
        bundles[-1].write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
    # The trie, the header and the event behind an anchor are read by the verifier, too.
    bundles.append(ROOT / "tests/vectors/anchored.counterfoil")
    block = json.loads((ROOT / "tests/vectors/anchored.json").read_text())["blockHash"]
    owner = Record(recorded).receipts()[0].signer
    for judgement in (
        {"name": "integrity", "now": int(time.time()) + 7200},
        {"name": "pinned", "signer": owner, "require": {"signer": True, "time": True}},
        {"name": "dated", "trusted_blocks": [block], "require": {"time": True}},
    ):
        text = json.dumps(judgement)
        for bundle, found in zip(bundles, in_node(text, *bundles), strict=True):
            assert found == natively(text, bundle), bundle
    begun = time.perf_counter()
    in_node(json.dumps({"name": "integrity"}), whole)
    seconds = time.perf_counter() - begun
    print(
        f"{MODULE.stat().st_size} bytes; {len(bundles)} bundles agree; one of {len(data)} bytes in {seconds:.2f} s"
    )
