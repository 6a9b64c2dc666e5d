"""What a run's evidence says of one sample, of one file, and of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from counterfoil._native import Commitment, Opened, Receipt, Record
from counterfoil.errors import InvalidInput, NotFound
from counterfoil.files import PREFIX, commit_files
from counterfoil.verify import verify

INDEX, CONTENT = "index", "content"
"""Names of the entries that tell samples by their places in the dataset, and by their contents."""


@dataclass(frozen=True)
class Finding:
    """One line of a report: what was looked at, whether it is well, and why."""

    what: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Uses:
    """What a run's evidence says of one sample.

    Attributes:
        steps: Each step that was fed the sample, as worker, lane and number; those that a resume went back
            behind are among them.
        places: Its places in the dataset: several where equal samples lie.
        shown: Steps whose samples are shown.
        recorded: Steps that are recorded.
        gaps: Why more uses may be hidden; empty if `steps` are all.
    """

    steps: tuple[tuple[str, int, int], ...]
    places: tuple[int, ...]
    shown: int
    recorded: int
    gaps: tuple[str, ...]

    def __str__(self) -> str:
        """One sentence, and what stands against it."""
        numbers = ", ".join(str(step) for _, _, step in self.steps[:20])
        more = f" and {len(self.steps) - 20} more" if len(self.steps) > 20 else ""
        if self.steps:
            used = f"used at steps {numbers}{more}"
        elif self.gaps:
            used = "not seen"
        else:
            used = f"never used in the {self.recorded} steps of the lanes shown"
        return "\n".join([used, *(f"  not shown: {gap}" for gap in self.gaps)])


def uses(run: str | os.PathLike[str] | Record, sample: int | bytes, *, signer: str | None = None) -> Uses:
    """At which steps a run was fed a sample; if at none, whether that is shown.

    The evidence is verified first. What it says is its signer's word, as far as nobody replays the steps: the
    batch is signed as well, and must be of these samples.

    Args:
        run: A run folder or a bundle that opens `dataset` and `samples`; the dataset itself is not needed.
        sample: The sample's place in the dataset, or the 32 bytes of `counterfoil.torch.sample_digest`, which
            name it by its content.
        signer: The address that you expect to own the run, as for `verify`.

    Raises:
        Refuted: The evidence is broken.
        InvalidInput: There is no such place in the dataset.

    Example:
        >>> from counterfoil import Run, commit_tensors
        >>> with Run.create("run") as run:
        ...     fed = commit_tensors({"0/index": np.array([17, 4])}, keep=True)
        ...     _ = run.record_step(1, {"samples": fed})
        >>> [step for _, _, step in uses("run", 17).steps]
        [1]

    Source:
        docs/format.md, section 14.
    """
    record = run if isinstance(run, Record) else Record(run)
    verdict = verify(record, signer=signer)
    lanes = {place: record.receipts(*place) for place in record.lanes}
    receipts = [receipt for each in lanes.values() for receipt in each]
    dataset = _dataset(record, receipts)
    places, content = _places(dataset, sample)
    gaps = [] if dataset is not None else ["which samples are equal: no dataset is committed or shown"]
    for place, each in lanes.items():
        if record.size(*place) > len(each):
            gaps.append(f"{record.size(*place) - len(each)} receipts that were withheld")
        if not each or each[-1].kind != "close":
            gaps.append("what came after the last receipt shown: the lane is not closed")
    gaps += [f"the run is {verdict.status}"] if verdict.status != "verified" else []
    found, shown = [], 0
    steps = [receipt for receipt in receipts if receipt.kind == "step"]
    contents = set() if dataset is None else {bytes(digest) for digest in dataset}
    for receipt in steps:
        opened = record.opened(receipt).get("samples")
        if opened is None or opened.values is None:
            continue
        shown += 1
        used, unknown = _look(opened, places, content, contents, 0 if dataset is None else len(dataset))
        if used:
            found.append((receipt.fields["worker"], receipt.fields["lane"], receipt.fields["step"]))
        if unknown:
            gaps.append(f"what step {receipt.fields['step']} was fed: {unknown}")
    if shown < len(steps):
        gaps.append(f"the samples of {len(steps) - shown} of {len(steps)} steps")
    return Uses(tuple(found), tuple(sorted(places)), shown, len(steps), tuple(gaps[:10]))


def environment(run: str | os.PathLike[str] | Record) -> dict[str, Any]:
    """What the run's steps were last computed with: versions, threads, processor features, devices.

    Args:
        run: A run folder or a bundle that opens the environment of a checkpoint or step.

    Returns:
        Numbers and texts by name. Equal environments give equal bits; what differs is where to look when two
        runs do not.

    Raises:
        NotFound: There is no run, or it opens no environment.

    Example:
        >>> from counterfoil import Run, commit_tensors
        >>> with Run.create("computed") as run:
        ...     used = commit_tensors({"threads": 2}, keep=True)
        ...     _ = run.record_checkpoint(0, {"environment": used})
        >>> environment("computed")
        {'threads': 2}
    """
    record = run if isinstance(run, Record) else Record(run)
    receipts = [receipt for worker, lane in record.lanes for receipt in record.receipts(worker, lane)]
    for receipt in reversed(receipts):
        opened = record.opened(receipt).get("environment")
        if opened is not None:
            return opened.scalars()
    raise NotFound(f"{record.path} opens no environment", where=str(record.path))


def lineage(receipts: Iterable[Receipt]) -> list[Receipt]:
    """The receipts of a lane that lead to where it stands: without the steps that a resume went back behind."""
    found: list[tuple[int, Receipt]] = []
    for receipt in receipts:
        step = receipt.fields.get("step", 0)
        if receipt.kind == "resume":
            found = [known for known in found if known[0] <= step]
        found.append((step, receipt))
    return [receipt for _, receipt in found]


def saved_at(
    run: str | os.PathLike[str] | Record, path: str | os.PathLike[str], *, signer: str | None = None
) -> int:
    """The step at which the run's owner recorded these files; the evidence is verified first.

    Steps behind which a resume went back led nowhere, and their files are not the run's.

    Args:
        run: A run folder or a bundle.
        path: The file or folder as it lies here.
        signer: The address that you expect to own the run, as for `verify`.

    Raises:
        Refuted: The evidence is broken.
        NotFound: No receipt holds these bytes under these names; `.where` names what differs from the last
            that was recorded.

    Example:
        >>> from counterfoil import Run
        >>> with Run.create("saved") as run:
        ...     _ = Path("model.bin").write_bytes(b"weights")
        ...     _ = run.record_files("model.bin")
        >>> saved_at("saved", "model.bin")
        0
    """
    record = run if isinstance(run, Record) else Record(run)
    verify(record, signer=signer)
    ours = commit_files(Path(path))
    last: Commitment | None = None
    found: dict[bytes, int] = {}
    owner = record.receipts()[0].fields["owner"]
    lanes = [record.receipts(owner, lane) for worker, lane in record.lanes if worker == owner]
    for receipt in (receipt for each in lanes for receipt in lineage(each) if receipt.kind == "checkpoint"):
        opened = record.opened(receipt).get("extensions")
        if opened is not None and any(entry.name.startswith(PREFIX) for entry in opened.entries):
            last = opened.commitment
            found.setdefault(last.root, receipt.fields["step"])
    if ours.root in found:
        return found[ours.root]
    if last is None:
        raise NotFound("no receipt of this run speaks of files: call run.record_files", where=os.fspath(path))
    difference = ours.first_difference(last)
    where = difference[0].removeprefix(PREFIX) if difference is not None else os.fspath(path)
    raise NotFound(f"{where} is not what this run recorded", where=where)


def _dataset(
    record: Record, receipts: list[Receipt]
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None:
    genesis = next((receipt for receipt in receipts if receipt.kind == "genesis"), None)
    opened = record.opened(genesis).get("dataset") if genesis is not None else None
    if opened is None or opened.values is None or _lists(opened) != {CONTENT}:
        return None
    return np.frombuffer(opened.values[CONTENT], np.uint8).reshape(-1, 32)


def _places(
    dataset: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None, sample: int | bytes
) -> tuple[set[int], bytes | None]:
    """Where the sample lies, with all that are equal, and its content as far as it is known."""
    if isinstance(sample, int | np.integer):
        if dataset is None:
            return {sample}, None
        if not 0 <= sample < len(dataset):
            raise InvalidInput(
                f"the dataset has {len(dataset)} samples, there is none at {sample}", where=str(sample)
            )
        content = bytes(dataset[sample])
    else:
        content = bytes(sample) if isinstance(sample, bytes | bytearray | memoryview) else b""
        if len(content) != 32:
            raise InvalidInput("a sample's digest has 32 bytes", actual=str(len(content)), where="sample")
    if dataset is None:
        return set(), content
    equal = (dataset == np.frombuffer(content, np.uint8)).all(axis=1)
    return {int(place) for place in np.flatnonzero(equal)}, content


def _lists(opened: Opened) -> set[str]:
    """Names of the entries that are lists of samples, as this page's constants and docs/format.md say."""
    return {
        entry.name
        for entry in opened.entries
        if (
            entry.name.endswith(INDEX)
            and entry.dtype == "I64"
            and len(entry.shape) == 1
            and entry.shape[0] > 0
        )
        or (
            entry.name.endswith(CONTENT)
            and entry.dtype == "U8"
            and len(entry.shape) == 2
            and entry.shape[0] > 0
            and entry.shape[1] == 32
        )
    }


def _look(
    opened: Opened, places: set[int], content: bytes | None, contents: set[bytes], size: int
) -> tuple[bool, str]:
    """Whether a step was fed the sample, and why that may not be all."""
    assert opened.values is not None, "the caller looked"
    lists = _lists(opened)
    used, unknown = False, "" if opened.values else "nothing that is recorded"
    if len(lists) < len(opened.entries):
        unknown = "something that is no list of samples"
    for name, value in ((name, opened.values[name]) for name in lists):
        if name.endswith(INDEX):
            indices = np.frombuffer(value, np.int64)
            used |= bool(np.isin(indices, list(places)).any())
            if size and ((indices < 0) | (indices >= size)).any():
                unknown = "an index that the committed dataset does not have"
            elif not size and content is not None:
                unknown = "indices alone, and no dataset that says what lies there"
        else:
            digests = {value[start : start + 32] for start in range(0, len(value), 32)}
            used |= content in digests
            if content is None:
                unknown = "contents alone, and no dataset that says what lies at this place"
            elif not digests <= contents:
                unknown = "a content that the committed dataset does not have"
    return used, unknown
