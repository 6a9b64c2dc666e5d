"""Aggregates again what a federated run recorded, from its folder alone."""

from __future__ import annotations

import contextlib
import os
from typing import Any, NoReturn

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from counterfoil import (
    Commitment,
    Opened,
    Receipt,
    Record,
    Verdict,
    commit_tensors,
    verify,
)
from counterfoil.errors import CorruptJournal, InvalidInput
from counterfoil.flower.wire import make_record, make_reply, read_arrays
from counterfoil.verify import Mismatch, ReplayReport

_NUMPY = {"BOOL": "bool", "F16": "<f2", "F32": "<f4", "F64": "<f8"} | {
    f"{sign}{8 * size}": f"<{sign.lower()}{size}" for sign in "IU" for size in (1, 2, 4, 8)
}


def recompute(path: str | os.PathLike[str], strategy: Strategy, **pins: Any) -> Verdict:
    """Verifies a federated run and aggregates every round of it again: no client and no network is needed.

    Of each aggregation, the clients' arrays and metrics are read from the run's folder as their receipts bind them, given to
    the strategy, and its result is compared with the recorded one, bit for bit. What each client received has to
    be what the aggregation before gave.

    Args:
        path: The folder of the server's run.
        strategy: One made like the recorded one, `Recorded.strategy`, and not used before: strategies such as FedAdam
            carry a state from round to round. One that draws random numbers gives something else each time.
        pins: `signer`, `require` and so on, as for `counterfoil.verify`.

    Returns:
        The verdict, with a note of what was computed again.

    Raises:
        Refuted: The evidence is broken, or an aggregate came out differently; carries the verdict, which names the round
            and the array.
        InvalidInput: The run records no aggregation.
    """
    record = Record(path)
    verify(record, **pins)
    return verify(record, replay=_Rounds(record, strategy).report(), **pins)


class _Unknown(Exception):
    """Why a round cannot be computed again, which accuses nobody."""


class _Differs(Exception):
    """What is not as it was recorded."""

    def __init__(self, mismatch: Mismatch) -> None:
        super().__init__(mismatch)
        self.mismatch = mismatch


class _Nodes(Grid):
    """Ends what a strategy does at the start of a round where it begins to look for clients."""

    class Asked(Exception):
        pass

    def _refuse(self, *_args: Any, **_options: Any) -> NoReturn:
        raise _Nodes.Asked

    set_run = create_message = get_node_ids = push_messages = pull_messages = send_and_receive = _refuse
    run = property(_refuse)


class _Rounds:
    """The aggregations of one run, computed again in order."""

    def __init__(self, record: Record, strategy: Strategy) -> None:
        self._record, self._strategy = record, strategy
        self._receipts = {
            (f"{worker.lower()}/{lane}", receipt.digest): receipt
            for worker, lane in record.lanes
            for receipt in record.receipts(worker, lane)
            if receipt.kind == "round"
        }

    def report(self) -> ReplayReport:
        aggregations = [each for each in self._record.receipts() if each.kind == "aggregation"]
        if not aggregations:
            raise InvalidInput("the run records no aggregation", where=str(self._record.path))
        equal: list[str] = []
        refuted: list[Mismatch] = []
        undecided: list[str] = []
        previous: Commitment | None = None
        for receipt in aggregations:
            round = receipt.fields["round"]
            try:
                output = self._open(receipt, "output").commitment
                result = self._aggregate(receipt, round, previous)
            except _Differs as difference:
                # Behind a gap, a strategy with a state has another one than the recorded.
                refuted.append(difference.mismatch)
                break
            except _Unknown as unknown:
                undecided.append(f"the aggregate of round {round} was not computed again: {unknown}")
                break
            try:
                _compare(round, "output", output, commit_tensors(result))
                equal.append(str(round))
            except _Differs as difference:
                refuted.append(difference.mismatch)
            previous = output
        notes = [f"aggregates computed again from the clients' arrays, bit-exact: rounds {', '.join(equal)}"]
        return ReplayReport((), tuple(refuted), tuple(notes if equal else ()), tuple(undecided))

    def _aggregate(self, receipt: Receipt, round: int, previous: Commitment | None) -> dict[str, Any]:
        replies: list[Message] = []
        received: dict[str, Any] = {}
        for name, digest in sorted(self._values(receipt, "inputs").items()):
            answer = self._receipts.get((name, digest))
            if answer is None:
                raise _Unknown(f"the receipt of {name} is not shown")
            came = self._open(answer, "received").commitment
            # Before the first aggregation, all have to start from the same arrays.
            previous = previous or came
            _compare(round, f"received by {name}", previous, came)
            received = received or self._arrays(round, f"received by {name}", came)
            sent = self._arrays(round, f"sent by {name}", self._open(answer, "sent").commitment)
            replies.append(make_reply(self._strategy, answer.fields["party"], sent, self._metrics(answer)))
        return self._call(round, received, replies)

    def _call(self, round: int, received: dict[str, Any], replies: list[Message]) -> dict[str, Any]:
        config = ConfigRecord({"server-round": round})
        try:
            # Strategies with a state take what is sent from here, before they look for clients.
            with contextlib.suppress(_Nodes.Asked):
                self._strategy.configure_train(round, make_record(received), config, _Nodes())
            arrays, _ = self._strategy.aggregate_train(round, replies)
        # Whatever a strategy raises, it has not shown that the recorded one did otherwise.
        except Exception as failed:
            raise _Unknown(f"the strategy failed: {type(failed).__name__}: {failed}") from None
        return {} if arrays is None else read_arrays(RecordDict({"arrays": arrays}))

    def _open(self, receipt: Receipt, field: str) -> Opened:
        opened = self._record.opened(receipt).get(field)
        if opened is None:
            raise _Unknown(f"{field} of a receipt of {receipt.fields['worker']} is not opened")
        return opened

    def _arrays(self, round: int, field: str, commitment: Commitment) -> dict[str, Any]:
        arrays = {}
        for entry in commitment.entries:
            try:
                content = self._record.object(entry)
            except CorruptJournal as damaged:
                other = str(damaged)
                raise _Differs(Mismatch(round, field, entry.name, entry.root.hex(), other, "round")) from None
            if content is None or entry.kind != "dense" or entry.dtype not in _NUMPY:
                raise _Unknown(f"{field}: the bytes of {entry.name!r} are not there")
            arrays[entry.name] = np.frombuffer(content, _NUMPY[entry.dtype]).reshape(entry.shape)
        return arrays

    def _metrics(self, receipt: Receipt) -> dict[str, Any]:
        values = self._values(receipt, "metrics")
        return {
            entry.name: np.frombuffer(values[entry.name], _NUMPY[entry.dtype]).reshape(entry.shape)
            for entry in self._open(receipt, "metrics").entries
        }

    def _values(self, receipt: Receipt, field: str) -> dict[str, bytes]:
        values = self._open(receipt, field).values
        if values is None:
            raise _Unknown(f"the values of {field} in a receipt of {receipt.fields['worker']} are not opened")
        return values


def _compare(round: int, field: str, expected: Commitment, actual: Commitment) -> None:
    difference = expected.first_difference(actual)
    if difference is not None:
        name, *sides = difference
        roots = ["nothing" if side is None else side.root.hex() for side in sides]
        raise _Differs(Mismatch(round, field, name, roots[0], roots[1], "round"))
