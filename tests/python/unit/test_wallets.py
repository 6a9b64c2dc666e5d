"""What ethers, viem and MetaMask's library sign; tests/vectors/wallets.mjs says how it was made."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount

import oracle
import samples
from counterfoil import Key, Record, Run, Session, _native
from counterfoil.errors import KeyRefused, ProofError

FILE = json.loads((oracle.ROOT / "tests/vectors/wallets.json").read_text())
# The maker of a bundle signs about no log; tests/receipts.rs has these too.
OF_WORKERS = [each for each in FILE["vectors"] if each["params"][1]["primaryType"] != "BundleV1"]


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def sign(wallet: LocalAccount, document: dict[str, Any]) -> bytes:
    return bytes(wallet.sign_message(encode_typed_data(full_message=document)).signature)


def other(value: str) -> str:
    """The value with its last digit changed; of the notice, its last character."""
    changed = value[:-1] + ("1" if value[-1] == "0" else "0")
    return _native.checksum_address(changed) if len(value) == 42 else changed


def test_what_wallets_sign_is_what_we_sign(tmp_path: Path) -> None:
    """A digest, an r, an s or a v of ours that wallets would not give, or a message they read otherwise."""
    for vector in OF_WORKERS:
        address, document = vector["params"]
        signature = raw(vector["signature"])
        digest, signer, _ = _native.check_typed_data(json.dumps(document), signature)
        assert (bytes(digest), signer) == (raw(vector["digest"]), address), vector["name"]
    wallet = Account.from_key(FILE["secret"])
    for vector in FILE["vectors"]:
        assert sign(wallet, vector["params"][1]) == raw(vector["signature"]), vector["name"]
    # eth-account signs as the three do; so must our own key of the same secret.
    (tmp_path / "key").write_text(FILE["secret"])
    (tmp_path / "key").chmod(0o600)
    samples.record(tmp_path / "run", 2, key=Key.load(tmp_path / "key"))
    receipts = Record(tmp_path / "run").receipts()
    assert {receipt.kind for receipt in receipts} >= {"genesis", "join", "step"}
    for receipt in receipts:
        assert receipt.signature == sign(wallet, receipt.typed_data())


def test_a_signature_over_a_changed_field_is_refused(tmp_path: Path) -> None:
    """A field that the digest does not cover: its owner saw one value and signed for another."""
    for vector in OF_WORKERS:
        (address, document), signature = vector["params"], raw(vector["signature"])
        for name, value in document["message"].items():
            changed = copy.deepcopy(document)
            changed["message"][name] = other(value)
            if name == "notice":
                with pytest.raises(ProofError, match="not written in the one way"):
                    _native.check_typed_data(json.dumps(changed), signature)
                continue
            digest, signer, _ = _native.check_typed_data(json.dumps(changed), signature)
            assert bytes(digest) != raw(vector["digest"]), name
            assert signer != address, name

    wallet, asked = Account.from_key(FILE["secret"]), []

    def longer(_: bytes, document: dict[str, Any] | None) -> bytes:
        assert document is not None
        asked.append(document["primaryType"])
        if document["primaryType"] == "DelegationV1":
            document["message"]["expires"] = "18446744073709551615"
        return sign(wallet, document)

    session = Session(Key.generate(), expires=4102444800)
    with pytest.raises(KeyRefused, match="that of"):
        Run.create(tmp_path / "run", key=Key.external(wallet.address, longer), session=session)
    assert asked == ["GenesisV1", "DelegationV1"]
