"""What of Flower's messages is recorded: arrays and metrics, as their bytes determine them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from counterfoil.errors import InvalidInput

RECORD = "counterfoil"
"""Name of the `ConfigRecord` that carries invitations to clients, and their journals back."""

_WORKER = re.compile("0x[0-9a-f]{40}")


def read_arrays(content: RecordDict) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a message's one `ArrayRecord`.

    Raises:
        InvalidInput: It has none or several, or an array is something else than plain numbers; nothing is unpickled.
    """
    record = _only(content.array_records, "ArrayRecord")
    return {name: _read_array(name, array.data) for name, array in record.items()}


def read_metrics(content: RecordDict) -> dict[str, Any]:
    """The numbers of a message's one `MetricRecord`.

    Raises:
        InvalidInput: It has none or several.
    """
    record = _only(content.metric_records, "MetricRecord")
    return {name: np.asarray(value) if isinstance(value, list) else value for name, value in record.items()}


def _only(records: Mapping[str, Any], kind: str) -> Any:
    if len(records) != 1:
        raise InvalidInput(f"one {kind} is needed", expected="1", actual=str(len(records)), where=kind)
    return next(iter(records.values()))


def _read_array(name: str, data: bytes) -> npt.NDArray[Any]:
    # An `Array` has a dtype and a shape beside these bytes, and whoever made it chose both.
    file = io.BytesIO(data)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version than 1.0")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.kind not in "biuf" or not dtype.isnative:
            raise ValueError(f"dtype {dtype}")
        # Refuses a shape that the bytes do not fill, before there is memory for it.
        array = np.frombuffer(data, dtype, offset=file.tell()).reshape(
            shape, order="F" if is_fortran else "C"
        )
    # A header made to confuse ends in whatever numpy's and Python's parsers raise.
    except Exception as refused:
        raise InvalidInput(
            f"array {name!r} is no plain .npy of numbers: {refused}",
            expected=".npy, version 1.0, bool, int or float",
            actual=str(refused),
            where=name,
        ) from None
    return np.asarray(array, order="C")


def ordered(record: ArrayRecord, names: Iterable[str]) -> ArrayRecord:
    """The same arrays, those of `names` first and in that order."""
    return ArrayRecord({name: record[name] for name in (*names, *record) if name in record})


def make_record(arrays: Mapping[str, npt.NDArray[Any]]) -> ArrayRecord:
    """The arrays by name: no party chooses the order in which a strategy meets them."""
    return ArrayRecord({name: Array(array) for name, array in sorted(arrays.items())})


def make_reply(
    strategy: Strategy, node: int, arrays: Mapping[str, npt.NDArray[Any]], metrics: Mapping[str, Any]
) -> Message:
    """A reply that holds what was recorded and nothing else, the same to the recorded and to the recomputed strategy."""
    numbers = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in sorted(metrics.items())
    }
    content = RecordDict({arrays_key(strategy): make_record(arrays), "metrics": MetricRecord(numbers)})
    metadata = Metadata(
        run_id=0,
        message_id="",
        src_node_id=node,
        dst_node_id=1,
        reply_to_message_id="",
        group_id="",
        created_at=0.0,
        ttl=1.0,
        message_type="train",
    )
    return Message(content=content, metadata=metadata)


def arrays_key(strategy: Strategy) -> str:
    """The name under which a strategy looks for arrays."""
    return str(getattr(strategy, "arrayrecord_key", "arrays"))


def make_invitation(run: str, round: int, size: int, files: Mapping[str, bytes]) -> ConfigRecord:
    """What a server sends: its run, and how many bytes of the client's journal it has."""
    return ConfigRecord(
        {"run": run, "round": round, "size": size, "names": list(files), "contents": list(files.values())}
    )


def read_invitation(record: ConfigRecord) -> tuple[str, int, int, dict[str, bytes]]:
    """The run's id, the round, the size and the files.

    Raises:
        InvalidInput: It is no invitation.
    """
    run, round, size = record.get("run"), record.get("round"), record.get("size")
    names, contents = record.get("names"), record.get("contents")
    if not (
        isinstance(run, str)
        and isinstance(round, int)
        and isinstance(size, int)
        and size >= 0
        and isinstance(names, list)
        and isinstance(contents, list)
        and len(names) == len(contents)
        and all(isinstance(each, str) for each in names)
        and all(isinstance(each, bytes) for each in contents)
    ):
        raise InvalidInput(f"the message's record {RECORD!r} is no invitation", where=RECORD)
    return run, round, size, dict(zip(names, contents, strict=True))


def make_answer(worker: str, lane: int, journal: bytes) -> ConfigRecord:
    """What a client sends: whose lane it wrote, and its journal behind what the server has."""
    return ConfigRecord({"worker": worker.lower(), "lane": lane, "journal": journal})


def read_answer(content: RecordDict) -> tuple[str, int, bytes]:
    """The worker, its lane, and what its journal goes on with.

    Raises:
        InvalidInput: There is no such record, or it names no lane.
    """
    record = content.config_records.get(RECORD)
    if record is None:
        raise InvalidInput("the reply holds no receipt", expected=f"a ConfigRecord {RECORD!r}", actual="none")
    worker, lane, journal = record.get("worker"), record.get("lane"), record.get("journal")
    if not (
        isinstance(worker, str)
        and _WORKER.fullmatch(worker)
        and type(lane) is int
        and 0 < lane < 2**32
        and isinstance(journal, bytes)
    ):
        raise InvalidInput(
            "the reply's receipt names no lane of a client",
            expected="an address, a lane from 1 on, and a journal",
            actual=f"{worker!r}, {lane!r}",
        )
    return worker, lane, journal
