"""Anchors dated by a block that the verifier trusts, read again by a reader that was written from the yellow paper."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rlp
from eth_utils import keccak, to_canonical_address
from web3 import Web3

import counterfoil
from counterfoil import Chain, Key, Run, commit_tensors
from counterfoil.errors import InvalidInput

VECTORS = Path(__file__).parents[2] / "vectors"
BUNDLE = VECTORS / "anchored.counterfoil"
RECORD = json.loads((VECTORS / "anchored.json").read_text())


def logs_of(record: dict) -> list:
    """The events of the receipt that a record's proof leads to, nibble by nibble from the block's hash."""
    header = bytes.fromhex(record["proof"]["header"][2:])
    assert keccak(header) == bytes.fromhex(record["blockHash"][2:])
    fields = rlp.decode(header)
    assert int.from_bytes(fields[8]) == int(record["blockNumber"])
    assert int.from_bytes(fields[11]) == int(record["blockTime"])
    expected = fields[5]
    path = rlp.encode(int(record["proof"]["position"])).hex()
    nodes = [bytes.fromhex(node[2:]) for node in record["proof"]["nodes"]]
    for number, encoded in enumerate(nodes):
        assert keccak(encoded) == expected, f"node {number}"
        node = rlp.decode(encoded)
        if len(node) == 17:
            expected, path = node[int(path[0], 16)], path[1:]
            continue
        prefix = node[0].hex()
        part = prefix[1:] if prefix[0] in "13" else prefix[2:]
        assert path.startswith(part)
        expected, path = node[1], path[len(part) :]
        if prefix[0] in "23":
            assert (path, number) == ("", len(nodes) - 1)
    receipt = expected if expected[0] >= 0xC0 else expected[1:]
    return rlp.decode(receipt)[3]


def is_anchoring(log: list, record: dict) -> bool:
    names = "bytes32,bytes32,address,uint32,uint64,uint64,bytes32,bytes32"
    words = [record["lane"], int(record["index"]), int(record["size"]), record["headDigest"], record["root"]]
    kinds = ["uint32", "uint64", "uint64", "bytes32", "bytes32"]
    data = Web3().codec.encode(kinds, [bytes.fromhex(w[2:]) if isinstance(w, str) else w for w in words])
    address, topics, found = log
    return (
        address == to_canonical_address(record["contract"])
        and topics[0] == keccak(text=f"Anchored({names})")
        and topics[2] == bytes.fromhex(record["run"][2:])
        and topics[3][12:] == to_canonical_address(record["worker"])
        and found == data
    )


def test_an_independent_reader_finds_the_event() -> None:
    """A proof that only its own maker can follow."""
    assert [is_anchoring(log, RECORD) for log in logs_of(RECORD)] == [True]


def test_the_proof_of_the_development_chain_is_one_too(tmp_path: Path) -> None:
    """Headers or receipts of the embedded chain that are not those of Ethereum."""
    key = Key.generate()
    chain = Chain.dev(tmp_path / "chain")
    with Run.create(tmp_path / "run", key=key) as run:
        run.record_step(1, {"gradients": commit_tensors({"weight": 1.0})})
    made = chain.anchor(tmp_path / "run", key)
    record = json.loads(made.to_json())
    assert sum(is_anchoring(log, record) for log in logs_of(record)) == 1
    stored = json.loads((tmp_path / "run/anchors/0.json").read_text())
    assert stored == record
    verdict = counterfoil.verify(tmp_path / "run", trusted_blocks=[made.block_hash])
    assert verdict.time.endswith(f"on the trusted block {made.block_hash}")


def test_a_chain_says_nothing_about_records_of_another_one(tmp_path: Path) -> None:
    """A chain that was asked for revoked keys alone, and takes the date of a trusted block away."""
    chain = Chain.dev(tmp_path / "chain")
    verdict = counterfoil.verify(BUNDLE, chain=chain, trusted_blocks=[RECORD["blockHash"]])
    assert verdict.time.startswith("all 5 receipts existed by ")
    assert "not revoked at block" in verdict.signer


def test_only_the_trusted_block_dates() -> None:
    """A hash of any other block that counts."""
    dated = counterfoil.verify(BUNDLE, trusted_blocks=[RECORD["blockHash"]], require={"time": True})
    assert dated.status == "verified"
    assert dated.time.startswith("all 5 receipts existed by ")
    assert RECORD["blockHash"] in dated.time
    other = counterfoil.verify(BUNDLE, trusted_blocks=["0x" + "11" * 32], require={"time": True})
    assert other.status == "undecided"
    with pytest.raises(InvalidInput, match="no hash of a block"):
        counterfoil.verify(BUNDLE, trusted_blocks=["0x11"])
