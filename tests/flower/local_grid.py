"""A grid of Flower whose nodes are client processes on this machine, without a SuperLink.

Apps, mods, messages, strategies and the wire format are Flower's. What stands in for SuperLink and SuperNode is a
socket to each process; test_deployment.py runs the real ones.
"""

import json
import os
import subprocess
import sys
from importlib import import_module
from multiprocessing.connection import Client, Connection, Listener, wait
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

KEY = b"not a secret: the socket is on this machine"


class LocalGrid(Grid):
    """Nodes 100, 101, ...: each a process with a device key of its own, alive over many trainings."""

    def __init__(self, app, folders, homes, nodes):
        """`folders` are put on the processes' path; `app` is `module:name` in one of them."""
        self.run_config = {}
        self._run = Run.create_empty(1)
        # Flower's own processes have this from their command line; without it no message can be made.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self._app, self._folders, self._homes, self._count = app, folders, homes, nodes
        self._listener = Listener(("127.0.0.1", 0), authkey=KEY)
        self._processes, self._connections, self._replies, self._waiting = {}, {}, {}, {}
        for node in range(100, 100 + nodes):
            self.start_node(node)
        self._accept(nodes)

    def start_node(self, node):
        configuration = {"partition-id": node % 100, "num-partitions": self._count}
        home = Path(self._homes, str(node % 100))
        home.mkdir(parents=True, exist_ok=True)
        arguments = [str(self._listener.address[1]), self._app, str(node), json.dumps(configuration)]
        path = os.pathsep.join([*map(str, self._folders), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "COUNTERFOIL_HOME": str(home)}
        self._processes[node] = subprocess.Popen([sys.executable, __file__, *arguments], env=environment)

    def restart_node(self, node, renamed=None):
        """Kills a node's process and starts another one in its place, which Flower may know by a new number."""
        self._processes[node].kill()
        self._processes.pop(node).wait()
        self._connections.pop(node).close()
        self.start_node(renamed or node)
        self._accept(1)

    def _accept(self, count):
        for _ in range(count):
            connection = self._listener.accept()
            self._connections[int(connection.recv_bytes())] = connection

    def set_run(self, run):
        self._run = run

    @property
    def run(self):
        return self._run

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self):
        return sorted(self._connections)

    def push_messages(self, messages):
        identifiers = []
        for message in messages:
            identifier = set_identifier(message)
            node = message.metadata.dst_node_id
            self._waiting[self._connections[node]] = message
            self._connections[node].send_bytes(json.dumps(self.run_config).encode())
            self._connections[node].send_bytes(message_to_proto(message).SerializeToString())
            identifiers.append(identifier)
        return identifiers

    def pull_messages(self, message_ids):
        for connection in wait(list(self._waiting), 0.05):
            message = self._waiting.pop(connection)
            try:
                reply = message_from_proto(ProtoMessage.FromString(connection.recv_bytes()))
            except (EOFError, ConnectionResetError):
                reply = Message(Error(code=0, reason="the node is gone"), reply_to=message)
            self._replies[message.metadata.message_id] = reply
        return [self._replies.pop(each) for each in list(message_ids) if each in self._replies]

    def send_and_receive(self, messages, *, timeout=None):
        open_ids, replies = set(self.push_messages(messages)), []
        while open_ids:
            found = self.pull_messages(open_ids)
            replies += found
            open_ids -= {each.metadata.reply_to_message_id for each in found}
        return replies

    def close(self):
        for connection in self._connections.values():
            connection.close()
        for process in self._processes.values():
            process.wait(20)
        self._listener.close()


def set_identifier(message):
    """What Flower's own grid does: a message is named by its hash."""
    message.metadata.__dict__["_message_id"] = message.object_id
    return message.object_id


def serve(connection: Connection, app, node: int, configuration: dict) -> None:
    """A node: its state lives as long as its process."""
    state = RecordDict()
    while True:
        try:
            run_config = json.loads(connection.recv_bytes())
        except EOFError:
            return
        message = message_from_proto(ProtoMessage.FromString(connection.recv_bytes()))
        context = Context(
            run_id=1, node_id=node, node_config=configuration, state=state, run_config=run_config
        )
        try:
            reply = app(message, context)
        except Exception as failed:
            reply = Message(Error(code=0, reason=repr(failed)), reply_to=message)
        set_identifier(reply)
        connection.send_bytes(message_to_proto(reply).SerializeToString())


if __name__ == "__main__":
    port, reference, number, configuration = sys.argv[1:]
    module, name = reference.split(":")
    app = getattr(import_module(module), name)
    with Client(("127.0.0.1", int(port)), authkey=KEY) as connection:
        connection.send_bytes(number.encode())
        serve(connection, app, int(number), json.loads(configuration))
