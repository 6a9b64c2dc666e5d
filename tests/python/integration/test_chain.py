"""Anchoring, with web3.py and eth-account as independent witnesses of what the chain holds."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from eth_account import Account
from web3 import HTTPProvider, Web3

import counterfoil
import samples
from counterfoil import Key, Record, Run, errors
from counterfoil.chain import Chain

ROOT = Path(__file__).parents[3]
ARTIFACT = json.loads((ROOT / "contracts/artifacts/RunLedger.json").read_text())


@pytest.fixture
def chain(home: Path, tmp_path: Path) -> Chain:
    return Chain.dev(tmp_path / "chain")


@pytest.fixture
def web3(chain: Chain) -> Iterator[Web3]:
    with chain.serve() as server:
        yield Web3(HTTPProvider(server.url))


def ledger_of(web3: Web3, chain: Chain):
    return web3.eth.contract(address=web3.to_checksum_address(chain.contract), abi=ARTIFACT["abi"])


def log_id(run: bytes, worker: str, lane: int) -> bytes:
    kind = Web3.keccak(text="counterfoil.log.v1")
    return Web3.keccak(kind + run + bytes(12) + bytes.fromhex(worker[2:]) + lane.to_bytes(32, "big"))


def test_web3_reads_what_was_anchored(chain: Chain, web3: Web3, copy: Path) -> None:
    anchored = chain.anchor(copy)
    assert web3.is_connected()
    assert web3.eth.chain_id == chain.chain_id == 31337
    head = Record(copy).tree_head()
    assert head is not None
    ledger = ledger_of(web3, chain)
    log = log_id(head.fields["run"], head.fields["worker"], 0)
    assert ledger.functions.head(log).call()[:2] == [1, head.size]
    assert ledger.functions.ownerOf(head.fields["run"]).call() == head.signer
    stored = Web3.keccak(head.root + head.size.to_bytes(32, "big") + head.digest)
    assert ledger.functions.anchorAt(log, 0).call() == stored

    receipt = web3.eth.get_transaction_receipt(anchored.transaction_hash)
    (event,) = ledger.events.Anchored().process_receipt(receipt)
    assert event.args.size == anchored.size == head.size
    assert event.args.root == bytes.fromhex(anchored.root[2:]) == head.root
    assert event.args.headDigest == bytes.fromhex(anchored.head_digest[2:]) == head.digest
    assert event.args.worker.lower() == anchored.worker
    block = web3.eth.get_block(anchored.block_number, full_transactions=True)
    assert block["hash"] == receipt["blockHash"] == bytes.fromhex(anchored.block_hash[2:])
    assert block["timestamp"] == anchored.block_time
    assert block["transactions"][0]["from"] == head.signer
    (found,) = ledger.events.Anchored().get_logs(from_block=0, argument_filters={"log": log})
    assert found.args == event.args


def test_a_leaf_is_shown_on_the_chain(chain: Chain, web3: Web3, copy: Path) -> None:
    chain.anchor(copy)
    record = Record(copy)
    head, receipts = record.tree_head(), record.receipts()
    assert head is not None
    leaves = [receipt.digest + receipt.signature for receipt in receipts]
    log = log_id(head.fields["run"], head.fields["worker"], 0)
    triple = (head.size, head.root, head.digest)
    call = ledger_of(web3, chain).functions.isIncluded
    for index in (0, 5, len(leaves) - 1):
        proof = counterfoil.merkle.inclusion_proof(leaves, index)
        assert call(log, 0, triple, leaves[index], index, proof).call()
        assert not call(log, 0, triple, leaves[index], index ^ 1, proof).call()
        assert not call(log, 0, triple, leaves[index], index, [*proof, bytes(32)]).call()
        assert not call(log, 1, triple, leaves[index], index, proof).call()


def test_a_wallet_can_send_transactions(chain: Chain, web3: Web3) -> None:
    """Both kinds of transactions, signed by eth-account, move money as web3.py expects."""
    sender, receiver = Account.create(), Account.create().address
    chain.rpc("anvil_setBalance", [sender.address, hex(10**18)])
    fees = [{"gasPrice": 2 * 10**9}, {"maxFeePerGas": 3 * 10**9, "maxPriorityFeePerGas": 10**9}]
    for nonce, fee in enumerate(fees):
        transaction = {"to": receiver, "value": 5, "gas": 21_000, "nonce": nonce, "chainId": 31337}
        raw = sender.sign_transaction({**transaction, **fee}).raw_transaction
        receipt = web3.eth.wait_for_transaction_receipt(web3.eth.send_raw_transaction(raw))
        assert receipt["status"] == 1
        assert receipt["effectiveGasPrice"] == 2 * 10**9
        assert receipt["type"] == (2 if nonce else 0)
    assert web3.eth.get_balance(receiver) == 10
    assert web3.eth.get_balance(sender.address) == 10**18 - 10 - 2 * 21_000 * 2 * 10**9
    assert web3.eth.fee_history(2, "latest")["oldestBlock"] == 1


def test_block_hashes_are_those_of_ethereum(chain: Chain, web3: Web3, copy: Path) -> None:
    """Hash, transactions root and receipts root from the RLP of the yellow paper, by py-rlp."""
    import rlp

    anchored = chain.anchor(copy)
    block = web3.eth.get_block(anchored.block_number)
    raw = chain.rpc("eth_getBlockByNumber", [hex(anchored.block_number), False])
    hashes = ["parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot"]
    numbers = ["difficulty", "number", "gasLimit", "gasUsed", "timestamp"]
    fields = [bytes.fromhex(raw[name][2:]) for name in [*hashes, "logsBloom"]]
    fields += [int(raw[name], 16) for name in numbers]
    fields += [bytes.fromhex(raw[name][2:]) for name in ("extraData", "mixHash", "nonce")]
    fields += [int(raw["baseFeePerGas"], 16), bytes.fromhex(raw["withdrawalsRoot"][2:])]
    fields += [int(raw[name], 16) for name in ("blobGasUsed", "excessBlobGas")]
    fields += [bytes.fromhex(raw["parentBeaconBlockRoot"][2:])]
    assert Web3.keccak(rlp.encode(fields)) == block["hash"]

    receipt = web3.eth.get_transaction_receipt(anchored.transaction_hash)
    logs = [[bytes.fromhex(log.address[2:]), list(log.topics), bytes(log.data)] for log in receipt.logs]
    body = rlp.encode([1, receipt.gasUsed, bytes(receipt.logsBloom), logs])
    leaf = rlp.encode([bytes([0x20, 0x80]), bytes([receipt.type]) + body])
    assert Web3.keccak(leaf) == block["receiptsRoot"]


def test_an_open_run_is_anchored_again_and_again(chain: Chain, tmp_path: Path) -> None:
    training = samples.LeastSquares()
    with samples.create(tmp_path / "run") as run:
        training.record(run, 1, 2)
        assert chain.head(run) is None
        first = chain.anchor(run)
        assert chain.anchor(run) == first
        training.record(run, 3, 4)
        second = chain.anchor(run)
        assert (first.index, second.index) == (0, 1)
        assert second.size == first.size + 2
    last = chain.anchor(run)
    assert last.size == second.size + 1 == len(run.receipts())
    assert chain.head(run) == chain.head(run.path) == chain.head(Record(run.path)) == (3, last.size)
    names = sorted(path.name for path in (run.path / "anchors").iterdir())
    assert names == ["0.json", "1.json", "2.json"]
    written = json.loads((run.path / "anchors" / "2.json").read_text())
    assert written == json.loads(last.to_json()) == Record(run.path).anchors[2]
    assert written["size"] == str(last.size)
    assert "self-anchored" in counterfoil.verify(run.path, chain=chain).time


def test_an_anchor_that_the_chain_holds_and_the_folder_does_not_is_told(chain: Chain, copy: Path) -> None:
    """Else who signed a second history only had to leave the first one's anchor away."""
    chain.anchor(copy)
    assert not any("the chain holds" in note for note in counterfoil.verify(copy, chain=chain).notes)
    (copy / "anchors" / "0.json").unlink()
    notes = counterfoil.verify(copy, chain=chain).notes
    assert any("the chain holds 1 anchors" in note and "0 are shown" in note for note in notes)


def test_lanes_have_anchors_of_their_own(chain: Chain, tmp_path: Path) -> None:
    with samples.create(tmp_path / "run") as run:
        other = Key.generate(tmp_path / "other.key")
        with Run.join(run.path, key=other, lane=1) as joined:
            record = chain.anchor(joined)
            assert (record.worker, record.lane) == (other.address.lower(), joined.lane)
        with pytest.raises(errors.ChainError, match="NotAllowed"):
            chain.anchor(run.path, worker=other.address, lane=joined.lane, key=run.key)
        with pytest.raises(errors.NotFound):
            chain.anchor(run.path, lane=7)
    assert chain.anchor(run.path).worker == run.key.address.lower()


def test_only_the_chosen_chain_confirms(chain: Chain, copy: Path, tmp_path: Path) -> None:
    chain.anchor(copy)
    (anchor,) = Record(copy).anchors
    name, confirmed, development, time = chain.confirm(anchor)
    assert (name, confirmed, development) == ("development chain 31337", True, True)
    assert time == int(anchor["blockTime"])
    assert chain.confirm({**anchor, "blockTime": "1"})[1:] == (True, True, time)
    assert not chain.confirm({**anchor, "root": "0x" + "00" * 32})[1]
    assert Chain.dev(tmp_path / "another").confirm(anchor) is None
    # It has nothing to say about what another chain or contract may hold, or a block that is yet to come.
    for name, other in (("chainId", "1"), ("contract", "0x" + "11" * 20)):
        assert chain.confirm({**anchor, name: other}) is None
    assert chain.confirm({**anchor, "index": "7", "blockNumber": "99"}) is None
    with pytest.raises(errors.InvalidInput):
        chain.confirm({"blockTime": "1"})


def test_a_chain_continues_where_it_stopped(home: Path, copy: Path, tmp_path: Path) -> None:
    chain = Chain.dev(tmp_path / "chain")
    record = chain.anchor(copy)
    with pytest.raises(errors.RunLocked):
        Chain.dev(tmp_path / "chain")
    del chain
    again = Chain.dev(tmp_path / "chain")
    assert again.anchor(copy) == record
    program = "import sys, counterfoil; counterfoil.Chain.dev(sys.argv[1])"
    other = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "chain"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "RunLocked" in other.stderr


def test_connecting_gives_the_same_chain(chain: Chain, copy: Path) -> None:
    with chain.serve() as server:
        remote = Chain.connect(server.url)
        record = remote.anchor(copy)
        assert remote.rpc("eth_blockNumber") == hex(record.block_number)
        assert remote.contract == chain.contract
        with pytest.raises(errors.ChainError, match="no method eth_mine"):
            remote.rpc("eth_mine")
        with pytest.raises(errors.ChainError, match="no run ledger"):
            Chain.connect(server.url, contract="0x" + "11" * 20)
        with (
            pytest.raises(errors.ChainError, match="development chain can be served"),
            remote.serve(),
        ):
            pass
    with pytest.raises(errors.ChainError, match="cannot be reached"):
        Chain.connect(server.url)
    assert chain.anchor(copy) == record


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:80"}, 403),
        ({"Content-Length": "1048577"}, 413),
        ({"Content-Length": "-1"}, 411),
    ],
)
def test_pages_of_the_web_cannot_reach_the_chain(chain: Chain, headers: dict[str, str], status: int) -> None:
    with chain.serve() as server:
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
        body = '{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}'
        connection.putrequest("POST", "/", skip_host=True)
        defaults = {"Host": urlsplit(server.url).netloc, "Content-Length": str(len(body))}
        for name, value in {**defaults, **headers}.items():
            connection.putheader(name, value)
        connection.endheaders(body.encode() if status == 200 else None)
        answer = connection.getresponse()
        assert answer.status == status
        if status == 200:
            assert json.loads(answer.read())["result"] == "0x7a69"
        connection.close()
