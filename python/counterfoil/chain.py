"""Chains: where tree heads get their date, and a development chain that needs no set-up."""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urlsplit

from counterfoil import _native
from counterfoil._native import Key, Record, TreeHead
from counterfoil.errors import InvalidInput

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

_LARGEST_REQUEST = 1 << 20
_LOOPBACK = frozenset({"127.0.0.1", "localhost"})


class OpenRun(Protocol):
    """What anchoring asks of an open run."""

    path: Path
    key: Key
    worker: str
    lane: int
    closed: bool

    def tree_head(self) -> TreeHead:
        """Signs the lane's size and root as they are now."""


AnyRun = OpenRun | Record | str | os.PathLike[str]


@dataclass(frozen=True)
class AnchorRecord:
    """Where a tree head was recorded: a hint where to look, no evidence.

    Attributes:
        block_time: Unix seconds; no receipt below the head is younger, as far as the chain is right.
        index: How many anchors of the lane came before.
        size: Receipts below the head, whose root over them is `root`.
        proof: What dates the head for whoever trusts `block_hash`, without a network; None when the
            node does not give it.

    Source:
        docs/format.md, section 8.
    """

    chain_id: int
    contract: str
    transaction_hash: str
    block_number: int
    block_hash: str
    block_time: int
    run: str
    worker: str
    lane: int
    index: int
    size: int
    root: str
    head_digest: str
    proof: Mapping[str, Any] | None = field(default=None, repr=False)

    @classmethod
    def _from_json(cls, text: str) -> Self:
        words = {_snake(name): value for name, value in json.loads(text).items()}
        return cls(**{**words, **{name: int(words[name]) for name in _NUMBERS}})

    def to_json(self) -> str:
        """The record as it lies in the run's `anchors` folder."""
        fields = {**asdict(self), **{name: str(getattr(self, name)) for name in _NUMBERS}}
        known = {_camel(name): value for name, value in fields.items() if value is not None}
        return json.dumps(known, indent=2)

    def __str__(self) -> str:
        """One line for people."""
        place = f"block {self.block_number} of chain {self.chain_id}"
        return f"anchored {self.size} receipts in {place}, transaction {self.transaction_hash}"


_NUMBERS = ("chain_id", "block_number", "block_time", "index", "size")


@dataclass(frozen=True)
class Served:
    """A development chain that answers on this machine; `url` says where."""

    url: str


class Chain:
    """A chain with a run ledger; make one with `Chain.dev` or `Chain.connect`.

    Attributes:
        chain_id: The chain's id, 31337 for development chains.
        contract: The run ledger's address.
    """

    def __init__(self, native: _native.Chain) -> None:
        """Wraps an opened chain; use `dev` or `connect`."""
        self._native = native
        self.chain_id: int = native.chain_id
        self.contract: str = native.contract

    @classmethod
    def dev(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Opens a development chain, in this process and without a network.

        It executes the same contract as a public chain. It belongs to whoever runs it, so its
        dates convince nobody else: anchors on it are self-anchored.

        Args:
            path: The chain's folder, made if missing; `chain` in the key folder by default.

        Raises:
            RunLocked: Another process, or another `Chain` of this one, runs this chain.
            CorruptJournal: The chain's journal was damaged.

        Example:
            >>> Chain.dev("chain").chain_id
            31337
        """
        folder = Path(_native.key_folder()) / "chain" if path is None else Path(path)
        chain = _native.Chain.dev(folder)
        if chain.dropped_bytes:
            text = f"{folder}: {chain.dropped_bytes} bytes of a transaction that an interrupted process wrote were dropped"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        return cls(chain)

    @classmethod
    def connect(cls, network: str, contract: str | None = None) -> Self:
        """Connects to a node and checks that the run ledger lies where it should.

        Args:
            network: A name, such as `galileo` (0G's testnet), `0g` or `anvil`, or a node's `http://` or
                `https://` address. `networks.json` in the key folder adds and changes networks.
            contract: The run ledger's address; by default where `deploy` puts it.

        Raises:
            InvalidInput: There is no such network, or `networks.json` cannot be read.
            ChainError: The node does not answer, is another chain's, or there is no run ledger of this version.
        """
        return cls(_native.Chain.connect(network, contract))

    @classmethod
    def reach(cls, network: str) -> Self:
        """As `connect`, where there may be no run ledger yet: for `why` and `resume` of a deployment."""
        return cls(_native.Chain.reach(network))

    @classmethod
    def deploy(cls, network: str, key: Key | None = None) -> Self:
        """Brings the run ledger to a network, at an address that follows from its code where that works.

        Where that does not work, it is written into `networks.json`. Repeating a call is safe.

        Args:
            network: As of `connect`.
            key: The key that pays; by default the device key, which pays on development chains only.

        Raises:
            Unfinished: The deployment waits in the outbox.
            KeyRefused: No key was chosen to pay on a public chain.
            ChainError: The node refuses or does not answer.
        """
        return cls(_native.Chain.deploy(network, key or Key.device(), key is not None))

    def rpc(self, method: str, params: Sequence[Any] = ()) -> Any:
        """Calls a JSON-RPC method of the node.

        Args:
            method: Its name, such as `eth_blockNumber`.
            params: Its parameters.

        Returns:
            Its result, as JSON values.

        Raises:
            ChainError: The node refuses or does not answer.
        """
        return json.loads(self._native.rpc(method, json.dumps(list(params))))

    def head(
        self,
        run: AnyRun,
        *,
        worker: str | None = None,
        lane: int = 0,
    ) -> tuple[int, int] | None:
        """What the chain knows of a lane: how many anchors, and the size of the last one.

        Args:
            run: An open run, which names its own lane, a run folder or a bundle.
            worker: The worker, the run's owner by default.
            lane: Which of the worker's lanes.

        Returns:
            Both numbers, or None before the first anchor.

        Raises:
            NotFound: There is no such run.
            ChainError: The node refuses or does not answer.
        """
        path, worker, lane = _place(run, worker, lane)
        record = run if isinstance(run, Record) else Record(path)
        owner = record.receipts()[0].fields["owner"] if worker is None else worker
        assert record.run is not None, "a run with an owner has a genesis receipt"
        return self._native.head(record.run, owner, lane)

    def revoke(self, key: str, payer: Key | None = None, *, worker: str | None = None) -> tuple[int, int]:
        """Declares for ever that a key signs no more; from this block on.

        What a confirmed anchor shows to be older stays valid.

        Args:
            key: Address of the key: a session's, or the worker's own.
            payer: The key that pays; it must be the worker's, or the key that is revoked. By default
                the device key, which pays on development chains only.
            worker: For whom the key signed; the payer by default.

        Returns:
            Number of the block and its Unix seconds.

        Raises:
            KeyRefused: No key was chosen to pay on a public chain.
            Unfinished: The revocation waits in the outbox.
            ChainError: The node refuses or does not answer.
        """
        chosen = payer is not None
        payer = payer or Key.device()
        return self._native.revoke(worker or payer.address, key, payer, chosen)

    def revocations(self, record: Record) -> tuple[int, list[dict[str, Any]]]:
        """Which of the keys that may have signed for a run's workers are revoked.

        Returns:
            Number of the block at which the chain was asked, and for each revoked key its worker,
            key, block and Unix seconds.
        """
        latest = self._native.latest_block
        asked = [(worker, key, self._native.revocation(worker, key)) for worker, key in record.keys]
        names = ("worker", "key", "block", "time")
        return latest, [dict(zip(names, (w, k, *found), strict=True)) for w, k, found in asked if found]

    def anchor(
        self,
        run: AnyRun,
        key: Key | None = None,
        *,
        worker: str | None = None,
        lane: int = 0,
    ) -> AnchorRecord:
        """Records a lane's tree head on the chain, and the anchor record in the run's folder.

        Of an open run that is everything recorded until now, of a folder its last tree head. The
        run is registered where the chain does not know it. Returns when the anchor is as deep in the
        chain as the network asks for. What was begun lies in an outbox, on disk: no crash, silent
        node or reorganisation loses it, and repeating a call is safe.

        Args:
            run: An open run, which names its own lane, or a run folder.
            key: The key that pays; it must be the worker's or one that the worker allowed. By
                default the run's or the device key, which pays on development chains only.
            worker: The worker, the run's owner by default.
            lane: Which of the worker's lanes.

        Raises:
            NotFound: There is no such run, lane or tree head.
            KeyRefused: No key was chosen to pay on a public chain.
            Unfinished: The anchor waits in the outbox, for the reason it names; `resume` goes on.
            ChainError: The chain holds another history of the lane, or refused.
        """
        if isinstance(run, Record | str | os.PathLike):
            payer = key or Key.device()
        else:
            payer = key or run.key
            if not run.closed:
                run.tree_head()
        text = self._native.anchor(*_place(run, worker, lane), payer, key is not None)
        return AnchorRecord._from_json(text)

    def resume(self, key: Key | None = None) -> list[str]:
        """Brings what waits in a key's outbox for this chain to its end, and stores the anchor records.

        Args:
            key: The key that pays; by default the device key, which pays on development chains only.

        Returns:
            For each submission that waited, how it ended.

        Raises:
            Unfinished: One still waits, for the reason it names.
            KeyRefused: No key was chosen to pay on a public chain.
            ChainError: The contract refuses one.
        """
        return self._native.resume(key or Key.device(), key is not None)

    def why(self) -> list[str]:
        """Says of each submission to this chain that waits why it does; sends nothing.

        Raises:
            ChainError: The node does not answer.
        """
        return self._native.why()

    def confirm(self, record: Mapping[str, Any]) -> tuple[str, bool, bool, int] | None:
        """Asks this chain about an anchor record.

        Args:
            record: The record's JSON object.

        Returns:
            The chain in words, whether it holds exactly this anchor, whether it is a development
            chain, and the block's time by the chain's own word (the claimed one if it does not). None when
            it has nothing to say: the record is another chain's or contract's, or its block is not known
            yet or not as deep as the network asks for.

        Raises:
            ChainError: The node refuses or does not answer.
        """
        found = self._native.confirm(json.dumps(record))
        development = self.chain_id == _native.DEVELOPMENT_CHAIN
        name = f"development chain {self.chain_id}" if development else f"chain {self.chain_id}"
        return None if found is None else (name, found[0], development, found[1])

    def beacon(self, record: Record) -> tuple[bytes, bytes, int]:
        """The block that decides which steps of a finished run are sampled, after its prover could change any.

        That is the first block as much later as the network's confirmations than the first anchor that covers the
        owner's first close receipt. The run's first anchor covers no step: the prover bound itself to this run before.

        Args:
            record: The run, with all receipts of its owner's lane 0.

        Returns:
            The block's hash and the digest of the tree head that was anchored, 32 bytes each, and the last step: what
            `counterfoil.torch.replay` draws from for `beacon:k`.

        Raises:
            InvalidInput: The run is not closed, was gone on with after that, is not anchored like this on this chain,
                or the block is not there yet.
            ChainError: The node refuses or does not answer.

        Source:
            docs/format.md, section 15.
        """
        receipts = record.receipts()
        owner = receipts[0].fields["owner"] if receipts and receipts[0].kind == "genesis" else ""
        steps = [each for each in receipts if each.kind == "step"]
        closed = next((each.sequence for each in receipts if each.kind == "close"), -1)
        if not owner or record.size(owner, 0) != len(receipts):
            raise InvalidInput("a beacon needs every receipt of the owner's lane 0", where="beacon")
        if not steps or not steps[-1].sequence < closed:
            raise InvalidInput(
                "a beacon samples a run that has steps, was closed and not gone on with", where="beacon"
            )
        own = [
            each for each in record.anchors if (each["worker"].lower(), each["lane"]) == (owner.lower(), 0)
        ]
        held = {int(each["index"]): each for each in own if (self.confirm(each) or ("", False))[1]}
        first = held.get(0)
        if first is None or int(first["size"]) > steps[0].sequence:
            raise InvalidInput(
                "the run's first anchor on this chain covers a step, or is not recorded: its prover could have signed "
                "it anew until the sample was kind. Anchor a run before its first step",
                where="beacon",
            )
        covering = next((index for index in sorted(held) if int(held[index]["size"]) > closed), 0)
        if covering - 1 not in held:
            raise InvalidInput(
                "which anchor first covers the close receipt is not recorded: anchor the closed run",
                where="beacon",
            )
        anchor = held[covering]
        block, deciding = self._native.block_of(json.dumps(anchor))
        if self._native.block_of(json.dumps(first))[0] >= block:
            raise InvalidInput(
                "the first anchor is not older than the one that covers the run", where="beacon"
            )
        found = self.rpc("eth_getBlockByNumber", [hex(deciding), False])
        if found is None:
            raise InvalidInput(
                f"block {deciding} decides, and is not there yet", expected=str(deciding), where="beacon"
            )
        last = max(each.fields["step"] for each in steps)
        return bytes.fromhex(found["hash"][2:]), bytes.fromhex(anchor["headDigest"][2:]), last

    @contextmanager
    def serve(self, port: int = 0) -> Iterator[Served]:
        """Serves a development chain's JSON-RPC to this machine, for web3.py or a wallet.

        Args:
            port: The port on 127.0.0.1; 0 takes a free one.

        Yields:
            Where it answers, as `.url`, until the `with` block ends.

        Raises:
            ChainError: This is no development chain.
            OSError: The port is taken.
        """
        from http.server import ThreadingHTTPServer

        self._native.handle("[]")
        is_over = threading.Event()
        with ThreadingHTTPServer(("127.0.0.1", port), _handler(self._native, is_over)) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            try:
                yield Served(f"http://127.0.0.1:{server.server_port}")
            finally:
                is_over.set()
                server.shutdown()
                thread.join()


def submissions() -> list[tuple[str, str, str]]:
    """What was ever submitted from here: the outbox, named by chain and account, the task and its state."""
    return _native.submissions()


def _handler(chain: _native.Chain, is_over: threading.Event) -> type[BaseHTTPRequestHandler]:
    """The class that answers, on connections that may outlive the server: one POST is one JSON-RPC request or batch.

    A page on the web must not reach the chain through a visitor's browser: the Host header says
    whether a foreign name led the browser here, and Origin which page sent it.
    """
    from http.server import BaseHTTPRequestHandler

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_POST(self) -> None:
            host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
            length = self.headers.get("Content-Length", "")
            if not _is_local(f"//{host}") or not (origin is None or _is_local(origin)):
                self._refuse(403, "only for programs and pages of this machine")
            elif not (length.isdecimal() and len(length) < 10):
                self._refuse(411, "a request names its length")
            elif int(length) > _LARGEST_REQUEST:
                self._refuse(413, f"a request has at most {_LARGEST_REQUEST} bytes")
            elif is_over.is_set():
                self._refuse(503, "the chain is no longer served")
            else:
                request = self.rfile.read(int(length)).decode(errors="replace")
                self._answer(200, "application/json", chain.handle(request))

        def _refuse(self, status: int, reason: str) -> None:
            self.close_connection = True
            self._answer(status, "text/plain", reason)

        def _answer(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass  # the caller has the answer

    return Handler


def _place(run: AnyRun, worker: str | None, lane: int) -> tuple[Path, str | None, int]:
    """The folder, worker and lane that are meant."""
    if isinstance(run, str | os.PathLike):
        return Path(run), worker, lane
    if isinstance(run, Record):
        return Path(run.path), worker, lane
    return run.path, run.worker, run.lane


def _is_local(address: str) -> bool:
    try:
        return urlsplit(address).hostname in _LOOPBACK
    except ValueError:
        return False


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
