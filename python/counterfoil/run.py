"""Recording a run: a folder that turns into evidence while a model trains."""

from __future__ import annotations

import importlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from counterfoil import _native, records
from counterfoil._native import Commitment, Key, Receipt, Record, TreeHead
from counterfoil.anchoring import Anchoring, AnyChain, attempt
from counterfoil.commit import commit_tensors, describe, items
from counterfoil.display import GREY, badge, card
from counterfoil.errors import InvalidInput
from counterfoil.files import commit_files

LOCKS = ("requirements.txt", "pylock.toml", "uv.lock")
"""Files of a recipe beside its sources: which versions it is made for."""

_FINISHED, _EXCEPTION = 0, 1
_WORKER, _OBSERVER = 1, 3
_STATEMENTS = ("preference-set", "evaluation", "release", "output")
_PLACES = {
    kind: tuple(prefix + part for part in ("Worker", "Lane", "Sequence"))
    for kind, prefix in (("evaluation", "evaluated"), ("release", "released"), ("output", "release"))
}


@dataclass(frozen=True)
class Session:
    """A key that signs a lane's receipts in the place of its worker's.

    Attributes:
        key: The key, for example `Key.generate()`.
        expires: Unix seconds from which on its receipts count for nobody; None for no end. Receipts that
            are verified later count only as far as a confirmed anchor shows them to be older.
    """

    key: Key
    expires: int | None = None


class Run:
    """One worker's lane of one run, open for writing.

    Make one with `Run.create`, `Run.join` or `Run.open`, and use it as a context manager: leaving
    the block seals the run, also on an exception. Nothing leaves the machine.

    Attributes:
        path: The run's folder.
        id: The run's id, `0x` and 64 hexadecimal digits.
        spec: The contents of `spec.json`.
        key: The key that signs.
        worker: Address of the worker whose lane this is; that of `key` unless it is a session key.
        lane: Number of this lane.
        replayable: Whether the run has a recipe, so that its steps can be re-executed.
        ranks: Processes that record this run together, each a lane; more than 1 by `counterfoil.torch.open_lane`.
        resumed: Whether this object continues what another one began.
        closed: Whether this object no longer writes.
    """

    def __init__(self, path: Path, ledger: _native.Ledger, key: Key, lane: int) -> None:
        """Wraps an opened lane; use `create`, `join` or `open`."""
        self.path = path.absolute()
        self.id = ledger.run
        self.spec: dict[str, Any] = json.loads((path / "spec.json").read_bytes())
        self.key = key
        self.worker = ledger.worker
        self.lane = lane
        self.replayable = (path / "recipe").is_dir()
        self.ranks = 1
        self.resumed = False
        self._dataset_size: int | None = None
        self.closed = False
        self._ledger = ledger
        self._last_step = ledger.step
        self._has_warned = False
        self._callbacks: list[Callable[[int], object]] = []
        self._anchoring: Anchoring | None = None
        self._anchor_closed: Callable[[], object] = bool
        self._writers: list[Callable[[], None]] = []
        self._summary: Callable[[], Any] | None = None

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        key: Key | None = None,
        spec: Mapping[str, Any] | None = None,
        recipe: str | os.PathLike[str] | None = None,
        policy: Mapping[str, int] | None = None,
        public: Sequence[str] = (),
        dataset: Commitment | None = None,
        session: Session | None = None,
        nonce: bytes | None = None,
    ) -> Self:
        """Begins a run in a new folder.

        Args:
            path: The folder; must be missing or empty.
            key: Signs the receipts; by default the device key, made on first use.
            spec: What you pin about the run, in JSON's types; it becomes part of the run's id.
            recipe: A Python file, or a folder with `recipe.py`, that can re-execute the steps. It
                is copied into the run and its digest is part of the genesis receipt: a folder's `*.py`,
                `requirements.txt`, `pylock.toml` and `uv.lock`.
            policy: The floor: every how many steps a field must be committed, for example
                `{"gradients": 1, "parameters": 50}`. Nobody can go below it later.
            public: Fields that are not blinded, for example `["step.metrics"]`.
            dataset: The samples that training draws from, as of `counterfoil.torch.commit_dataset`;
                fixed by the first receipt.
            session: Another key that signs the steps: `key` then signs twice, the first receipt and
                its permission for the session's key, and can stay in a wallet or a vault.
            nonce: 32 bytes that take part in the run's id, such as those of an accepted job; random by default.

        Raises:
            RunExists: The folder is not empty.
            InvalidInput: The specification, policy or recipe is refused.
            KeyRefused: The device key cannot be used.
        """
        folder = Path(path)
        text = specification(spec, policy, public)
        if nonce is not None and len(nonce) != 32:
            raise InvalidInput("a nonce has 32 bytes", actual=str(len(nonce)), where="nonce")
        key = key or Key.device()
        files = {} if recipe is None else _read_recipe(Path(recipe))
        ledger = _native.Ledger.create(folder, text, files, (dataset, nonce), key, _session_key(session))
        return cls(folder, ledger, session.key if session else key, 0)

    @classmethod
    def join(
        cls,
        path: str | os.PathLike[str],
        *,
        lane: int,
        rank: int = 0,
        key: Key | None = None,
        session: Session | None = None,
        observes: bool = False,
    ) -> Self:
        """Begins a new lane of an existing run: another worker, rank or device, or one who observes.

        What an observer writes is no part of the training, and a step among it is refuted.

        Raises:
            NotFound: There is no run in the folder.
            RunExists: This key wrote this lane before.
        """
        key = key or Key.device()
        role = _OBSERVER if observes else _WORKER
        ledger = _native.Ledger.join(Path(path), lane, role, rank, key, _session_key(session))
        return cls(Path(path), ledger, session.key if session else key, lane)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        lane: int = 0,
        key: Key | None = None,
        session: Session | None = None,
    ) -> Self:
        """Continues a lane; an unfinished write of an interrupted process is dropped.

        `key` is the worker's, or a session's that the worker allowed before. The worker's key with a
        new session hands the lane over to that one.

        Raises:
            NotFound: There is no such lane of this key.
            RunLocked: Another process writes it.
            CorruptJournal: It is damaged, or shorter than an anchor says.
            KeyRefused: The lane was begun on another machine; use `join`.
        """
        key = key or Key.device()
        ledger = _native.Ledger.open(Path(path), lane, key, _session_key(session))
        run = cls(Path(path), ledger, session.key if session else key, lane)
        run.resumed = True
        return run

    def attach(self, model: Any, optimizer: Any, **options: Any) -> Any:
        """Records every step of a PyTorch optimiser, and with `batches` what it was fed.

        Args:
            model: The model whose parameters the optimiser steps.
            optimizer: A torch optimiser, a trainer's wrapper around one, or a list of them.
            options: every, checkpoint_every, budget, also, restore, store_gradients, as of
                `counterfoil.torch.attach`, which also says what is refused.

        Returns:
            The recorder, for its `log(loss=loss)`.
        """
        recorder = importlib.import_module("counterfoil.torch").attach(self, model, optimizer, **options)
        self._summary = recorder.summary
        return recorder

    def summary(self) -> Any:
        """Where the time went since `attach`, until now or until the run was closed.

        Raises:
            InvalidInput: Nothing was attached.
        """
        if self._summary is None:
            raise InvalidInput("nothing was attached to this run", where="summary")
        return self._summary()

    def batches(self, loader: Iterable[Any]) -> Any:
        """Iterates over batches and records what was fed; see `counterfoil.torch.batches`."""
        return importlib.import_module("counterfoil.torch").batches(self, loader)

    @property
    def dataset_size(self) -> int | None:
        """Samples of the dataset that the first receipt commits to; None without one."""
        if self._dataset_size is None:
            record = Record(self.path)
            opened = record.opened(record.receipts()[0]).get("dataset")
            self._dataset_size = 0 if opened is None else int(opened.entries[0].shape[0])
        return self._dataset_size or None

    @property
    def step(self) -> int:
        """The last recorded step, 0 before the first. Waits for a step that a GPU still hashes."""
        self._write()
        return self._last_step if self.closed else self._ledger.step

    def record_step(
        self,
        step: int,
        fields: Mapping[str, Commitment],
        *,
        flags: int = 0,
        work_units: int = 0,
    ) -> int:
        """Signs a receipt of one optimiser step.

        Args:
            step: Its number, one more than the last.
            fields: State commitments by field: batch, samples, contribution, gradients,
                parameters, optimizer, buffers, hyperparameters, randomness, environment, metrics,
                extensions.
            flags: 1 skipped, 2 not replayable, 4 hashed by the fallback path.
            work_units: Units of work that the step counts for, by your own measure.

        Returns:
            The receipt's sequence number. The receipt itself is had from `receipts()`, which waits
            until it is durable.

        Raises:
            InvalidInput: The step is not the next, a field is unknown, or a due field is missing.
            RunClosed: The run was closed.
            StorageFull: The disk is full; receipts up to the last flush are safe.
        """
        self._write()
        ends = self._ledger.expires
        if ends is not None and time.time() >= ends and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"the session's key ended at {ends} (Unix seconds): what it signs from now on counts for nobody. "
                "Open the run again with the worker's key, or with a new session",
                stacklevel=2,
            )
        return self._ledger.record(
            "step", {"step": step, "flags": flags, "workUnits": work_units}, dict(fields)
        )

    def record_policy(self, first_step: int, cadence: Mapping[str, int]) -> int:
        """Signs the cadences that hold from a later step on: every how many steps, 0 for never.

        Args:
            first_step: The first step they hold for, later than the last recorded one.
            cadence: By field of a step, or `checkpoint`; the others are 0.

        Raises:
            InvalidInput: A name is unknown, or the policy reaches back or goes below the floor.
        """
        self._write()
        values = {f"{name}Every": every for name, every in cadence.items()}
        return self._ledger.record("policy", {"firstStep": first_step, **values}, {})

    def record_resume(self, step: int, reason: int) -> int:
        """Signs that training goes on behind an earlier step; those since stay recorded, and lead nowhere.

        A checkpoint that follows must hold the state that the run had at this step.

        Args:
            step: A recorded step, or 0.
            reason: 1 for an interruption, 2 for a checkpoint that was loaded.

        Raises:
            InvalidInput: The step is later than the last recorded one.
        """
        self._write()
        return self._ledger.record("resume", {"step": step, "reason": reason, "droppedBytes": 0}, {})

    def record_checkpoint(self, step: int, fields: Mapping[str, Commitment]) -> int:
        """Signs a receipt of a complete state after `step`; see `store` for its tensors.

        Args:
            step: The last recorded step.
            fields: State commitments by field: parameters, optimizer, buffers, hyperparameters,
                randomness, environment, extensions.

        Raises:
            InvalidInput: The step is not the last recorded one, or a field is unknown.
        """
        self._write()
        return self._ledger.record("checkpoint", {"step": step}, dict(fields))

    def record_round(
        self, round: int, party: int, *, received: Commitment, sent: Commitment, metrics: Commitment
    ) -> int:
        """Signs what this party of a federation received and sent; see `counterfoil.federated`.

        Args:
            round: Number of the round, by whoever aggregates.
            party: The number by which the engine knows the sender.
            received: State commitment to the arrays that came.
            sent: To those of the answer.
            metrics: To the numbers beside them, such as how many examples there were.
        """
        self._write()
        fields = {"received": received, "sent": sent, "metrics": metrics}
        return self._ledger.record("round", {"round": round, "party": party}, fields)

    def record_aggregation(self, round: int, *, inputs: Mapping[str, bytes], output: Commitment) -> int:
        """Signs what was made of several parties' answers; see `counterfoil.federated`.

        Args:
            round: Number of the round.
            inputs: Digests of the round receipts that went in, 32 bytes each, by `<worker>/<lane>` with the
                worker's address in lower case. Verification demands that these ledgers hold them.
            output: State commitment to the arrays that came out.
        """
        self._write()
        digests = {name: np.frombuffer(digest, np.uint8) for name, digest in inputs.items()}
        fields = {"inputs": commit_tensors(digests, keep=True), "output": output}
        return self._ledger.record("aggregation", {"round": round}, fields)

    def record_observed_head(self, worker: str, lane: int, *, size: int, root: bytes) -> int:
        """Signs that another lane of this run has come this far, as the tree head says that its writer gave.

        Verification refutes a run whose lane does not contain a head that was observed, and an anchor of this lane
        dates the other one up to there.

        Args:
            worker: Address of the lane's worker.
            lane: Its number.
            size: Receipts that the head speaks of.
            root: Root over them, 32 bytes.
        """
        self._write()
        told: dict[str, int | str | bytes] = {
            "observedWorker": worker,
            "observedLane": lane,
            "size": size,
            "root": root,
        }
        return self._ledger.record("observed-head", told, {})

    def record_replay(
        self,
        replayed: Receipt,
        *,
        outcome: int,
        answer: bytes = bytes(32),
        beacon: bytes = bytes(32),
        commitment: bytes = bytes(32),
        salt: bytes = bytes(32),
    ) -> int:
        """Signs what came of executing another worker's step again; see `counterfoil.attest`.

        Args:
            replayed: The step's receipt.
            outcome: 1 the same, 2 another one, 0 a promise of an answer.
            answer, beacon, commitment, salt: As docs/format.md, section 16, has them, 32 bytes each.
        """
        self._write()
        told: dict[str, int | str | bytes] = {
            "outcome": outcome,
            "beacon": beacon,
            "commitment": commitment,
            "answer": answer,
            "salt": salt,
        }
        return self._ledger.record("replay", place("replayed", replayed) | told, {})

    def record_fingerprint(self, fingerprinted: Receipt, key: bytes, sketch: Commitment) -> int:
        """Signs a sketch of the gradients of a step; see `counterfoil.fingerprints`.

        Args:
            fingerprinted: The step's receipt.
            key: The 32 bytes under which it was made; zero if they follow from the receipt.
            sketch: To the units, int64 of shape (4, 64), kept by value.
        """
        self._write()
        told = place("fingerprinted", fingerprinted) | {"key": key}
        return self._ledger.record("fingerprint", told, {"sketch": sketch})

    def record(
        self, kind: str, told: Mapping[str, int | str | bytes], fields: Mapping[str, Commitment]
    ) -> int:
        """Signs a receipt that speaks of others, whatever it says of them; `counterfoil.alignment` asks first.

        Args:
            kind: preference-set, evaluation, release or output.
            told: Its public fields by the names of docs/format.md, section 4; see `place`.
            fields: Its commitments.

        Returns:
            The receipt's sequence number.

        Raises:
            InvalidInput: It is another kind, or has no such field.
            RunClosed: The run was closed.
        """
        if kind not in _STATEMENTS or not set(told) <= {*_PLACES.get(kind, ()), "receipt"}:
            raise InvalidInput(
                f"{kind} with {', '.join(sorted(told)) or 'no public field'} is recorded otherwise, or not at all",
                expected=", ".join(_STATEMENTS),
                actual=kind,
                where="kind",
            )
        self._write()
        return self._ledger.record(kind, dict(told), dict(fields))

    def record_files(self, path: str | os.PathLike[str]) -> int:
        """Signs which files hold a checkpoint of the last step, whatever saved them.

        `torch.save`, safetensors, `torch.distributed.checkpoint` and `save_pretrained` of Hugging Face write files;
        `counterfoil.saved_at` finds the receipt of theirs.

        Args:
            path: A file, or a folder whose files are recorded by their paths in it.

        Raises:
            NotFound: There is no such file, or the folder is empty.
            StorageError: A file cannot be read.
        """
        return self.record_checkpoint(self.step, {"extensions": commit_files(Path(path))})

    def store(self, tensors: Mapping[str, Any]) -> Commitment:
        """Stores the bytes of named tensors under their roots, durably.

        Returns:
            The commitment to them, as of `commit_tensors`.

        Raises:
            InvalidInput: A tensor is in parts, of which no bytes are here.
        """
        described = {name: describe(name, value) for name, value in items(tensors)}
        for name, description in described.items():
            if description.parts is not None:
                raise InvalidInput(f"{name} is in parts, and its bytes are not here to be stored", where=name)
        commitment = commit_tensors(described)
        for entry in commitment.entries:
            flat = described[entry.name].data
            if flat is not None:
                self._ledger.store(entry.root, flat)
        return commitment

    def commit_records(self, contents: Iterable[bytes | str]) -> Commitment:
        """Commits to a list of records of which each can be shown or erased alone.

        Each record is hashed with random bytes of its own; records and random bytes are kept in the
        run's folder until `counterfoil.erase` forgets them.

        Args:
            contents: The records: sample ids, preferences, anything that speaks of a person.

        Returns:
            A commitment for a field of a receipt, such as `samples`.

        Raises:
            InvalidInput: There is no record.
            StorageError: The list cannot be written.
        """
        return records.commit_records(self.path, contents)

    def on_close(self, callback: Callable[[int], object]) -> None:
        """Calls `callback(reason)` before the close receipt; 0 finished, 1 exception.

        One that returns True says that something was not recorded: the reason becomes 1.
        """
        self._callbacks.append(callback)

    def on_flush(self, callback: Callable[[], None]) -> None:
        """Calls `callback()` before receipts are added, counted or made durable, to record what waits."""
        self._writers.append(callback)

    def anchor_to(
        self, chain: AnyChain, key: Key | None = None, *, minutes: float = 10, steps: int | None = None
    ) -> None:
        """Anchors the run on a chain from now on: now and then while it is recorded, and when it is closed.

        That happens in a thread of its own and never stops the training: what does not work is a
        warning, and waits in the outbox or for the next time. A run that ends with an exception is
        not waited for, and one that is dropped without being closed is anchored no more; `counterfoil
        anchor` anchors it later.

        Args:
            chain: The chain.
            key: The key that pays, as of `Chain.anchor`; where a session's key signs, the worker's has to be named.
            minutes: How long a receipt waits at most. A batch of any size costs the same; ten minutes
                make at most 145 anchors a day.
            steps: After how many steps it waits no longer.

        Raises:
            InvalidInput: The run was closed, or is anchored already; the key, the minutes or the steps are
                none to anchor with.

        Example:
            >>> from counterfoil import Chain
            >>> chain = Chain.dev("devchain")
            >>> with Run.create("watched") as run:
            ...     run.anchor_to(chain)
            >>> chain.head("watched")  # one anchor, over the genesis, policy and close receipts
            (1, 3)
        """
        if self.closed or self._anchoring is not None:
            raise InvalidInput(f"{self.path} was closed, or is anchored already", where=str(self.path))
        if not minutes > 0 or (steps is not None and steps < 1):
            raise InvalidInput(
                "minutes are more than 0, and steps at least 1",
                actual=f"{minutes} minutes, {steps} steps",
                where="anchor_to",
            )
        if key is None and self.key.address != self.worker:
            raise InvalidInput(
                "the run ledger refuses anchors that a session's key pays for; pass the worker's key",
                expected=self.worker,
                actual=self.key.address,
                where="key",
            )
        self._anchoring = Anchoring(self, chain, key, 60 * minutes, steps)
        self._anchor_closed = self._anchoring.anchor_closed

    def flush(self) -> None:
        """Returns when every receipt recorded so far is durable."""
        self._write()
        self._ledger.flush()

    def _write(self) -> None:
        for write in self._writers:
            write()

    def receipts(self) -> list[Receipt]:
        """All receipts of this lane, after making them durable."""
        if not self.closed:
            self.flush()
        return Record(self.path).receipts(self.worker, self.lane)

    def tree_head(self) -> TreeHead:
        """The signed size and root of this lane, over every receipt recorded so far."""
        if not self.closed:
            self._write()
            return self._ledger.tree_head()
        head = Record(self.path).tree_head(self.worker, self.lane)
        assert head is not None, "closing a run signs a tree head"
        return head

    def close(self) -> None:
        """Seals the lane with a close receipt and a signed tree head. Twice does nothing."""
        self._close(_FINISHED)

    def _close(self, reason: int) -> None:
        if self.closed:
            return
        failed: BaseException | None = None
        while self._callbacks:
            try:
                if self._callbacks.pop()(reason) is True:
                    reason = _EXCEPTION
            except BaseException as error:
                reason, failed = _EXCEPTION, failed or error
        self._writers.clear()
        if self._summary is not None:
            # The recorder holds the model, which a closed run lets go.
            summary = self._summary()
            self._summary = lambda: summary
        self._last_step = self._ledger.step
        if self._anchoring is not None:
            self._anchoring.stop()
        self._ledger.close(reason)
        self.closed = True
        if failed is not None:
            raise failed
        if self._anchoring is not None and reason == _FINISHED:
            self._anchoring.join()
            attempt(self._anchor_closed)

    def __enter__(self) -> Self:
        """Returns the run itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Seals the run; a failure to seal never hides the exception that led here."""
        try:
            self._close(_EXCEPTION if kind else _FINISHED)
        except Exception as failed:
            if error is None:
                raise
            error.add_note(f"counterfoil: sealing the run failed as well: {failed}")

    def __repr__(self) -> str:
        """Path, id and progress."""
        state, step = ("closed", self._last_step) if self.closed else ("open", self._ledger.step)
        return f"Run({str(self.path)!r}, id={self.id[:10]}.., step={step}, {state})"

    def _repr_html_(self) -> str:
        """What a notebook shows: where the run lies, who records it, how far it is. It is no verdict."""
        state, step = ("closed", self._last_step) if self.closed else ("open", self._ledger.step)
        rows = [
            ("folder", str(self.path)),
            ("id", self.id),
            ("worker", f"{self.worker} lane {self.lane}"),
            ("last step", str(step)),
            ("recipe", "kept" if self.replayable else "none: steps cannot be executed again"),
        ]
        return card("Run", rows, mark=badge(state, GREY))


def specification(
    spec: Mapping[str, Any] | None, policy: Mapping[str, int] | None = None, public: Sequence[str] = ()
) -> bytes:
    """The bytes of `spec.json`, whose SHA-256 is the run's specification; arguments as of `Run.create`.

    Raises:
        InvalidInput: It holds what JSON cannot.
    """
    document = {**(spec or {}), "policy": dict(policy or {}), "public": sorted(public)}
    try:
        return json.dumps(document, sort_keys=True, indent=1, allow_nan=False).encode()
    except (TypeError, ValueError) as refused:
        raise InvalidInput(f"spec holds what JSON cannot: {refused}", where="spec") from None


def place(of: str, receipt: Receipt) -> dict[str, int | str | bytes]:
    """The fields of a receipt of one kind that name one of another: where it stands, and its digest."""
    return {
        f"{of}Worker": receipt.fields["worker"],
        f"{of}Lane": receipt.fields["lane"],
        f"{of}Sequence": receipt.sequence,
        "receipt": receipt.digest,
    }


def _session_key(session: Session | None) -> tuple[Key, int] | None:
    if session is None:
        return None
    if session.expires is not None and session.expires <= time.time():
        raise InvalidInput(
            "the session has ended before it began",
            expected="Unix seconds to come",
            actual=str(session.expires),
            where="Session.expires",
        )
    return session.key, session.expires or 0


def _read_recipe(path: Path) -> dict[str, bytes]:
    """A recipe's files by their path inside it; a single file becomes `recipe.py`."""
    if path.is_file():
        return {"recipe.py": path.read_bytes()}
    if not (path / "recipe.py").is_file():
        raise InvalidInput(f"{path} is neither a Python file nor a folder with recipe.py", where=str(path))
    own = (file for file in path.rglob("*") if file.suffix == ".py" or file.name in LOCKS)
    files = sorted(file for file in own if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}
