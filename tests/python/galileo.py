"""Nodes that behave worse than anvil, in front of it: one with the habits of 0G's testnet, one with bad timing.

The first refuses small tips, advises one that it refuses itself, says more than asked, and some of its
answers are some blocks old, as behind a gateway with several nodes.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from eth_account.typed_transactions import TypedTransaction
from hexbytes import HexBytes

from chains import answer, ask

TIP_FLOOR = 2 * 10**9
# Which parameter names the block, by method.
BLOCK = {"eth_call": 1, "eth_getCode": 1, "eth_getBalance": 1, "eth_getTransactionCount": 1}
EXTRA = {"timestampMillis": "0x19a7c3f1e00", "zgExtra": {"shard": 3, "tags": ["a"]}, "l1Fee": None}


class Node:
    """What it does, and what it saw."""

    def __init__(self, url: str, lag: int, lagging: float) -> None:
        """In front of `url`; a share of the answers, `lagging`, is `lag` blocks old."""
        self._url, self._lag, self._lagging = url, lag, lagging
        self._chosen = random.Random(7)
        self.asked: Counter[str] = Counter()
        self.refused: list[str] = []
        self.old_answers = 0

    def answer(self, method: str, params: list[Any]) -> dict[str, Any]:
        """The result or the error of a call."""
        self.asked[method] += 1
        if method == "eth_maxPriorityFeePerGas":
            return {"result": "0x1"}
        if method == "eth_sendRawTransaction":
            tip = TypedTransaction.from_bytes(HexBytes(params[0])).as_dict()["maxPriorityFeePerGas"]
            if tip < TIP_FLOOR:
                told = f"transaction underpriced: gas tip cap {tip}, minimum needed {TIP_FLOOR}"
                self.refused.append(told)
                return {"error": {"code": -32000, "message": told}}
        head = int(ask(self._url, "eth_blockNumber"), 16)
        if self._lag and self._chosen.random() < self._lagging:
            self.old_answers += 1
            head = max(head - self._lag, 0)
        place = BLOCK.get(method, 1 if method == "eth_estimateGas" else None)
        if place is not None and params[place:] in ([], ["latest"]):
            params = [*params[:place], hex(head)]
        if method == "eth_getBlockByNumber" and params[0] == "latest":
            params = [hex(head), *params[1:]]
        told = answer(self._url, method, params)
        return told if "error" in told else {"result": self._seen(method, told["result"], head)}

    def _seen(self, method: str, result: Any, head: int) -> Any:
        """A result as a node knows it that has blocks up to `head`."""
        if method == "eth_blockNumber":
            return hex(head)
        if method in ("eth_getLogs", "eth_getBlockReceipts"):
            known = [{**each, **EXTRA} for each in result or () if int(each["blockNumber"], 16) <= head]
            return None if method == "eth_getBlockReceipts" and not known else known
        if isinstance(result, dict):
            number = result.get("blockNumber", result.get("number"))
            return {**result, **EXTRA} if number is None or int(number, 16) <= head else None
        return result


class BadTiming(Node):
    """Once takes a transaction into a block right after it said that there is none."""

    def __init__(self, url: str) -> None:
        """In front of `url`, which mines nothing by itself before."""
        super().__init__(url, 0, 0)
        ask(url, "evm_setAutomine", False)

    def answer(self, method: str, params: list[Any]) -> dict[str, Any]:
        """The result or the error of a call."""
        told = answer(self._url, method, params)
        if method == "eth_getTransactionReceipt" and told["result"] is None:
            ask(self._url, "evm_mine")
            ask(self._url, "evm_setAutomine", True)
        return told


@contextmanager
def galileo(url: str, *, lag: int = 0, lagging: float = 0.3) -> Iterator[tuple[str, Node]]:
    """Serves the first in front of `url` as long as the block lasts; yields its address and the node."""
    node = Node(url, lag, lagging)
    with serve(node) as address:
        yield address, node


@contextmanager
def serve(node: Node) -> Iterator[str]:
    """Serves a node as long as the block lasts; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told = node.answer(request["method"], request.get("params", []))
            body = json.dumps({"jsonrpc": "2.0", "id": request["id"], "zgNode": "n1", **told}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
