"""The client: trains on its part and answers; its receipts are one mod."""

from pathlib import Path

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from counterfoil.flower import receipts
from federated import task

app = ClientApp()


def folder(context: Context) -> Path:
    """Where this client keeps its lane of a run: one folder for each run and client."""
    node = context.node_config
    return Path(node.get("folder", "runs"), f"{context.run_id}-client-{node['partition-id']}")


@app.train(mods=[receipts(folder)])
def train(message: Message, context: Context) -> Message:
    model = {name: array.numpy() for name, array in message.content["arrays"].items()}
    features, labels = task.load(context.node_config["partition-id"], context.node_config["num-partitions"])
    model, loss = task.train(model, features, labels)
    arrays = ArrayRecord({name: Array(array) for name, array in model.items()})
    metrics = MetricRecord({"num-examples": len(labels), "loss": loss})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
