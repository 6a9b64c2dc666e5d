"""What a server checks of each reply before it aggregates, and what it signs of the result."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from counterfoil import (
    Commitment,
    CounterfoilError,
    Opened,
    Receipt,
    Record,
    Refuted,
    Run,
    commit_tensors,
    verify,
)
from counterfoil.durable import replace
from counterfoil.errors import InvalidInput, StorageError
from counterfoil.flower.wire import (
    RECORD,
    arrays_key,
    make_invitation,
    make_reply,
    ordered,
    read_answer,
    read_arrays,
    read_metrics,
)
from counterfoil.invitation import invite, journal_name, place

_KINDS = {"join", "delegation", "resume", "round", "close"}


@dataclass(frozen=True)
class Refused:
    """A reply that was not aggregated.

    Attributes:
        round: Of which round.
        node: Flower's number of the sender.
        reason: What is wrong with it.
        expected: What was expected, in words, or None.
        actual: What was found instead, or None.
    """

    round: int
    node: int
    reason: str
    expected: str | None
    actual: str | None


@dataclass(frozen=True)
class _Answer:
    """A reply whose receipt was verified."""

    node: int
    lane: tuple[str, int]
    journal: bytes
    receipt: bytes
    arrays: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def name(self) -> str:
        return _name(self.lane)

    @property
    def form(self) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
        """The shapes of its metrics, and the dtypes of its arrays."""
        dtypes = [(name, str(array.dtype)) for name, array in sorted(self.arrays.items())]
        return [(name, np.shape(value)) for name, value in sorted(self.metrics.items())], dtypes


class Recorded(Strategy):
    """A strategy of Flower that aggregates only what its senders signed, and records what it makes of it.

    Every training message invites its client to the run. Each reply is checked before the inner strategy meets it:
    its journal is verified and goes on where the known one ends; its last receipt is of this round, names the
    sender, and binds the arrays that were sent to it and the arrays and metrics that it answers with. The others are
    left out, with a warning. The inner strategy is given arrays and metrics alone, ordered by the clients' lanes
    and by the arrays' names. The run's folder gets the clients' journals, the arrays, and a signed receipt before
    the result is returned.

    Attributes:
        strategy: The inner one.
        run: The run, of `Run.create`. Say in its `spec` what the strategy is, for those who aggregate again.
        refused: The replies that were left out, in order.

    Example:
        with Run.create("runs/federated", spec={"strategy": "FedAvg()"}) as run:
            result = Recorded(FedAvg(), run).start(grid=grid, initial_arrays=arrays)
    """

    def __init__(self, strategy: Strategy, run: Run) -> None:
        """Wraps a strategy; call `start` of this object, not of the inner one.

        Raises:
            NotFound: The run was not created in this folder, but joined.
        """
        self.strategy, self.run = strategy, run
        self.refused: list[Refused] = []
        self._invitation = invite(run)
        self._lanes: dict[int, tuple[str, int]] = {}
        self._names: list[str] = []
        self._sent: dict[int, tuple[Commitment, int]] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages, each with an invitation."""
        self._names = list(arrays)
        by_name = ordered(arrays, sorted(arrays))
        messages = list(self.strategy.configure_train(server_round, by_name, config, grid))
        # Strategies give one content to all: it is hashed once.
        stored: dict[int, tuple[RecordDict, Commitment]] = {}
        self._sent.clear()
        for message in messages:
            original, node = message.content, message.metadata.dst_node_id
            if id(original) not in stored:
                stored[id(original)] = original, self.run.store(read_arrays(original))
            size = len(self._known(self._lanes[node])) if node in self._lanes else 0
            self._sent[node] = stored[id(original)][1], size
            invitation = make_invitation(self.run.id, server_round, size, self._invitation)
            restored = {key: ordered(each, self._names) for key, each in original.array_records.items()}
            message.content = RecordDict({**original, **restored, RECORD: invitation})
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """What the inner strategy makes of the replies that are not refused, durably recorded.

        Raises:
            StorageError: The run's folder cannot be written.
        """
        answers: dict[str, _Answer] = {}
        for reply in sorted(replies, key=lambda each: each.metadata.src_node_id):
            node = reply.metadata.src_node_id
            try:
                answer = self._check(server_round, reply)
                if answer.name in answers:
                    raise InvalidInput("another node answered in its lane", actual=answer.name)
                answers[answer.name] = answer
            except StorageError:
                raise
            except CounterfoilError as refused:
                self._refuse(server_round, node, refused)
        self._refuse_odd(server_round, answers)
        if not answers:
            return None, None
        for answer in answers.values():
            self._lanes[answer.node] = answer.lane
            replace(self.run.path / journal_name(*answer.lane), answer.journal)
            self.run.store(answer.arrays)
        in_order = [answers[name] for name in sorted(answers)]
        arrays, metrics = self.strategy.aggregate_train(
            server_round,
            [make_reply(self.strategy, each.node, each.arrays, each.metrics) for each in in_order],
        )
        if arrays is not None:
            arrays = ordered(arrays, self._names)
            output = self.run.store(read_arrays(RecordDict({arrays_key(self.strategy): arrays})))
            inputs = {each.name: each.receipt for each in in_order}
            self.run.record_aggregation(server_round, inputs=inputs, output=output)
            self.run.flush()
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's."""
        messages: Iterable[Message] = self.strategy.configure_evaluate(server_round, arrays, config, grid)
        return messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The inner strategy's."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """The inner strategy's."""
        self.strategy.summary()

    def _refuse(self, round: int, node: int, error: CounterfoilError) -> None:
        reason = f"its journal is refuted: {error.where}" if isinstance(error, Refuted) else str(error)
        self.refused.append(Refused(round, node, reason, error.expected, error.actual))
        warnings.warn(f"round {round}: the reply of node {node} is left out: {reason}", stacklevel=3)

    def _refuse_odd(self, round: int, answers: dict[str, _Answer]) -> None:
        """Leaves out answers of another form than most: a strategy would stop, or take on one client's dtype, for all."""
        forms = [answer.form for answer in answers.values()]
        for name, answer in list(answers.items()):
            usual = max(forms, key=forms.count)
            if answer.form != usual:
                del answers[name]
                what = "metrics" if answer.form[0] != usual[0] else "dtypes"
                expected, actual = (str(dict(form[what == "dtypes"])) for form in (usual, answer.form))
                error = InvalidInput(
                    f"its {what} are others than those of most", expected=expected, actual=actual
                )
                self._refuse(round, answer.node, error)

    def _check(self, round: int, reply: Message) -> _Answer:
        node = reply.metadata.src_node_id
        if node not in self._sent:
            raise InvalidInput("nothing was sent to it in this round")
        if reply.has_error():
            raise InvalidInput(f"it answers with an error: {reply.error.reason}")
        sent, size = self._sent[node]
        worker, number, suffix = read_answer(reply.content)
        lane = worker, number
        before = self._lanes.get(node, lane)
        if before != lane:
            raise InvalidInput(
                "it answers in another lane than before", expected=_name(before), actual=_name(lane)
            )
        arrays, metrics = read_arrays(reply.content), read_metrics(reply.content)
        answered = commit_tensors(arrays)
        _check_shapes(sent, answered)
        _check_numbers(arrays, metrics, getattr(self.strategy, "weighted_by_key", "num-examples"))
        known = self._known(lane)
        journal = known[:size] + suffix
        if not journal.startswith(known):
            raise InvalidInput(
                "its journal does not go on where the known one ends",
                expected=f"the {len(known)} bytes that are known",
                actual=f"{len(journal)} bytes",
            )
        receipt, opened = self._last_round(lane, journal)
        if receipt.digest in known:
            raise InvalidInput(
                "its receipt was given before", expected="a new one", actual=receipt.digest.hex()
            )
        for what, expected, actual in (
            ("round", round, receipt.fields["round"]),
            ("node", node, receipt.fields["party"]),
        ):
            if actual != expected:
                raise InvalidInput(
                    f"its receipt is of another {what}", expected=str(expected), actual=str(actual)
                )
        bound = {"received": sent, "sent": answered, "metrics": commit_tensors(metrics)}
        for field, commitment in bound.items():
            _check_bound(field, commitment, opened.get(field))
        if opened["metrics"].values is None:
            raise InvalidInput("its receipt does not open the values of metrics", where="metrics")
        return _Answer(node, lane, journal, receipt.digest, arrays, metrics)

    def _last_round(self, lane: tuple[str, int], journal: bytes) -> tuple[Receipt, dict[str, Opened]]:
        """The last receipt of a round in a journal, which is verified apart from all others."""
        with tempfile.TemporaryDirectory(prefix="counterfoil-") as staging:
            place(Path(staging), {**self._invitation, journal_name(*lane): journal})
            record = Record(staging)
            verdict = verify(record)
            if verdict.status != "verified":
                raise InvalidInput(f"its journal is {verdict.status}: {'; '.join(verdict.missing)}")
            receipts = record.receipts(*lane)
            # What a lane claims of steps would be compared with the other lanes', and could refute the whole run.
            if not {each.kind for each in receipts} <= _KINDS:
                raise InvalidInput("its journal holds more than rounds", expected=str(sorted(_KINDS)))
            rounds = [each for each in receipts if each.kind == "round"]
            if not rounds:
                raise InvalidInput("its journal holds no receipt of a round")
            return rounds[-1], record.opened(rounds[-1])

    def _known(self, lane: tuple[str, int]) -> bytes:
        """A lane's journal as far as it was accepted."""
        try:
            return (self.run.path / journal_name(*lane)).read_bytes()
        except FileNotFoundError:
            return b""


def _name(lane: tuple[str, int]) -> str:
    return f"{lane[0]}/{lane[1]}"


def _check_bound(field: str, expected: Commitment, opened: Opened | None) -> None:
    if opened is None:
        raise InvalidInput(f"its receipt does not open {field}", where=field)
    difference = expected.first_difference(opened.commitment)
    if difference is not None:
        name, *sides = difference
        roots = ["nothing" if side is None else side.root.hex() for side in sides]
        raise InvalidInput(
            f"its receipt binds other {field}: {name!r}", expected=roots[0], actual=roots[1], where=name
        )


def _check_shapes(sent: Commitment, answered: Commitment) -> None:
    """Strategies fail, for all, where one client's arrays have other names or shapes."""
    shapes = [{each.name: str(each.shape) for each in side.entries} for side in (sent, answered)]
    for name in sorted({**shapes[0], **shapes[1]}):
        expected, actual = (shape.get(name) for shape in shapes)
        if expected != actual:
            raise InvalidInput(
                f"array {name!r} is no answer to the one that was sent",
                expected=expected,
                actual=actual,
                where=name,
            )


def _check_numbers(arrays: dict[str, Any], metrics: dict[str, Any], weight: str) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InvalidInput(f"array {name!r} holds NaN or infinity", expected="finite numbers", where=name)
    value = metrics.get(weight)
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise InvalidInput(
            f"{weight} is no weight", expected="a number above 0", actual=str(value), where=weight
        )
