"""One script on the development chain and on anvil, a node of other people, must leave equal traces.

Both execute on revm: what differs is everything around it, from pools and blocks to JSON-RPC."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from eth_account import Account
from web3 import HTTPProvider, Web3

from chains import ARTIFACT, anvil, needs_anvil
from counterfoil.chain import Chain

WORKER, STRANGER = (Account.from_key(bytes([seed]) * 32) for seed in (7, 8))
FEES = {"gas": 3_000_000, "maxFeePerGas": 3 * 10**9, "maxPriorityFeePerGas": 10**9, "chainId": 31337}


def script(url: str) -> list[dict[str, Any]]:
    """Deploys, registers, anchors, repeats, revokes and is refused; what each transaction left."""
    web3 = Web3(HTTPProvider(url))
    for account in (WORKER, STRANGER):
        web3.provider.make_request("anvil_setBalance", [account.address, hex(10**19)])
    traces: list[dict[str, Any]] = []

    def send(account: Any, to: str | None, data: str) -> dict[str, Any]:
        call = {"from": account.address, "data": data} | ({"to": to} if to else {})
        answer = web3.provider.make_request("eth_call", [call, "latest"])
        nonce = web3.eth.get_transaction_count(account.address)
        # A creation has an empty receiver, not none.
        raw = account.sign_transaction({**FEES, "to": to or "", "data": data, "nonce": nonce, "value": 0})
        receipt = web3.eth.wait_for_transaction_receipt(web3.eth.send_raw_transaction(raw.raw_transaction))
        traces.append(
            {
                "status": receipt["status"],
                "gasUsed": receipt["gasUsed"],
                "cumulativeGasUsed": receipt["cumulativeGasUsed"],
                "type": receipt["type"],
                "from": receipt["from"],
                "logs": [(list(log["topics"]), log["data"], log["logIndex"]) for log in receipt["logs"]],
                "returned": answer.get("result"),
                "reverted": answer.get("error", {}).get("data"),
            }
        )
        return receipt

    address = send(WORKER, None, ARTIFACT["bytecode"])["contractAddress"]
    functions = web3.eth.contract(address=address, abi=ARTIFACT["abi"]).functions

    def call(account: Any, function: Any) -> None:
        send(account, address, function._encode_transaction_data())

    specification, nonce = b"\2" * 32, b"\3" * 32
    call(STRANGER, functions.register(WORKER.address, specification, 1, nonce))
    run = traces[-1]["logs"][0][0][1]
    leaves = [Web3.keccak(bytes([n])) for n in range(4)]
    root = {1: leaf(leaves[0])}
    root[2] = pair(root[1], leaf(leaves[1]))
    root[4] = pair(root[2], pair(leaf(leaves[2]), leaf(leaves[3])))

    def anchor(index: int, size: int) -> tuple[Any, ...]:
        return (run, WORKER.address, 0, index, size, Web3.keccak(bytes([size])), root[size])

    def head(size: int) -> tuple[Any, ...]:
        return (size, root[size], Web3.keccak(bytes([size])))

    first, second, third = anchor(0, 1), anchor(1, 2), anchor(2, 4)
    call(STRANGER, functions.anchor(first))
    call(WORKER, functions.anchor(first))
    call(WORKER, functions.anchor(second))
    call(WORKER, functions.anchorWithConsistencyProof(second, head(1), [leaf(leaves[1])]))
    proof = [pair(leaf(leaves[2]), leaf(leaves[3]))]
    call(WORKER, functions.anchorWithConsistencyProof(third, head(2), [bytes(32)]))
    call(WORKER, functions.anchorWithConsistencyProof(third, head(2), proof))
    call(WORKER, functions.anchor(first))
    call(STRANGER, functions.revoke(WORKER.address, WORKER.address))
    call(WORKER, functions.revoke(WORKER.address, STRANGER.address))
    call(WORKER, functions.register(WORKER.address, specification, 2, nonce))
    send(WORKER, address, "0x12345678")
    return traces


def leaf(data: bytes) -> bytes:
    """RFC 9162, 2.1.1."""
    return hashlib.sha256(b"\0" + data).digest()


def pair(left: bytes, right: bytes) -> bytes:
    """RFC 9162, 2.1.1."""
    return hashlib.sha256(b"\1" + left + right).digest()


@needs_anvil
def test_the_development_chain_and_anvil_leave_equal_receipts(home: Path, tmp_path: Path) -> None:
    """Gas, logs, return or revert data that only one of two EVMs produces."""
    with Chain.dev(tmp_path / "chain").serve() as server, anvil() as url:
        ours, theirs = script(server.url), script(url)
    for number, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        assert our == their, f"transaction {number}"
    assert [trace["status"] for trace in ours] == [1, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 0]
    errors = [trace["reverted"] for trace in ours if trace["status"] == 0]
    assert [len(error) > 2 for error in errors] == [True] * 5 + [False], errors
    assert ours[7]["logs"] and not ours[8]["logs"], "an equal anchor leaves no trace"
