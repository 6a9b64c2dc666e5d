"""Exports against the programs that read them: model_signing, safetensors, sigstore, eth_account."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from eth_account import Account
from eth_account.messages import encode_typed_data

import counterfoil
import forgery
import oracle
import samples
from counterfoil import Run, _native, cli, commit_tensors, interop
from counterfoil.errors import InvalidInput, KeyRefused, NotFound, ProofError, Refuted, RunExists
from counterfoil.interop import bundle, keys, tensor_file

SEEN = 12
"""Step of the last checkpoint of the recorded run."""


@pytest.fixture(scope="module")
def exported(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the recorded run, with an optimiser; not to be changed."""
    folder = tmp_path_factory.mktemp("exported")
    with samples.create(folder / "run") as run:
        training = samples.LeastSquares()
        for number in range(1, SEEN + 1):
            run.record_step(number, training.step(number))
            if number % 6 == 0:
                state = training.state()
                fields = {
                    "parameters": run.store(state),
                    "optimizer": run.store({"optimizer/0/weights/momentum": state["weights"] * 2}),
                    "buffers": run.store({"buffer/mean": np.arange(3.0)}),
                }
                run.record_checkpoint(number, fields)
    interop.export_checkpoint(folder / "run", folder / "export")
    (folder / "key.pem").write_text(interop.signing_public_key())
    return folder


@pytest.fixture
def export(exported: Path, tmp_path: Path) -> Path:
    """The export, its key and its run again, to be tampered with."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def check(folder: Path, **options: Any) -> interop.Report:
    return interop.verify_checkpoint(
        folder / "export", folder / "export" / "model.sig", folder / "key.pem", **options
    )


def stock(action: str, folder: Path, signature: Path, **options: Path) -> subprocess.CompletedProcess[str]:
    """Runs the unchanged program of PyPI."""
    named = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "model_signing", action, "key", folder, "--signature", signature, *named]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def stock_accepts(folder: Path) -> bool:
    export = folder / "export"
    result = stock("verify", export, export / "model.sig", public_key=folder / "key.pem")
    assert ("Verification succeeded" in result.stdout) == (result.returncode == 0), result.stderr
    assert "Traceback" not in result.stderr
    return result.returncode == 0


def refused(folder: Path, **options: Any) -> ProofError:
    with pytest.raises(ProofError) as caught:
        check(folder, **options)
    return caught.value


def payload_of(signature: Path) -> Any:
    return json.loads(base64.b64decode(json.loads(signature.read_text())["dsseEnvelope"]["payload"]))


def resigned(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """What the holder of the P-256 key can do: sign the folder as it is, with other extra fields."""
    signature = folder / "export" / "model.sig"
    extra = payload_of(signature)["predicate"]["counterfoil"]
    change(extra)
    signature.unlink()
    bundle.sign(folder / "export", "model.sig", {"counterfoil": extra}, keys.signing_key())


def sealed(path: Path, payload: bytes, key: ec.EllipticCurvePrivateKey | None = None, **changes: Any) -> None:
    """A bundle around any payload, made without the library's own statement."""
    key = key or keys.signing_key()
    kind = "application/vnd.in-toto+json"
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    signature = key.sign(signed, ec.ECDSA(bundle.hashes.SHA256()))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }
    document = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": None}, "tlogEntries": []},
        "dsseEnvelope": envelope | changes,
    }
    path.write_text(json.dumps(document))


# What others read.


def test_stock_verification_accepts_an_export(exported: Path) -> None:
    """A statement of another shape, or a receipt field that the stock program does not tolerate."""
    assert stock_accepts(exported)


def test_the_report_says_what_was_compared(exported: Path) -> None:
    """A report that claims a comparison with tensors which nobody made."""
    report = check(exported, run=exported / "run")
    assert report.files == ("model.safetensors", "optimizer.safetensors")
    assert report.compared == ("parameters", "buffers", "optimizer")
    assert report.notes == ()
    alone = check(exported)
    assert alone.compared == ()
    assert alone.notes == ("tensors were not compared with the receipt: give the run folder",)
    receipt = counterfoil.Record(exported / "run").receipts()[-2]
    assert (alone.receipt, alone.signer, alone.step) == (receipt.digest, receipt.signer, SEEN)


def test_metadata_names_the_receipt(exported: Path) -> None:
    """Metadata of another run, lane or step, with which a file would be filed under the wrong run."""
    record = counterfoil.Record(exported / "run")
    receipt = record.receipts()[-2]
    for name in ("model", "optimizer"):
        with safetensors.safe_open(exported / "export" / f"{name}.safetensors", "numpy") as file:
            metadata = file.metadata()
        assert metadata == {
            "format": "pt",
            "counterfoil.run": record.run,
            "counterfoil.worker": receipt.signer,
            "counterfoil.lane": "0",
            "counterfoil.sequence": str(receipt.sequence),
            "counterfoil.step": str(SEEN),
            "counterfoil.receipt": "0x" + receipt.digest.hex(),
            "counterfoil.version": counterfoil.__version__,
        }


def test_an_earlier_checkpoint_is_exported_by_its_step(exported: Path, tmp_path: Path) -> None:
    """`step` ignored, so that the last weights are passed off as earlier ones."""
    receipt = interop.export_checkpoint(exported / "run", tmp_path / "six", step=6)
    assert receipt.fields["step"] == 6
    early = safetensors.numpy.load_file(tmp_path / "six" / "model.safetensors")
    late = safetensors.numpy.load_file(exported / "export" / "model.safetensors")
    assert not np.array_equal(early["weights"], late["weights"])
    training = samples.LeastSquares()
    for number in range(1, 7):
        training.step(number)
    assert early["weights"].tobytes() == training.weights.tobytes()


def test_every_dtype_survives_bit_for_bit(tmp_path: Path) -> None:
    """A dtype that numpy does not know (BF16, F8) cast, dropped or misaligned on its way."""
    chosen = np.random.default_rng(5)
    data = {tag: chosen.integers(0, 2, 8 * 6, np.uint8).tobytes() for tag in counterfoil.DTYPES}
    data = {tag: bytes_[: 6 * tensor_file._SIZES[tag]] for tag, bytes_ in data.items()}
    plans = [
        tensor_file.Plan(f"t/{tag}", tag, [2, 3], len(bytes_), lambda bytes_=bytes_: bytes_)
        for tag, bytes_ in data.items()
    ]
    plans.append(tensor_file.Plan("empty", "BF16", [0, 3], 0, bytes))
    plans.append(tensor_file.Plan("scalar", "F64", [], 8, lambda: b"\x01" * 8))
    tensor_file.write(tmp_path / "f", plans, {"a": "b"})
    theirs = dict(safetensors.deserialize((tmp_path / "f").read_bytes()))
    ours, metadata = tensor_file.load(tmp_path / "f")
    assert metadata == {"a": "b"}
    assert theirs.keys() == ours.keys() == {plan.name for plan in plans}
    for plan in plans:
        assert theirs[plan.name]["dtype"] == ours[plan.name].dtype == plan.dtype
        assert list(theirs[plan.name]["shape"]) == ours[plan.name].shape == plan.shape
        assert bytes(theirs[plan.name]["data"]) == ours[plan.name].data.tobytes() == plan.fetch()
        # A reader that maps the file looks at the elements where they lie.
        assert plan.size == 0 or ours[plan.name].data.ctypes.data % tensor_file._SIZES[plan.dtype] == 0


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run of a model in BF16 with tied weights, buffers and Adam; and the model."""
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("tied")
    model = tied_model(torch)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with Run.create(folder / "run") as run:
        run.attach(model, optimizer)
        for _ in range(3):
            model(torch.randn(5, 8, dtype=torch.bfloat16)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    interop.export_checkpoint(folder / "run", folder / "export")
    (folder / "key.pem").write_text(interop.signing_public_key())
    return folder, model, optimizer


def tied_model(torch: Any) -> Any:
    torch.manual_seed(3)
    layers = [torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 8)]
    layers[2].weight = layers[0].weight
    return torch.nn.Sequential(*layers).to(torch.bfloat16)


def test_tied_weights_and_buffers_load_into_a_model(tied: Any) -> None:
    """An alias written as a second tensor, or lost, with which a strict load fails."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, load_model

    folder, model, _ = tied
    fresh = tied_model(torch)
    with torch.no_grad():
        for tensor in fresh.state_dict().values():
            tensor.zero_()
    assert load_model(fresh, folder / "export" / "model.safetensors") == (set(), [])
    assert fresh[0].weight is fresh[2].weight
    for name, tensor in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name
    with safetensors.safe_open(folder / "export" / "model.safetensors", "pt") as file:
        assert file.metadata()["2.weight"] == "0.weight"
    # A load that knows no tied weights copies them by the metadata.
    assert load_file(folder / "export" / "model.safetensors")["0.weight"].dtype == torch.bfloat16


def test_the_optimizer_s_state_is_that_of_the_run(tied: Any) -> None:
    """Moments written under another parameter's name."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    folder, model, optimizer = tied
    state = load_file(folder / "export" / "optimizer.safetensors")
    parameter = dict(model.named_parameters())["1.bias"]
    for key, value in optimizer.state[parameter].items():
        assert torch.equal(state[f"optimizer/0/1.bias/{key}"], value)


def test_tied_weights_are_compared_with_the_receipt(tied: Any, tmp_path: Path) -> None:
    """A tie that is changed in the metadata alone: other weights in the loaded model."""
    folder = Path(shutil.copytree(tied[0], tmp_path / "copy"))
    assert check(folder, run=folder / "run").compared == ("parameters", "buffers", "optimizer")
    assert stock_accepts(folder)
    path = folder / "export" / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"2.weight":"0.weight"', b'"2.weight":"0.breite"'))
    resigned(folder, lambda _: None)
    error = refused(folder, run=folder / "run")
    assert (error.where, error.expected, error.actual) == ("2.weight", "0.weight", "0.breite")


# What is refused.


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_one_flipped_byte_is_refused_by_both(export: Path, name: str) -> None:
    """A file that is listed and not hashed to its end."""
    path = export / "export" / name
    data = bytearray(path.read_bytes())
    before = oracle.sha256(bytes(data)).hex()
    data[-1] ^= 1
    path.write_bytes(data)
    assert not stock_accepts(export)
    error = refused(export)
    assert (error.where, error.expected) == (name, before)
    assert error.actual == oracle.sha256(bytes(data)).hex()


def test_a_flipped_byte_of_the_signed_statement_is_refused_by_both(export: Path) -> None:
    """A signature over less than the statement."""
    signature = export / "export" / "model.sig"
    document = json.loads(signature.read_text())
    payload = base64.b64decode(document["dsseEnvelope"]["payload"])
    digest = payload_of(signature)["predicate"]["counterfoil"]["receipt"]["message"]["parameters"]
    assert digest.encode() in payload
    other = payload.replace(digest.encode(), b"0x" + b"1" * 64)
    document["dsseEnvelope"]["payload"] = base64.b64encode(other).decode()
    signature.write_text(json.dumps(document))
    assert not stock_accepts(export)
    assert "signature does not hold" in str(refused(export))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda f: (f / "model.safetensors").rename(f / "weights.safetensors"), "model.safetensors"),
        (lambda f: (f / "optimizer.safetensors").unlink(), "optimizer.safetensors"),
        (lambda f: (f / "added.bin").write_bytes(b"x"), "added.bin"),
        (lambda f: (f / "below").mkdir() or (f / "below" / "x").touch(), "below/x"),
        (lambda f: (f / "link").symlink_to("model.safetensors"), "link"),
        (
            lambda f: (
                (f / "model.safetensors").rename(f.parent / "away")
                and (f / "model.safetensors").symlink_to(f.parent / "away")
            ),
            "model.safetensors",
        ),
    ],
    ids=["renamed", "missing", "added", "added below", "link", "link outside"],
)
def test_a_changed_folder_is_refused_by_both(export: Path, change: Any, where: str) -> None:
    """Only the files that are listed are looked at, or a link is followed."""
    change(export / "export")
    assert not stock_accepts(export)
    assert refused(export).where == where


def test_another_key_is_refused_by_both(export: Path) -> None:
    """A signature that is checked with whatever key its hint names."""
    other = ec.generate_private_key(ec.SECP256R1())
    (export / "key.pem").write_bytes(
        other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    assert not stock_accepts(export)
    assert "another key" in str(refused(export))
    signature = export / "export" / "model.sig"
    sealed(signature, base64.b64decode(json.loads(signature.read_text())["dsseEnvelope"]["payload"]))
    assert not stock_accepts(export)
    assert "does not hold" in str(refused(export))


def test_a_receipt_of_another_checkpoint_is_refused(export: Path) -> None:
    """A swapped receipt that the exporter signs: true weights dated to another step."""
    receipts = counterfoil.Record(export / "run").receipts()
    early, late = (receipt for receipt in receipts if receipt.kind == "checkpoint")

    def swap(extra: dict[str, Any]) -> None:
        extra["receipt"] = {**early.typed_data(), "signature": "0x" + early.signature.hex()}

    resigned(export, swap)
    assert stock_accepts(export)
    # The inclusion proof is of the receipt that belongs here.
    refused(export)

    def lone(extra: dict[str, Any]) -> None:
        del extra["head"], extra["inclusion"]

    resigned(export, lone)
    error = refused(export)
    assert error.where == "model.safetensors"
    assert (error.expected, error.actual) == (str(early.sequence), str(late.sequence))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda r: r["message"].update(parameters="0x" + "11" * 32), "not signed by its worker"),
        (lambda r: r["message"].update(worker="0x" + "11" * 20), "not signed by its worker"),
        (lambda r: r.update(signature="0x" + "11" * 65), "signature is refused"),
        (lambda r: r.update(signature=7), "no signed document"),
        (lambda r: r.update(primaryType="StepV1"), "its flags is missing"),
        (lambda r: r["domain"].update(version="2"), "in the one way"),
        (lambda r: r["types"]["CheckpointV1"].pop(), "in the one way"),
        (lambda r: r["message"].update(lane="00"), "in the one way"),
        (lambda r: r["message"].update(lane=str(2**32)), "does not fit its type uint32"),
        (lambda r: r["message"].update(worker=r["message"]["worker"].lower()), "in the one way"),
        (lambda r: r["message"].pop("lane"), "its lane is missing, or no uint32"),
        (lambda r: r["message"].update(more="0"), "in the one way"),
        (lambda r: r.clear(), "no signed document"),
    ],
)
def test_a_forged_receipt_is_refused(export: Path, change: Any, what: str) -> None:
    """A receipt that is shown without its signature, its domain or its type having been checked."""
    resigned(export, lambda extra: change(extra["receipt"]))
    assert what in str(refused(export))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda e: e["head"]["message"].update(size="16"), "not signed by its worker"),
        (lambda e: e["inclusion"].pop(), "proof"),
        (lambda e: e["inclusion"].__setitem__(0, "0x" + "11" * 32), "proof"),
        (lambda e: e["inclusion"].__setitem__(0, 7), "cannot be read"),
        (lambda e: e.pop("inclusion"), "cannot be read"),
        (lambda e: e.update(head=None), "no signed document"),
    ],
    ids=["other size", "short proof", "other proof", "no hash", "no proof", "no head"],
)
def test_a_forged_place_in_the_log_is_refused(export: Path, change: Any, what: str) -> None:
    """A receipt that no tree head covers, reported as one that stands in its log."""
    resigned(export, change)
    assert what in str(refused(export))


def test_a_head_of_another_log_is_refused(export: Path, recorded: Path) -> None:
    """A head by the same worker for another run, under which the receipt does not stand."""
    other = counterfoil.Record(recorded).tree_head()
    document = {**other.typed_data(), "signature": "0x" + other.signature.hex()}
    resigned(export, lambda extra: extra.update(head=document))
    assert "of another log" in str(refused(export))


def test_no_head_is_said(export: Path) -> None:
    """An export of an open run, whose missing head nobody mentions."""
    resigned(export, lambda extra: (extra.pop("head"), extra.pop("inclusion")))
    assert "no tree head covers the receipt" in check(export).notes


def test_other_weights_are_refused_with_the_run(export: Path) -> None:
    """The exporter signs changed weights beside a true receipt: only the run's opening tells."""
    path = export / "export" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    resigned(export, lambda _: None)
    assert stock_accepts(export)
    assert check(export).compared == ()
    error = refused(export, run=export / "run")
    (changed,) = {"weights", "scale", "buffer/mean"} & {error.where}
    assert changed in str(error)
    assert error.expected != error.actual


def test_a_tensor_too_many_or_too_few_is_refused_with_the_run(export: Path) -> None:
    """Tensors that the receipt does not bind, smuggled in or left out."""
    path = export / "export" / "model.safetensors"
    tensors, metadata = tensor_file.load(path)
    plans = [
        tensor_file.Plan(name, each.dtype, each.shape, each.data.size, each.data.tobytes)
        for name, each in tensors.items()
    ]
    for plan, where in (
        ([*plans, tensor_file.Plan("zz", "U8", [1], 1, lambda: b"x")], "zz"),
        (plans[1:], plans[0].name),
    ):
        tensor_file.write(path.with_suffix(".new"), plan, metadata)
        path.with_suffix(".new").rename(path)
        resigned(export, lambda _: None)
        assert refused(export, run=export / "run").where.removeprefix("buffer/") == where


def test_a_run_that_holds_another_receipt_is_refused(export: Path, recorded: Path) -> None:
    """A comparison with whatever run is given."""
    error = refused(export, run=recorded)
    assert error.where == "receipt"


def test_a_tampered_run_is_refuted_before_it_is_compared(export: Path) -> None:
    """An opening that was changed along with the files, and a receipt's body that still looks right."""
    object_ = next((export / "run" / "objects").iterdir())
    object_.write_bytes(bytes(object_.stat().st_size))
    with pytest.raises(Refuted):
        check(export, run=export / "run")
    with pytest.raises(Refuted):
        interop.export_checkpoint(export / "run", export / "again")
    assert not (export / "again").exists()


# Bundles of others.


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder with a subfolder and git's files, and a fresh key."""
    (tmp_path / "export" / "a" / "b").mkdir(parents=True)
    (tmp_path / "export" / ".git").mkdir()
    (tmp_path / "export" / ".git" / "HEAD").write_text("ref")
    for name in ("a/b/x.bin", "a/x.bin", "a-b", "z"):
        (tmp_path / "export" / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda c: c.name)
def test_a_bundle_of_the_stock_program_is_read(foreign: Path, curve: ec.EllipticCurve) -> None:
    """A reader that knows only what we write: order of files, hash of the curve, unknown receipt."""
    key = ec.generate_private_key(curve)
    (foreign / "private.pem").write_bytes(private_pem(key))
    (foreign / "key.pem").write_bytes(keys.public_pem(key.public_key()))
    export = foreign / "export"
    made = stock("sign", export, export / "model.sig", private_key=foreign / "private.pem")
    assert made.returncode == 0, made.stderr
    report = check(foreign)
    assert report.files == ("a-b", "a/b/x.bin", "a/x.bin", "z")
    assert report.receipt is None
    assert report.notes == ("the signature carries no receipt",)
    with pytest.raises(ProofError, match="no receipt"):
        check(foreign, run=foreign)
    (export / "a" / "x.bin").write_bytes(b"other")
    assert refused(foreign).where == "a/x.bin"


def statement(export: Path, **changes: Any) -> dict[str, Any]:
    resources = [
        {"name": name, "algorithm": "sha256", "digest": oracle.sha256((export / name).read_bytes()).hex()}
        for name in ("a-b", "a/b/x.bin", "a/x.bin", "z")
    ]
    resources = changes.pop("resources", resources)
    whole = oracle.sha256(b"".join(bytes.fromhex(each["digest"]) for each in resources)).hex()
    serialization = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": whole}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": serialization | changes.pop("serialization", {}),
            "resources": resources,
        },
        **changes,
    }


def resource(name: Any) -> dict[str, Any]:
    return {"name": name, "algorithm": "sha256", "digest": oracle.sha256(b"z").hex()}


def test_the_control_of_the_statements_below_is_accepted(foreign: Path) -> None:
    (foreign / "key.pem").write_text(interop.signing_public_key())
    sealed(foreign / "export" / "model.sig", json.dumps(statement(foreign / "export")).encode())
    assert len(check(foreign).files) == 4


@pytest.mark.parametrize(
    ("changes", "kind", "what"),
    [
        ({"_type": "https://in-toto.io/Statement/v0.1"}, InvalidInput, "not supported"),
        ({"predicateType": "https://slsa.dev/provenance/v1"}, InvalidInput, "not supported"),
        ({"predicateType": None}, InvalidInput, "not supported"),
        ({"serialization": {"method": "shards"}}, InvalidInput, "not supported"),
        ({"serialization": {"hash_type": "blake3"}}, InvalidInput, "not supported"),
        ({"subject": []}, InvalidInput, "no model signature"),
        ({"subject": [{"digest": {"sha256": "11" * 32}}]}, ProofError, "not the list of files"),
        ({"resources": []}, ProofError, "not signed"),
        ({"resources": [resource("../key.pem")]}, ProofError, "no path inside"),
        ({"resources": [resource("a/../z")]}, ProofError, "no path inside"),
        ({"resources": [resource("/etc/hostname")]}, ProofError, "no path inside"),
        ({"resources": [resource("")]}, ProofError, "no path inside"),
        ({"resources": [resource(".")]}, ProofError, "no path inside"),
        ({"resources": [resource("a\\x.bin")]}, ProofError, "no path inside"),
        ({"resources": [resource("z\0")]}, ProofError, "no path inside"),
        ({"resources": [resource(7)]}, ProofError, "no path inside"),
        ({"resources": [resource("z"), resource("z")]}, ProofError, "twice"),
        ({"resources": [resource("z") | {"algorithm": "sha1"}]}, InvalidInput, "not supported"),
    ],
)
def test_a_hostile_statement_is_refused(foreign: Path, changes: Any, kind: Any, what: str) -> None:
    """A validly signed statement that reaches outside the folder, or leaves out what it seems to cover."""
    (foreign / "key.pem").write_text(interop.signing_public_key())
    sealed(foreign / "export" / "model.sig", json.dumps(statement(foreign / "export", **changes)).encode())
    with pytest.raises(kind, match=what):
        check(foreign)


def test_files_that_the_signer_left_out_are_refused(foreign: Path) -> None:
    """`ignore_paths` obeyed: a file beside the signed ones that nobody vouches for."""
    (foreign / "key.pem").write_text(interop.signing_public_key())
    listed = [each for each in statement(foreign / "export")["predicate"]["resources"] if each["name"] != "z"]
    signed = statement(foreign / "export", serialization={"ignore_paths": ["z"]}, resources=listed)
    sealed(foreign / "export" / "model.sig", json.dumps(signed).encode())
    assert refused(foreign).where == "z"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace('"mediaType":', '"mediaType": "x", "mediaType":'),
        lambda text: text.replace("v0.3", "v0.2"),
        lambda text: text.replace("in-toto+json", "in-toto+yaml"),
        lambda text: text.replace('"signatures": [', '"signatures": [{"sig": "AA==", "keyid": ""}, '),
        lambda text: text.replace('"payload": "', '"payload": "!'),
        lambda text: text.replace('"publicKey"', '"certificate"'),
        lambda text: text[:-1],
        lambda _: "[" * 100_000,
        lambda _: "[]",
        lambda _: '{"a": NaN}',
        lambda _: " " * (bundle.MAX_BUNDLE + 1),
        lambda _: "\x00",
    ],
    ids=[
        "double key", "media type", "payload type", "two signatures", "base64", "certificate",
        "cut off", "nested", "list", "no number", "too long", "no text",
    ],
)  # fmt: skip
def test_a_malformed_bundle_is_refused(export: Path, spoil: Any) -> None:
    """A parser that takes the last of two keys, or falls over (a traceback, all memory)."""
    signature = export / "export" / "model.sig"
    spoiled = spoil(signature.read_text())
    assert spoiled != signature.read_text()
    signature.write_text(spoiled)
    with pytest.raises(InvalidInput):
        check(export)


def test_a_double_key_inside_the_signed_statement_is_refused(foreign: Path) -> None:
    """Two readers that see two lists of files in one signed statement."""
    (foreign / "key.pem").write_text(interop.signing_public_key())
    text = json.dumps(statement(foreign / "export"))
    twice = text.replace('"resources":', '"resources": [], "resources":')
    sealed(foreign / "export" / "model.sig", twice.encode())
    with pytest.raises(InvalidInput, match="twice"):
        check(foreign)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda header, data: (b"\xff" * 8, data),
        lambda header, data: (header, data[:-1]),
        lambda header, data: (header, data + b"\0"),
        lambda header, data: (header.replace(b"[0,", b"[1,"), data),
        lambda header, data: (header.replace(b'"shape":[40,8]', b'"shape":[41,8]'), data),
        lambda header, data: (header.replace(b'"shape":[40,8]', b'"shape":[-4,8]'), data),
        lambda header, data: (header.replace(b'"F64"', b'"F65"'), data),
        lambda header, data: (header.replace(b'"dtype"', b'"dtipe"'), data),
        lambda header, data: (b"", b""),
    ],
    ids=["length", "short", "long", "hole", "shape", "negative", "dtype", "key", "empty"],
)
def test_a_malformed_tensor_file_is_refused(export: Path, spoil: Any) -> None:
    """Tensors that overlap, reach behind the file, or leave bytes that nobody commits to."""
    path = export / "export" / "model.safetensors"
    data = path.read_bytes()
    split = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(b"".join(spoil(data[:split], data[split:])))
    assert path.read_bytes() != data
    with pytest.raises(safetensors.SafetensorError):
        safetensors.deserialize(path.read_bytes())
    resigned(export, lambda _: None)
    assert refused(export).where == "model.safetensors"


# What cannot be exported.


def test_what_is_not_there_is_named(export: Path) -> None:
    """An export without the weights it promises."""
    with pytest.raises(NotFound, match="after step 7; it has: 6, 12") as caught:
        interop.export_checkpoint(export / "run", export / "new", step=7)
    with pytest.raises(RunExists):
        interop.export_checkpoint(export / "run", export / "export")
    record = counterfoil.Record(export / "run")
    weights = record.opened(record.receipts()[-2])["parameters"].entries[1]
    (export / "run" / "objects" / weights.root.hex()).unlink()
    with pytest.raises(NotFound) as caught:
        interop.export_checkpoint(export / "run", export / "new")
    assert caught.value.where == weights.name


def test_a_withheld_opening_is_named(export: Path) -> None:
    """An export without a field that its receipt binds."""
    forgery.rewrite(export / "run", lambda payloads: [each for each in payloads if each[:1] != b"O"])
    with pytest.raises(NotFound, match="does not open parameters"):
        interop.export_checkpoint(export / "run", export / "new")
    with pytest.raises(NotFound, match="does not open parameters"):
        check(export, run=export / "run")


def test_shards_are_refused_by_name(tmp_path: Path) -> None:
    """A tensor in blocks, whose bytes nobody has, left out in silence."""
    block = counterfoil.commit_block(np.ones((2, 2), np.float32), (0, 0))
    sharded = commit_tensors({"w": counterfoil.Sharded("F32", (2, 2), [block])})
    with Run.create(tmp_path / "run") as run:
        run.record_checkpoint(0, {"parameters": sharded})
    with pytest.raises(InvalidInput) as caught:
        interop.export_checkpoint(tmp_path / "run", tmp_path / "export")
    assert caught.value.where == "w"


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    """A buffer that overwrites the parameter of its name."""
    with Run.create(tmp_path / "run") as run:
        tensors = {"w": np.ones(2)}
        buffers = {"buffer/w": np.zeros(2)}
        run.record_checkpoint(0, {"parameters": run.store(tensors), "buffers": run.store(buffers)})
    with pytest.raises(InvalidInput) as caught:
        interop.export_checkpoint(tmp_path / "run", tmp_path / "export")
    assert caught.value.where == "w"


# Keys.


def test_keys_are_private_and_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A key that others can read, or a new one for each signature, which nobody can pin."""
    monkeypatch.setenv("COUNTERFOIL_HOME", str(tmp_path))
    first = interop.signing_public_key(), keys.witness_key().public_key().public_bytes_raw()
    assert first == (interop.signing_public_key(), keys.witness_key().public_key().public_bytes_raw())
    for name in ("model-signing.pem", "witness.pem"):
        path = tmp_path / name
        assert path.stat().st_mode & 0o777 == 0o600
        assert load_pem_private_key(path.read_bytes(), None)
        path.chmod(0o640)
    assert not list(tmp_path.glob("*.partial"))
    for read in (keys.signing_key, keys.witness_key):
        with pytest.raises(KeyRefused, match="chmod 600"):
            read()


def test_a_key_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An export signed with a curve that its readers do not expect."""
    monkeypatch.setenv("COUNTERFOIL_HOME", str(tmp_path))
    for contents in (private_pem(ec.generate_private_key(ec.SECP256K1())), b"no key"):
        for name, read in (("model-signing.pem", keys.signing_key), ("witness.pem", keys.witness_key)):
            (tmp_path / name).write_bytes(contents)
            (tmp_path / name).chmod(0o600)
            with pytest.raises(KeyRefused):
                read()


# Typed data, against implementations that share no code with it.


def test_an_exported_receipt_is_checked_by_eth_account_and_by_us(exported: Path) -> None:
    """A document that only this package can hash."""
    extra = payload_of(exported / "export" / "model.sig")["predicate"]["counterfoil"]
    for name, kind in (("receipt", "CheckpointV1"), ("head", "TreeHeadV1")):
        document = dict(extra[name])
        signature = bytes.fromhex(document.pop("signature")[2:])
        signer = Account.recover_message(encode_typed_data(full_message=document), signature=signature)
        assert document["primaryType"] == kind
        assert _native.check_typed_data(json.dumps(document), signature)[1] == signer
        assert signer == document["message"]["worker"]


def test_a_document_is_written_in_one_way(exported: Path) -> None:
    """A second document of one receipt: other spelling, other domain, more or fewer fields, a bundle's type."""
    receipt = counterfoil.Record(exported / "run").receipts()[0]
    document = receipt.typed_data()
    assert _native.check_typed_data(json.dumps(document), receipt.signature)[0] == receipt.digest
    message, domain = document["message"], document["domain"]
    for other in (
        {**document, "message": {**message, "worker": message["worker"].lower()}},
        {**document, "message": {**message, "lane": "00"}},
        {**document, "message": {**message, "lane": 0}},
        {**document, "message": {**message, "more": "1"}},
        {**document, "message": {k: v for k, v in message.items() if k != "time"}},
        {**document, "domain": {**domain, "chainId": 1}},
        {**document, "primaryType": "BundleV1"},
        {**document, "primaryType": "OtherV1"},
        {},
        [],
    ):
        with pytest.raises(ProofError):
            _native.check_typed_data(json.dumps(other), receipt.signature)
    with pytest.raises(ProofError):
        _native.check_typed_data("[" * 100_000, receipt.signature)


# The command line, and what it needs.


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `counterfoil ARGUMENTS` in this process: (exit code, standard output, error output)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["counterfoil", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return run


def test_the_command_line_exports_and_verifies(command, export: Path) -> None:
    """Exit codes that a script reads as something else."""
    new = export / "new"
    code, out, err = command("checkpoint", "export", export / "run", "-o", new, "--step", 6)
    assert code == 0, err
    assert "BEGIN PUBLIC KEY" in out
    options = ["--signature", new / "model.sig", "--public-key", export / "key.pem"]
    code, out, _ = command("checkpoint", "verify", new, *options)
    assert code == 0
    assert "not shown: tensors were not compared" in out
    code, out, _ = command("checkpoint", "verify", new, *options, "--run", export / "run", "--json")
    assert code == 0
    assert json.loads(out)["compared"] == ["parameters", "buffers", "optimizer"]
    (new / "model.safetensors").write_bytes(b"other")
    code, out, _ = command("checkpoint", "verify", new, *options)
    assert code == 3
    assert out.startswith("refuted: model.safetensors")
    code, out, _ = command("checkpoint", "verify", new, *options, "--json")
    assert code == 3
    assert json.loads(out)["where"] == "model.safetensors"
    assert command("checkpoint", "verify", export / "nowhere", *options)[0] == 1
    assert command("checkpoint", "export", export / "run")[0] == 2


def test_the_public_key_is_written_beside_the_export(command, export: Path) -> None:
    """A key inside the signed folder makes its own signature fail."""
    new = export / "new"
    arguments = ["checkpoint", "export", export / "run", "-o", new, "--public-key"]
    code, _, err = command(*arguments, new / "key.pem")
    assert code == 1
    assert "choose another place" in err
    assert not new.exists()
    code, out, _ = command(*arguments, export / "new.pem", "--json")
    assert code == 0
    assert (export / "new.pem").read_text() == json.loads(out)["public_key"]
    assert (export / "new.pem").read_bytes() == (export / "key.pem").read_bytes()


def test_a_note_is_printed_for_a_run_that_holds(command, export: Path) -> None:
    """A witness' signature under a head that nobody checked."""
    code, out, err = command("checkpoint", "note", export / "run")
    assert code == 0
    head = counterfoil.Record(export / "run").tree_head()
    found = interop.read_checkpoint_note(out, err.strip())
    assert (found.size, found.root, found.head_digest) == (head.size, head.root, head.digest)
    next((export / "run" / "objects").iterdir()).write_bytes(b"x")
    code, out, _ = command("checkpoint", "note", export / "run")
    assert code == 3
    assert "\N{EM DASH}" not in out


def test_without_cryptography_the_hint_names_the_extra(recorded: Path) -> None:
    """The hint to install torch, which would not help; and an import that needs cryptography always."""
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "import counterfoil.cli\n"
        f"sys.argv = ['counterfoil', 'checkpoint', 'note', {str(recorded)!r}]\n"
        "counterfoil.cli.main()"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "counterfoil[interop]" in result.stderr
    assert "torch" not in result.stderr


# Tree heads as C2SP checkpoints.


@pytest.fixture(scope="module")
def head(exported: Path) -> counterfoil.TreeHead:
    return counterfoil.Record(exported / "run").tree_head()


def test_a_note_holds_the_head(exported: Path, head: counterfoil.TreeHead) -> None:
    """A root, size or log of something else than the ledger."""
    found = interop.read_checkpoint_note(interop.checkpoint_note(head), interop.verifier_key(head))
    receipts = counterfoil.Record(exported / "run").receipts()
    worker = bytes.fromhex(head.signer[2:])
    assert found.origin == f"counterfoil/{oracle.log_id(head.fields['run'], worker, 0).hex()}"
    assert found.size == len(receipts)
    assert found.root == oracle.root([receipt.digest + receipt.signature for receipt in receipts])
    assert (found.head_digest, found.head_signature) == (head.digest, head.signature)


def test_sigstore_reads_our_note(head: counterfoil.TreeHead) -> None:
    """A note that only this package can read. The parser and the curve are sigstore's and OpenSSL's."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from sigstore._internal.rekor.checkpoint import SignedCheckpoint

    parsed = SignedCheckpoint.from_text(interop.checkpoint_note(head))
    assert parsed.checkpoint.log_size == head.size
    assert parsed.checkpoint.log_hash == head.root.hex()
    (signature,) = parsed.signed_note.signatures
    name, key_id, encoded = interop.verifier_key(head).split("+", 2)
    assert signature.name == parsed.checkpoint.origin == name
    public = base64.b64decode(encoded)
    assert public[:1] == b"\1"
    assert oracle.sha256(name.encode() + b"\n" + public)[:4] == signature.sig_hash == bytes.fromhex(key_id)
    Ed25519PublicKey.from_public_bytes(public[1:]).verify(
        base64.b64decode(signature.signature), parsed.signed_note.note.encode()
    )


def test_the_specification_s_example_is_accepted() -> None:
    """Another key id rule or another signed text than C2SP's. From c2sp.org/signed-note."""
    key = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
    encoded = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
    note = f"This is an example message.\n\n\N{EM DASH} example.com/foo {encoded}\n"
    assert interop.note.open_note(note, key) == "This is an example message.\n"
    with pytest.raises(ProofError, match="three lines"):
        interop.read_checkpoint_note(note, key)
    with pytest.raises(InvalidInput):
        interop.note.open_note(note, key.replace("530d903a", "530d903b"))


def other_signature(note: str, name: str) -> str:
    return f"{note}\N{EM DASH} {name} {base64.b64encode(bytes(68)).decode()}\n"


def test_signatures_of_unknown_keys_are_ignored(head: counterfoil.TreeHead) -> None:
    """A witness' cosignature that makes the log's own note unreadable, also under the log's name or id."""
    note, key = interop.checkpoint_note(head), interop.verifier_key(head)
    found = interop.read_checkpoint_note(note, key)
    text, _, own = note.rpartition("\n\n")
    unknown = "".join(other_signature("", name) for name in ("witness.example/w1", found.origin) * 7)
    same_id = base64.b64encode(bytes.fromhex(key.split("+")[1]) + bytes(64)).decode()
    unknown += f"\N{EM DASH} witness.example/w1 {same_id}\n"
    assert interop.read_checkpoint_note(f"{note}{unknown}", key) == found
    assert interop.read_checkpoint_note(f"{text}\n\n{unknown}{own}", key) == found
    with pytest.raises(ProofError, match="not signed by"):
        interop.read_checkpoint_note(f"{text}\n\n{unknown}", key)


def signed_note(text: str) -> tuple[str, str]:
    """A note with any text under the witness key, and its verifier key, by the specification alone."""
    key, name = keys.witness_key(), "log"
    public = b"\1" + key.public_key().public_bytes_raw()
    key_id = oracle.sha256(name.encode() + b"\n" + public)[:4]
    signature = base64.b64encode(key_id + key.sign(text.encode())).decode()
    vkey = f"{name}+{key_id.hex()}+{base64.b64encode(public).decode()}"
    return f"{text}\n\N{EM DASH} {name} {signature}\n", vkey


ROOT = base64.b64encode(bytes(32)).decode()


def test_a_checkpoint_of_another_log_is_read() -> None:
    """A reader that demands our extension line, or our name as origin."""
    for text, size in ((f"log\n0\n{ROOT}\n", 0), (f"log\n{2**64 - 1}\n{ROOT}\nmore\n", 2**64 - 1)):
        found = interop.read_checkpoint_note(*signed_note(text))
        assert (found.origin, found.size, found.head_digest) == ("log", size, None)


def test_a_key_of_many_logs_vouches_for_the_one_that_is_pinned() -> None:
    """A genuine note of another log of the same owner, taken for this one."""
    with pytest.raises(ProofError, match="another log") as caught:
        interop.read_checkpoint_note(*signed_note(f"other\n1\n{ROOT}\n"))
    assert (caught.value.expected, caught.value.actual) == ("log", "other")


@pytest.mark.parametrize(
    "text",
    [
        f"log\n01\n{ROOT}\n", f"log\n+1\n{ROOT}\n", f"log\n1 \n{ROOT}\n", f"log\n\n{ROOT}\n",
        f"log\n\N{ARABIC-INDIC DIGIT ONE}\n{ROOT}\n", f"log\n{2**64}\n{ROOT}\n", f"log\n-1\n{ROOT}\n",
        f"log\n1\n{ROOT[:-1]}\n", f"log\n1\n{ROOT[:-4]}\n", f"log\n1\n{ROOT[:-2]}B=\n", "log\n1\n",
        f"log\n1\n{ROOT}\n\nmore\n", f"\n1\n{ROOT}\n", f"log\r\n1\r\n{ROOT}\r\n", f"log\t\n1\n{ROOT}\n",
        f"log\n1\n{ROOT}\ncounterfoil.tree-head.v1 AAAA\n",
    ],
)  # fmt: skip
def test_a_malformed_checkpoint_is_refused(text: str) -> None:
    """A second way to write one size or root, under a valid signature."""
    with pytest.raises(ProofError, match="no checkpoint note"):
        interop.read_checkpoint_note(*signed_note(text))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda note: note.replace("\n17\n", "\n18\n"),
        lambda note: note.replace("counterfoil/", "counterfeit/", 1),
        lambda note: note.replace("tree-head.v1 ", "tree-head.v2 "),
        lambda note: note.replace("\n\n", "\n"),
        lambda note: note.replace("\n", "\r\n"),
        lambda note: note.rstrip("\n"),
        lambda note: note[: note.index("\N{EM DASH}")],
        lambda note: note.replace("\N{EM DASH}", "-"),
        lambda note: note.replace("\N{EM DASH} ", "\N{EM DASH}  "),
        lambda note: other_signature(note, "a+b"),
        lambda note: note + "\N{EM DASH} witness.example AAAA\n",
        lambda note: note.replace("\n\n", "\n\ud800\n\n"),
        lambda note: note + other_signature("", "w.example") * 20_000,
        lambda note: "",
    ],
    ids=[
        "size", "origin", "extension", "no blank line", "CRLF", "no end", "unsigned", "hyphen", "two spaces",
        "plus", "short signature", "surrogate", "too long", "empty",
    ],
)  # fmt: skip
def test_a_changed_note_is_refused(head: counterfoil.TreeHead, spoil: Any) -> None:
    """A body, a line or an encoding that the signature does not cover."""
    note = interop.checkpoint_note(head)
    assert spoil(note) != note
    with pytest.raises(ProofError):
        interop.read_checkpoint_note(spoil(note), interop.verifier_key(head))


def test_a_signature_of_the_known_key_that_fails_refuses_the_note(head: counterfoil.TreeHead) -> None:
    """One good signature beside a bad one of the same key: the note says two things."""
    note, key = interop.checkpoint_note(head), interop.verifier_key(head)
    name, key_id, _ = key.split("+", 2)
    bad = base64.b64encode(bytes.fromhex(key_id) + bytes(64)).decode()
    with pytest.raises(ProofError, match="does not hold"):
        interop.read_checkpoint_note(f"{note}\N{EM DASH} {name} {bad}\n", key)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: "",
        lambda key: key.rpartition("+")[0],
        lambda key: key + "=",
        lambda key: "x" + key,
        lambda key: "two words" + key,
        lambda key: key.replace("+A", "+B"),
    ],
    ids=["empty", "no key", "base64", "other name", "space", "other type"],
)
def test_a_malformed_verifier_key_is_refused(head: counterfoil.TreeHead, spoil: Any) -> None:
    """A key id that is not recomputed: a name under which another key would be accepted."""
    key = interop.verifier_key(head)
    assert spoil(key) != key
    with pytest.raises(InvalidInput):
        interop.read_checkpoint_note(interop.checkpoint_note(head), spoil(key))


def test_a_key_that_is_not_the_log_s_is_refused(
    head: counterfoil.TreeHead, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A note that is accepted under any key of the right name."""
    note = interop.checkpoint_note(head)
    monkeypatch.setenv("COUNTERFOIL_HOME", str(tmp_path))
    with pytest.raises(ProofError, match="not signed by"):
        interop.read_checkpoint_note(note, interop.verifier_key(head))


def test_importing_counterfoil_needs_no_cryptography() -> None:
    """An eager import that makes the extra a requirement of everybody."""
    program = "import sys, counterfoil, counterfoil.cli; print('cryptography' in sys.modules)"
    environment = {**os.environ}
    output = subprocess.check_output([sys.executable, "-c", program], text=True, env=environment)
    assert output.strip() == "False"
