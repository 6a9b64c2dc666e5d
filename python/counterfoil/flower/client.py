"""What a client signs of each round: the arrays that came, those it answered with, and the numbers beside them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message

from counterfoil import Key, Session, commit_tensors
from counterfoil.flower.wire import RECORD, make_answer, read_arrays, read_invitation, read_metrics
from counterfoil.invitation import join, journal_name

_Next = Callable[[Message, Context], Message]
_Folder = str | os.PathLike[str]


def receipts(
    path: _Folder | Callable[[Context], _Folder], *, key: Key | None = None, session: Session | None = None
) -> Callable[[Message, Context, _Next], Message]:
    """A mod of Flower that signs what this client receives and sends, in a lane of the server's run.

    Name it first, `@app.train(mods=[receipts(path)])`, so that it sees the reply as it leaves. The lane's number is
    one more than the node's `partition-id`. Of this machine, only the lane's journal goes to the server: roots
    of arrays, the metrics that the reply holds anyway, and signatures. Messages of servers that do not record, and errors,
    pass as they are.

    Args:
        path: This client's folder of the run, or a function of Flower's context that names it. One folder holds
            one run.
        key: The client's; by default the device key.
        session: Another key that signs in its place.

    The mod's call raises:
        InvalidInput: The folder holds another run, or a message cannot be recorded.
        CounterfoilError: What `Run.join` and `Run.open` say.
    """

    def mod(message: Message, context: Context, call_next: _Next) -> Message:
        invitation = message.content.config_records.get(RECORD)
        if invitation is None:
            return call_next(message, context)
        run_id, round, size, files = read_invitation(invitation)
        received = commit_tensors(read_arrays(message.content))
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        sent = commit_tensors(read_arrays(reply.content))
        metrics = commit_tensors(read_metrics(reply.content), keep=True)
        folder = Path(path(context) if callable(path) else path)
        lane = 1 + int(context.node_config.get("partition-id", 0))
        # Closed again at once: the next message may come to another process.
        with join(folder, run_id, files, lane=lane, key=key, session=session) as run:
            run.record_round(round, context.node_id, received=received, sent=sent, metrics=metrics)
        journal = (run.path / journal_name(run.worker, lane)).read_bytes()
        reply.content[RECORD] = make_answer(run.worker, lane, journal[size:])
        return reply

    return mod
