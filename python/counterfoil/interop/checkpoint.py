"""A recorded checkpoint as files that others load and check, and the way back to its receipt."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import counterfoil
from counterfoil import _native, merkle
from counterfoil._native import Commitment, Entry, Receipt, Record
from counterfoil.commit import Alias, Description, commit_tensors
from counterfoil.errors import InvalidInput, NotFound, ProofError, RunExists, StorageError
from counterfoil.interop import bundle, tensor_file
from counterfoil.interop.keys import signing_key
from counterfoil.verify import verify

SIGNATURE = "model.sig"
_FILES = {
    "model.safetensors": ("parameters", "buffers"),
    "optimizer.safetensors": ("optimizer",),
}
_PREFIX = "counterfoil."
_PREDICATE = "counterfoil"


@dataclass(frozen=True)
class Report:
    """What checking an export showed.

    Attributes:
        files: The files whose digests are signed.
        receipt: Digest of the checkpoint's receipt, or None when the signature carries none.
        signer: Address that signed the receipt, or None.
        step: The checkpoint's step, or None.
        compared: Fields of the receipt that the files' tensors were found to be.
        notes: What was not shown.
    """

    files: tuple[str, ...]
    receipt: bytes | None
    signer: str | None
    step: int | None
    compared: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """A line for each thing that was shown, and for each that was not."""
        lines = [f"signed    {', '.join(self.files)}"]
        if self.receipt is not None:
            lines.append(f"receipt   0x{self.receipt.hex()} of step {self.step}, signed by {self.signer}")
        if self.compared:
            lines.append(f"tensors   {', '.join(self.compared)}: as the receipt says")
        return "\n".join(lines + [f"not shown: {note}" for note in self.notes])


def export_checkpoint(
    run: str | os.PathLike[str], folder: str | os.PathLike[str], *, step: int | None = None
) -> Receipt:
    """Writes a checkpoint of the owner's lane 0 as safetensors files and signs the folder.

    `model.safetensors` holds parameters and buffers under the names of a `state_dict`, also buffers
    that are not persistent; `optimizer.safetensors` the optimiser's state under the record's names.
    Of tied weights the first name is written; the others stand in the metadata and point to it, as
    `safetensors.torch.load_model` expects. `model.sig` is signed with the key folder's P-256 key.

    Args:
        run: The run folder; it is verified first.
        folder: Where the files go; must be missing or empty.
        step: The step after which the checkpoint was recorded; by default the last one.

    Returns:
        The checkpoint's receipt.

    Raises:
        Refuted: The run is refuted.
        NotFound: There is no such checkpoint, or the folder holds no opening or bytes of a tensor.
        RunExists: The folder is not empty.
        InvalidInput: A tensor lies in shards, or two would have one name; `.where` names it.
        KeyRefused: The key is open to other users, or no such key.

    Source:
        docs/format.md, sections 3, 4 and 8; the Model Signing specification, 1.0.
    """
    record, target = Record(run), Path(folder)
    verify(record)
    receipt = _checkpoint(record, step)
    receipts = record.receipts()
    plans: dict[str, list[tensor_file.Plan]] = {}
    metadata: dict[str, dict[str, str]] = {}
    for name in _FILES:
        entries = [entry for _, _, given in _states(record, receipt, name) for entry in given]
        plans[name] = [_plan(record, entry) for entry in entries if entry.kind in ("dense", "sharded")]
        metadata[name] = _metadata(receipt) | _aliases(entries)
    extra: dict[str, Any] = {"receipt": _document(receipt)}
    head = record.tree_head()
    if head is not None and head.size > receipt.sequence:
        leaves = [each.digest + each.signature for each in receipts[: head.size]]
        proof = merkle.inclusion_proof(leaves, receipt.sequence)
        extra |= {"head": _document(head), "inclusion": ["0x" + node.hex() for node in proof]}
    key = signing_key()
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise RunExists(f"{target} is not empty", where=str(target))
        for name, tensors in plans.items():
            if tensors or name == "model.safetensors":
                tensor_file.write(target / name, tensors, metadata[name])
        bundle.sign(target, SIGNATURE, {_PREDICATE: extra}, key)
    except OSError as failed:
        raise StorageError(str(failed), where=str(target)) from None
    return receipt


def verify_checkpoint(
    folder: str | os.PathLike[str],
    signature: str | os.PathLike[str],
    public_key: str | os.PathLike[str],
    *,
    run: str | os.PathLike[str] | None = None,
) -> Report:
    """Checks a Model Signing bundle over a folder, ours or another's, and the receipt in it.

    Args:
        folder: The signed folder.
        signature: The bundle; its place in the folder, if it lies there, is not signed.
        public_key: The signer's public key as PEM, learnt from the signer.
        run: The run folder with the checkpoint's opening, to compare the tensors with; it is
            verified first.

    Returns:
        What was shown, and in `.notes` what was not.

    Raises:
        ProofError: Something is not what was signed; `.where` names the file, receipt or tensor.
        Refuted: The run is refuted.
        InvalidInput: The bundle or the key is of a kind that is not supported.
        NotFound: There is no such file, folder or run.
    """
    path = Path(folder)
    predicate = bundle.verify(path, Path(signature), bundle.load_public_key(Path(public_key)))
    files = tuple(sorted(resource["name"] for resource in predicate["resources"]))
    if _PREDICATE not in predicate:
        if run is not None:
            raise ProofError("the signature carries no receipt to compare a run with", where="receipt")
        return Report(files, None, None, None, (), ("the signature carries no receipt",))
    extra = predicate[_PREDICATE]
    document: Any = extra.get("receipt") if isinstance(extra, dict) else None
    digest, leaf, signer = _checked(document, "CheckpointV1")
    message = document["message"]
    notes = _check_position(extra, message, leaf)
    # What the pinned key did not sign may be anybody's; these three say the same of one checkpoint.
    stated = _stated(message, digest)
    loaded = {name: tensor_file.load(path / name) for name in _FILES if name in files}
    for name, (_, metadata) in loaded.items():
        for key, value in stated.items():
            if metadata.get(key) != value:
                raise _differs(name, f"{name} is of another checkpoint: {key}", value, metadata.get(key))
    compared: tuple[str, ...] = ()
    if run is None:
        notes.append("tensors were not compared with the receipt: give the run folder")
    else:
        compared = _compare(Record(run), document, digest, loaded)
    notes += [f"{name} is signed, and no receipt speaks of it" for name in files if name not in _FILES]
    return Report(files, digest, signer, int(message["step"]), compared, tuple(notes))


def _checkpoint(record: Record, step: int | None) -> Receipt:
    found = [receipt for receipt in record.receipts() if receipt.kind == "checkpoint"]
    wanted = [receipt for receipt in found if step in (None, receipt.fields["step"])]
    if not wanted:
        steps = ", ".join(str(receipt.fields["step"]) for receipt in found) or "none"
        which = "no checkpoint" if step is None else f"no checkpoint after step {step}"
        raise NotFound(f"{record.path} holds {which}; it has: {steps}", where=str(record.path))
    return wanted[-1]


def _states(record: Record, receipt: Receipt, file: str) -> Iterator[tuple[str, Commitment, list[Entry]]]:
    """The given fields of a receipt that go into one file, with their entries."""
    opened = record.opened(receipt)
    for field in _FILES[file]:
        if receipt.fields[field] == bytes(32):
            continue
        if field not in opened:
            raise NotFound(f"{record.path} does not open {field} of the checkpoint", where=field)
        yield field, opened[field].commitment, opened[field].entries


def _named(name: str) -> str:
    """The name in a file of an entry: buffers have that of a `state_dict`."""
    return name.removeprefix("buffer/")


def _plan(record: Record, entry: Entry) -> tensor_file.Plan:
    if entry.kind == "sharded":
        raise InvalidInput(f"{entry.name} lies in shards, and its bytes are not here", where=entry.name)
    return tensor_file.Plan(
        _named(entry.name), entry.dtype, entry.shape, entry.size, partial(_bytes, record, entry)
    )


def _bytes(record: Record, entry: Entry) -> bytes:
    data = record.object(entry)
    if data is None:
        raise NotFound(f"{record.path} does not hold the bytes of {entry.name}", where=entry.name)
    return data


def _aliases(entries: list[Entry]) -> dict[str, str]:
    aliases = {_named(entry.name): _named(entry.target) for entry in entries if entry.target is not None}
    for name in aliases:
        if name == "format" or name.startswith(_PREFIX):
            raise InvalidInput(f"a tied weight cannot be called {name} in a file's metadata", where=name)
    return aliases


def _metadata(receipt: Receipt) -> dict[str, str]:
    stated = _stated(receipt.typed_data()["message"], receipt.digest)
    # Without "pt" transformers refuses to load a file.
    return {"format": "pt", **stated, f"{_PREFIX}version": counterfoil.__version__}


def _stated(message: Mapping[str, str], digest: bytes) -> dict[str, str]:
    stated = {name: message[name] for name in ("run", "worker", "lane", "sequence", "step")}
    return {_PREFIX + name: value for name, value in {**stated, "receipt": "0x" + digest.hex()}.items()}


def _document(signed: Receipt | counterfoil.TreeHead) -> dict[str, Any]:
    return {**signed.typed_data(), "signature": "0x" + signed.signature.hex()}


def _checked(document: Any, primary_type: str) -> tuple[bytes, bytes, str]:
    """Digest, leaf and signer of a signed document, which must be its worker."""
    where = "receipt" if primary_type == "CheckpointV1" else "head"
    try:
        unsigned = {key: value for key, value in document.items() if key != "signature"}
        signature = bytes.fromhex(document["signature"].removeprefix("0x"))
    except (KeyError, TypeError, ValueError, AttributeError) as refused:
        raise ProofError(f"the {where} is no signed document: {refused!r}", where=where) from None
    digest, signer, _ = _native.check_typed_data(json.dumps(unsigned), signature)
    if document["primaryType"] != primary_type:
        raise _differs(where, "this is another statement", primary_type, document["primaryType"])
    worker = document["message"]["worker"]
    if signer != worker:
        raise _differs(where, f"the {where} was not signed by its worker", worker, signer)
    return digest, digest + signature, worker


def _check_position(extra: dict[str, Any], message: dict[str, str], leaf: bytes) -> list[str]:
    """Checks the receipt's place under the tree head that came with it."""
    if "head" not in extra:
        return ["no tree head covers the receipt"]
    _checked(extra["head"], "TreeHeadV1")
    head = extra["head"]["message"]
    for name in ("run", "worker", "lane"):
        if head[name] != message[name]:
            raise _differs("head", f"the tree head is of another log: {name}", message[name], head[name])
    try:
        proof = [bytes.fromhex(node.removeprefix("0x")) for node in extra["inclusion"]]
    except (KeyError, TypeError, ValueError, AttributeError) as refused:
        raise ProofError(f"the inclusion proof cannot be read: {refused!r}", where="inclusion") from None
    root = bytes.fromhex(head["root"].removeprefix("0x"))
    merkle.verify_inclusion(leaf, int(message["sequence"]), int(head["size"]), proof, root)
    return []


def _compare(
    record: Record,
    document: dict[str, Any],
    digest: bytes,
    loaded: dict[str, tuple[dict[str, tensor_file.Tensor], dict[str, str]]],
) -> tuple[str, ...]:
    """Commits to the files' tensors again; returns the fields of the receipt that they are."""
    verify(record)
    message = document["message"]
    own = record.receipts(message["worker"], int(message["lane"]))
    sequence = int(message["sequence"])
    if sequence >= len(own) or own[sequence].digest != digest:
        actual = "0x" + own[sequence].digest.hex() if sequence < len(own) else "no receipt"
        raise _differs("receipt", "the run holds another receipt", "0x" + digest.hex(), actual)
    compared: list[str] = []
    for name in _FILES:
        tensors, metadata = loaded.get(name, ({}, {}))
        claimed: set[str] = set()
        aliases: dict[str, str] = {}
        for field, commitment, entries in _states(record, own[sequence], name):
            again = commit_tensors({entry.name: _again(entry, tensors) for entry in entries})
            difference = again.first_difference(commitment)
            if difference is not None:
                tensor, found, bound = difference
                expected, actual = (_root(each) for each in (bound, found))
                raise _differs(tensor, f"{name}: {tensor} is not what the receipt binds", expected, actual)
            claimed |= {_named(entry.name) for entry in entries if entry.kind == "dense"}
            aliases |= _aliases(entries)
            compared.append(field)
        if odd := tensors.keys() - claimed:
            raise _differs(min(odd), f"{name}: {min(odd)} is in no receipt", "no tensor", "a tensor")
        for alias, target in aliases.items():
            if metadata.get(alias) != target:
                raise _differs(alias, f"{name}: {alias} is tied otherwise", target, metadata.get(alias))
    return tuple(compared)


def _again(entry: Entry, tensors: dict[str, tensor_file.Tensor]) -> Any:
    if entry.target is not None:
        return Alias(entry.target)
    found = tensors.get(_named(entry.name))
    if entry.kind == "absent" or found is None:
        return None
    return Description(found.dtype, found.shape, found.data)


def _root(entry: Entry | None) -> str:
    return "no tensor" if entry is None else f"{entry.dtype} {entry.shape} {entry.root.hex()}"


def _differs(where: str, message: str, expected: Any, actual: Any) -> ProofError:
    return ProofError(
        f"{message}: expected {expected}, found {actual}",
        expected=str(expected),
        actual=str(actual),
        where=where,
    )
