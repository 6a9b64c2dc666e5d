"""Somebody brings an anchor that its worker signed for one chain to another chain, to the same contract address.

Defence: the signature names the chain's id and the contract, and the contract recovers it with its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterfoil import Chain, Run
from counterfoil.attacks.evm import call, ecrecover
from counterfoil.attacks.judging import judged
from counterfoil.attacks.ledgers import device_secret, go_on
from counterfoil.testing.signing import keccak256, sign, typed_body, typed_digest

LAYER = "RunLedger.anchorBySig"
OTHER_CHAIN = 16602
_NEVER = 2**64 - 1
_ANCHOR_BY_SIG = (
    "anchorBySig((bytes32,address,uint32,uint64,uint64,bytes32,bytes32),"
    "(uint64,bytes32,bytes32),bytes32[],address,uint64,bytes)"
)
_DOMAIN = {"name": "string", "version": "string", "chainId": "uint256", "verifyingContract": "address"}
_ANCHOR = {
    "log": "bytes32", "index": "uint64", "size": "uint64",
    "headDigest": "bytes32", "root": "bytes32", "deadline": "uint64",
}  # fmt: skip


@dataclass(frozen=True)
class Submission:
    """What is brought to a chain: the place of the log, the anchor as its worker signed it, and the signature."""

    chain: Chain
    worker: bytes
    place: bytes
    document: dict[str, Any]
    signature: bytes


def mount(folder: Path, *, honest: bool) -> Submission:
    """Anchors a run, goes on with it, and signs its next anchor: for that chain, or for another one."""
    chain = Chain.dev(folder / "chain")
    with Run.create(folder / "run") as run:
        go_on(run)
        first = chain.anchor(run)
        go_on(run)
        head = run.tree_head()
        worker = bytes.fromhex(run.worker[2:])
    place = bytes.fromhex(first.run[2:]) + worker.rjust(32, b"\0") + first.lane.to_bytes(32)
    told = {"log": keccak256(keccak256(b"counterfoil.log.v1") + place).hex(), "index": 1, "size": head.size}
    told |= {"headDigest": head.digest.hex(), "root": head.root.hex(), "deadline": _NEVER}
    domain = {"name": "Counterfoil", "version": "1", "verifyingContract": chain.contract}
    kinds = {"EIP712Domain": _DOMAIN, "AnchorV1": _ANCHOR}
    document = {
        "types": {
            name: [{"name": each, "type": kind} for each, kind in fields.items()]
            for name, fields in kinds.items()
        },
        "primaryType": "AnchorV1",
        "domain": domain | {"chainId": chain.chain_id if honest else OTHER_CHAIN},
        "message": told,
    }
    signature = sign(typed_digest(document), device_secret())
    return Submission(chain, worker, place, document, signature)


def undefended(case: Submission) -> str | None:
    """A contract that recovers the signature in the domain that whoever submits it names."""
    signer = ecrecover(case.chain, typed_digest(case.document), case.signature)
    return None if signer == case.worker else f"signed by 0x{signer.hex()}"


def defended(case: Submission) -> str | None:
    """The run ledger, which knows where it is."""
    _, index, size, head, root, deadline = (
        typed_body(case.document)[at : at + 32] for at in range(0, 192, 32)
    )
    no_head, no_proof_at, signature_at = bytes(96), (14 * 32).to_bytes(32), (15 * 32).to_bytes(32)
    signer, length = case.worker.rjust(32, b"\0"), len(case.signature).to_bytes(32)
    words = [case.place, index, size, head, root, no_head, no_proof_at, signer, deadline, signature_at]
    words += [bytes(32), length, case.signature.ljust(96, b"\0")]
    return judged(lambda: call(case.chain, _ANCHOR_BY_SIG, b"".join(words)))
