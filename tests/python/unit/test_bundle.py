"""Bundles as their users meet them: one file, read again by a reader that was written from the format."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

import counterfoil
import oracle
from counterfoil import Record, cli, verify
from counterfoil.errors import CorruptJournal, InvalidInput, NotFound

TAG = b"counterfoil.bundle.v1"


def read_bundle(data: bytes) -> tuple[bytes, str, dict[tuple[int, str], bytes]]:
    """Run, maker and parts, by docs/format.md, section 12, alone."""
    assert data[: len(TAG)] == TAG
    (length,) = struct.unpack_from(">I", data, len(TAG))
    start = len(TAG) + 4
    manifest, signature = data[start : start + length], data[start + length : start + length + 65]
    run, maker, (count,) = manifest[:32], manifest[32:52], struct.unpack_from(">I", manifest, 52)
    members = [("schema", "uint16"), ("run", "bytes32"), ("manifest", "bytes32")]
    digest = hashlib.sha256(manifest).digest()
    document = {
        **counterfoil_domain(),
        "primaryType": "BundleV1",
        "message": {"schema": 1, "run": run, "manifest": digest},
    }
    document["types"]["BundleV1"] = [{"name": name, "type": kind} for name, kind in members]
    signer = Account.recover_message(encode_typed_data(full_message=document), signature=signature)
    assert bytes.fromhex(signer[2:]) == maker
    parts, at, offset = {}, 56, start + length + 65
    for _ in range(count):
        kind, size = struct.unpack_from(">BH", manifest, at)
        name = manifest[at + 3 : at + 3 + size].decode()
        at += 3 + size
        (size,) = struct.unpack_from(">Q", manifest, at)
        contents = data[offset : offset + size]
        assert hashlib.sha256(contents).digest() == manifest[at + 8 : at + 40]
        parts[kind, name] = contents
        at, offset = at + 40, offset + size
    assert (at, offset) == (len(manifest), len(data))
    assert list(parts) == sorted(parts)
    return run, signer, parts


def counterfoil_domain() -> dict:
    salt = oracle.keccak(b"counterfoil.receipts.v1")
    described = [
        {"name": n, "type": t} for n, t in (("name", "string"), ("version", "string"), ("salt", "bytes32"))
    ]
    return {
        "types": {"EIP712Domain": described},
        "domain": {"name": "Counterfoil", "version": "1", "salt": salt},
    }


def root_of(frames: list[bytes]) -> tuple[int, bytes]:
    """Size and root of a log, the withheld receipts by the hashes of their subtrees."""
    stack: list[tuple[int, bytes]] = []
    size = 0

    def push(height: int, node: bytes) -> None:
        nonlocal size
        size += 1 << height
        while stack and stack[-1][0] == height and size % (2 << height) == 0:
            node = hashlib.sha256(b"\x01" + stack.pop()[1] + node).digest()
            height += 1
        stack.append((height, node))

    for frame in frames:
        if frame[:1] == b"R":
            push(0, hashlib.sha256(b"\x00" + frame[3:100]).digest())
        elif frame[:1] == b"W":
            first, count = struct.unpack_from(">QQ", frame, 1)
            assert first == size
            hashes = [frame[at : at + 32] for at in range(17, len(frame), 32)]
            for node in hashes:
                left = first + count - size
                height = min(left.bit_length() - 1, (size & -size).bit_length() - 1 if size else 64)
                push(height, node)
            assert size == first + count
    node = stack.pop()[1]
    while stack:
        node = hashlib.sha256(b"\x01" + stack.pop()[1] + node).digest()
    return size, node


def frames_of(part: bytes) -> list[bytes]:
    frames, at = [], 0
    while at < len(part):
        (length,) = struct.unpack_from(">I", part, at)
        frames.append(part[at + 4 : at + 4 + length])
        at += 4 + length
    return frames


def exported(run: Path, target: Path, **options: object) -> bytes:
    counterfoil.export(run, target, **options)  # type: ignore[arg-type]
    return target.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tensors": []},
        {"steps": [5]},
        {"steps": []},
        {"steps": [4, 5, 12], "tensors": ["gradients/weights"]},
    ],
    ids=["whole", "sealed", "one step", "no step", "one tensor"],
)
def test_another_reader_finds_the_signed_root(recorded: Path, tmp_path: Path, options: dict) -> None:
    """A bundle that only its writer can read, or whose withheld receipts lead elsewhere."""
    data = exported(recorded, tmp_path / "x.counterfoil", **options)
    assert data == exported(recorded, tmp_path / "again.counterfoil", **options), (
        "the same choice, the same bytes"
    )
    run, maker, parts = read_bundle(data)
    assert "0x" + run.hex() == Record(recorded).run
    assert maker == counterfoil.Key.device().address
    assert parts[1, ""] == (recorded / "spec.json").read_bytes()
    (log,) = [frames_of(part) for (kind, _), part in parts.items() if kind == 3]
    head = Record(recorded).tree_head()
    assert head is not None
    assert root_of(log) == (head.size, head.root)
    assert {name for kind, name in parts if kind == 4} <= {
        path.name for path in (recorded / "objects").iterdir()
    }


def test_a_bundle_says_what_the_folder_says(recorded: Path, tmp_path: Path) -> None:
    """A line that is better, or worse, because the evidence came in one file."""
    exported(recorded, tmp_path / "x.counterfoil")
    folder, bundle = verify(recorded), verify(tmp_path / "x.counterfoil")
    for line in ("status", "integrity", "signer", "time", "transition", "missing"):
        assert getattr(folder, line) == getattr(bundle, line)
    assert Record(tmp_path / "x.counterfoil").recipe == Record(recorded).recipe
    # Shown once more, and less of it.
    exported(tmp_path / "x.counterfoil", tmp_path / "less.counterfoil", steps=[5])
    assert verify(tmp_path / "less.counterfoil").status == "undecided"
    assert (tmp_path / "less.counterfoil").read_bytes() == exported(
        recorded, tmp_path / "x.counterfoil", steps=[5]
    )


def test_verification_needs_nothing_but_the_file(recorded: Path, tmp_path: Path) -> None:
    """A verifier that looks for a key folder, the run's folder or torch."""
    exported(recorded, tmp_path / "x.counterfoil")
    program = """
import sys
sys.modules["torch"] = None
import counterfoil
print(counterfoil.verify(sys.argv[1]).integrity)
"""
    home = tmp_path / "nowhere"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.counterfoil")],
        env={"COUNTERFOIL_HOME": str(home), "PATH": ""},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == verify(recorded).integrity + "\n"
    assert not home.exists()


def test_one_tensor_discloses_no_other(recorded: Path, tmp_path: Path) -> None:
    """A sibling's name, root or hash, or the key that opens it, beside the tensor that was chosen."""
    record = Record(recorded)
    checkpoint = next(receipt for receipt in record.receipts() if receipt.kind == "checkpoint")
    opened = record.opened(checkpoint)["parameters"]
    chosen, sibling = sorted(opened.entries, key=lambda entry: entry.name == "scale", reverse=True)
    assert (chosen.name, sibling.name) == ("scale", "weights")
    step = checkpoint.fields["step"]
    data = exported(recorded, tmp_path / "x.counterfoil", steps=[step], tensors=["parameters/scale"])
    assert chosen.root.hex().encode() in data
    for secret in (sibling.root, sibling.root.hex().encode(), b"weights"):
        assert secret not in data
    verdict = verify(tmp_path / "x.counterfoil")
    assert verdict.integrity.startswith("intact for the ")
    assert any("sibling" in note for note in verdict.notes)


def test_one_chunk_is_shown_without_the_rest(tmp_path: Path) -> None:
    """A chunk that drags its tensor along."""
    weights = np.random.default_rng(1).integers(0, 256, 10_000, np.uint8)
    with counterfoil.Run.create(tmp_path / "run") as run:
        run.record_step(1, {"gradients": counterfoil.commit_tensors({"g": weights[::-1].copy()})})
        run.record_checkpoint(1, {"parameters": run.store({"w": weights, "v": weights[:5]})})
    data = exported(tmp_path / "run", tmp_path / "x.counterfoil", tensors={"parameters/w": 3})
    assert weights[3072:4096].tobytes().hex().encode() in data
    assert weights[:64].tobytes() not in data
    assert weights[:64].tobytes().hex().encode() not in data
    assert verify(tmp_path / "x.counterfoil").status == "verified"
    for tensors in (["parameters/x"], {"parameters/w": 10}, {"gradients/g": 0}):
        with pytest.raises(CorruptJournal):
            counterfoil.export(tmp_path / "run", tmp_path / "y.counterfoil", tensors=tensors)
    assert not (tmp_path / "y.counterfoil").exists()


def test_what_is_no_bundle_is_refused_by_name(recorded: Path, copy: Path, tmp_path: Path) -> None:
    """A traceback where a sentence belongs."""
    data = exported(recorded, tmp_path / "x.counterfoil")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "cut").write_bytes(data[:-1])
    with pytest.raises(InvalidInput, match="no bundle of version 1"):
        verify(tmp_path / "empty")
    with pytest.raises(CorruptJournal, match="ask for it again") as caught:
        verify(tmp_path / "cut")
    assert (caught.value.expected, caught.value.actual) == (f"{len(data)} bytes", f"{len(data) - 1} bytes")
    with pytest.raises(NotFound):
        verify(tmp_path / "none")
    with pytest.raises(counterfoil.CounterfoilError):
        counterfoil.export(recorded, tmp_path)
    (copy / "anchors" / "0.json").write_text("no record")
    with pytest.raises(CorruptJournal, match="nothing was exported"):
        counterfoil.export(copy, tmp_path / "y.counterfoil")


def test_the_command_line(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exit code of a bundle that a folder would not have."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["counterfoil", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    target = tmp_path / "x.counterfoil"
    assert run("export", recorded, "-o", target)[0] == 0
    assert run("verify", target)[0] == 0
    assert run("export", recorded, "-o", target, "--steps", "5:6", "--tensor", "gradients/weights")[0] == 0
    code, out = run("verify", target, "--json")
    assert (code, json.loads(out)["status"]) == (4, "undecided")
    assert run("export", recorded, "-o", target, "--sealed")[0] == 0
    assert run("inspect", target)[0] == 0
    assert run("export", recorded, "-o", target, "--steps", "x")[0] == 2
    assert run("histories", recorded, target) == (
        0,
        "no contradiction: every position and size that both show is the same\n",
    )
    code, out = run("histories", recorded / "spec.json")
    assert code == 1
    assert "is no proof of two histories" in out
    assert run("erase", recorded)[0] == 2
