"""A client app of which some clients lie, each in one way: `lie` and `liar` are in the run's configuration.

The mod `outside` lies behind the receipt, `inside` before it, as a client does that changes its own program.
"""

import io
import os
import shutil
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from counterfoil import Record, Run, commit_tensors
from counterfoil.flower import client, receipts
from counterfoil.invitation import journal_name
from federated import client_app

WHEN = {"old": 2, "rewritten": 2}
"""The round in which a lie is told; 1 where none is named."""

earlier: dict[int, RecordDict] = {}


def folder(context):
    return (
        client_app.folder(context).parent
        / context.run_config["folder"]
        / str(context.node_config["partition-id"])
    )


def lie_of(message, context):
    config = context.run_config
    lie = config.get("lie")
    told = config.get("liar") == context.node_config["partition-id"]
    return lie if told and message.content["config"]["server-round"] == WHEN.get(lie, 1) else None


class Planted:
    """Leaves a file wherever it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def pickled(path):
    buffer = io.BytesIO()
    np.save(buffer, np.array([Planted(path)], dtype=object), allow_pickle=True)
    # Its own description says otherwise.
    return Array("float32", (30,), "numpy.ndarray", buffer.getvalue())


def poison(reply):
    reply.content["arrays"] = changed(reply.content["arrays"], lambda array: array * -50)


def changed(record, change):
    return ArrayRecord({name: Array(np.asarray(change(array.numpy()))) for name, array in record.items()})


def one_element(record):
    weight = np.array(record["weight"].numpy())
    weight[0] += np.float32(0.25)
    return ArrayRecord({**record, "weight": Array(weight)})


def outside(message, context, call_next):
    """Sees the message first and the reply last."""
    lie = lie_of(message, context)
    recorded = "counterfoil" in message.content
    round = message.content["config"]["server-round"]
    if lie == "received":
        message.content["arrays"] = one_element(message.content["arrays"])
    if lie == "round" and recorded:
        message.content["counterfoil"]["round"] = 7
    if lie == "rewritten" and recorded:
        # Another history in the same lane, by the same key, which forgets that it wrote there before.
        shutil.rmtree(folder(context))
        for kept in ("lanes", "released"):
            shutil.rmtree(Path(os.environ["COUNTERFOIL_HOME"], kept))
        message.content["counterfoil"]["round"] = 1
        call_next(message, context)
        message.content["counterfoil"]["round"] = 2
    if lie == "sealed":
        client.commit_tensors = lambda tensors, keep=False: commit_tensors(tensors)
    reply = call_next(message, context)
    client.commit_tensors = commit_tensors
    if lie in ("foreign", "none", "steps"):
        poison(reply)
    if lie == "arrays":
        reply.content["arrays"] = one_element(reply.content["arrays"])
    if lie == "metrics":
        metrics = reply.content["metrics"]
        reply.content["metrics"] = MetricRecord({**metrics, "num-examples": 100 * metrics["num-examples"]})
    if lie == "pickled":
        planted = pickled(str(folder(context).parent / "planted"))
        reply.content["arrays"] = ArrayRecord({**reply.content["arrays"], "weight": planted})
    if lie == "none" and recorded:
        del reply.content["counterfoil"]
    if lie == "foreign" and recorded:
        reply.content["counterfoil"] = wait_for_other(folder(context).parent / "0")
    if lie == "steps" and recorded:
        reply.content["counterfoil"] = add_a_step(folder(context), reply.content["counterfoil"])
    if lie == "old":
        answer = ConfigRecord({**earlier[1]["counterfoil"], "journal": b""}) if recorded else None
        reply.content = RecordDict({**earlier[1], **({"counterfoil": answer} if answer else {})})
    earlier[round] = reply.content
    return reply


def wait_for_other(other):
    """The answer of another client of this machine, once it has signed."""
    while True:
        if (other / "spec.json").exists():
            record = Record(other)
            for worker, lane in record.lanes:
                kinds = [each.kind for each in record.receipts(worker, lane)]
                if "round" in kinds and kinds[-1] == "close":
                    journal = (other / journal_name(worker, lane)).read_bytes()
                    content = {"worker": worker.lower(), "lane": lane, "journal": journal}
                    return ConfigRecord(content)
        time.sleep(0.01)


def add_a_step(own, answer):
    """What one lane says of a step is compared with the others', and could refute the server's whole run."""
    with Run.open(own, lane=answer["lane"]) as run:
        state = commit_tensors({"weight": np.zeros(1)})
        run.record_step(1, {"contribution": state, "gradients": state})
    return ConfigRecord(
        {**answer, "journal": (own / journal_name(answer["worker"], answer["lane"])).read_bytes()}
    )


def inside(message, context, call_next):
    """Lies before the receipt is written, which then speaks of the lie."""
    lie = lie_of(message, context)
    reply = call_next(message, context)
    if lie in ("round", "rewritten", "sealed"):
        poison(reply)
    if lie == "nan":
        reply.content["arrays"] = changed(reply.content["arrays"], lambda array: array * np.float32("nan"))
    if lie == "negative":
        reply.content["metrics"] = MetricRecord({**reply.content["metrics"], "num-examples": -1})
    if lie == "odd":
        reply.content["metrics"] = MetricRecord({**reply.content["metrics"], "more": 1})
    if lie == "dtype":
        reply.content["arrays"] = changed(reply.content["arrays"], lambda array: array.astype("float64") + 1)
    if lie == "shape":
        reply.content["arrays"] = changed(reply.content["arrays"], lambda array: np.append(array, array))
    return reply


app = ClientApp()
app.train(mods=[outside, receipts(folder), inside])(client_app.train)
