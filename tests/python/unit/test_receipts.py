"""Receipts, run ids, blinds and tree heads against eth_account, eth_utils and hashlib."""

import hmac
import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_keys import keys

import counterfoil
import forgery
import oracle
import samples
from counterfoil import Record
from counterfoil.errors import Refuted
from oracle import HEAD, ZERO, Ledger


@pytest.fixture(scope="module")
def ledger(recorded: Path) -> Ledger:
    return Ledger.read(samples.journal(recorded))


def signer(digest: bytes, signature: bytes) -> str:
    """The address behind a signature, by eth_keys."""
    plain = keys.Signature(signature[:64] + bytes([signature[64] - 27]))
    return plain.recover_public_key_from_msg_hash(digest).to_checksum_address()


def test_eth_account_recovers_the_signer_from_typed_data(recorded: Path) -> None:
    """Any wallet library must see the same digest: one wrong type string and it does not."""
    owner = samples.journal(recorded).parent.parent.name
    seen = set()
    for receipt in Record(recorded).receipts():
        message = encode_typed_data(full_message=receipt.typed_data())
        recovered = Account.recover_message(message, signature=receipt.signature)
        assert recovered.lower() == receipt.signer.lower() == owner.lower()
        seen.add(receipt.kind)
    assert seen >= {"genesis", "join", "step", "checkpoint", "close"}


def test_digests_from_the_page(recorded: Path, ledger: Ledger) -> None:
    """The schema that docs/format.md prints gives the digests that were signed."""
    receipts = Record(recorded).receipts()
    assert len(receipts) == len(ledger.receipts) == 2 + samples.STEPS + 2 + 1
    for shown, stored in zip(receipts, ledger.receipts, strict=True):
        assert stored.kind.digest(stored.body) == stored.digest == shown.digest
        assert stored.kind.name == shown.kind
        assert stored.signature == shown.signature
        assert signer(stored.digest, stored.signature).lower() == shown.signer.lower()


def test_every_receipt_names_the_one_before(ledger: Ledger) -> None:
    previous = ZERO
    for sequence, receipt in enumerate(ledger.receipts):
        assert receipt.kind.word(receipt.body, "previous") == previous
        assert receipt.kind.word(receipt.body, "sequence") == oracle.word(sequence)
        assert receipt.kind.word(receipt.body, "schema") == oracle.word(1)
        previous = receipt.digest


def test_run_id_and_specification(recorded: Path, ledger: Ledger) -> None:
    genesis = ledger.receipts[0]

    def word(name: str) -> bytes:
        return genesis.kind.word(genesis.body, name)

    owner = word("owner")[12:]
    flags = int.from_bytes(word("flags"))
    run = oracle.run_id(owner, word("specification"), flags, word("nonce"))
    assert word("run") == run
    assert _plain(Record(recorded).receipts()[0].fields["run"]) == run
    raw = (recorded / "spec.json").read_bytes()
    assert word("specification") == oracle.sha256(raw)
    assert json.loads(raw)
    assert word("policy") == oracle.policy_digest(
        [samples.POLICY.get(name.removesuffix("Every"), 0) for name in _cadences()]
    )


def _cadences() -> list[str]:
    return [name for _, name in oracle.BY_NAME["policy"].fields if name.endswith("Every")]


def _plain(value: object) -> bytes:
    """32 bytes, however the library shows them."""
    return bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else bytes(value)


def test_the_recipe_is_a_public_state(recorded: Path, ledger: Ledger) -> None:
    genesis = ledger.receipts[0]
    data = samples.RECIPE.encode()
    chunks = oracle.root(oracle.chunks(data))
    entry = oracle.Entry("recipe.py", 0, "U8", (len(data),), len(data), chunks)
    assert genesis.kind.word(genesis.body, "recipe") == oracle.state_digest([entry])
    assert _plain(Record(recorded).recipe_digest) == oracle.state_digest([entry])


def test_openings_lead_to_the_signed_fields(ledger: Ledger) -> None:
    """Blinded entries, blinded digest: recomputed from what the journal says was recorded."""
    receipts = {receipt.digest: receipt for receipt in ledger.receipts}
    count = 0
    for opening in ledger.openings:
        receipt = receipts[opening.receipt]
        names = [name for _, name in receipt.kind.fields[forgery.HEADER_FIELDS :]]
        for opened in opening.fields:
            entries = opened.entries(ledger.layouts)
            digest = oracle.state_digest(entries, opened.blind, opened.entry_key)
            assert opened.blind != ZERO != opened.entry_key
            assert receipt.kind.word(receipt.body, names[opened.index]) == digest
            count += 1
    assert count >= samples.STEPS * 4


def test_blinds_come_from_the_lane_secret(ledger: Ledger, home: Path) -> None:
    """Every blind is derived anew from its context: none is used twice, none can be guessed."""
    secret = samples.lane_secret(home, ledger)
    join = ledger.receipts[1]
    public = oracle.sha256(b"counterfoil.lane-secret.v1" + secret)
    assert join.kind.word(join.body, "secret") == public
    receipts = {receipt.digest: receipt for receipt in ledger.receipts}
    seen = set()
    for opening in ledger.openings:
        receipt = receipts[opening.receipt]
        kind, body = receipt.kind, receipt.body
        names = [name for _, name in kind.fields[forgery.HEADER_FIELDS :]]
        for opened in opening.fields:
            context = (
                kind.word(body, "run")
                + kind.word(body, "worker")[12:]
                + kind.word(body, "lane")[28:]
                + kind.word(body, "sequence")[24:]
                + kind.type_hash
                + names[opened.index].encode()
            )
            for tag, value in [(b"blind", opened.blind), (b"entries", opened.entry_key)]:
                label = b"counterfoil." + tag + b".v1"
                assert hmac.digest(secret, label + context, "sha256") == value
                seen.add(value)
    assert len(seen) == 2 * sum(len(opening.fields) for opening in ledger.openings)


def test_tree_heads(recorded: Path, ledger: Ledger) -> None:
    assert ledger.heads
    previous = ZERO
    leaves = [receipt.leaf for receipt in ledger.receipts]
    for signature, body in ledger.heads:
        size = int.from_bytes(HEAD.word(body, "size"))
        assert HEAD.word(body, "root") == oracle.root(leaves[:size])
        assert HEAD.word(body, "previousHead") == previous
        previous = HEAD.digest(body)
        owner = HEAD.word(body, "worker")[12:].hex()
        assert signer(previous, signature).lower() == f"0x{owner}"
    assert size == len(leaves)


def test_public_fields_are_plain(tmp_path: Path) -> None:
    """A field that the specification lists as public can be compared between runs."""
    with samples.create(tmp_path / "run", public=("step.hyperparameters",)) as run:
        samples.LeastSquares().record(run, 1, 2)
    ledger = Ledger.read(samples.journal(tmp_path / "run"))
    step = next(receipt for receipt in ledger.receipts if receipt.kind.name == "step")
    expected = counterfoil.commit_tensors({"lr": 0.01}).digest()
    assert step.kind.word(step.body, "hyperparameters") == expected
    entry = oracle.Entry.of("lr", __import__("numpy").array(0.01))
    assert expected == oracle.state_digest([entry])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("high s", forgery.other_half),
        ("v as 0 or 1", lambda s: s[:64] + bytes([s[64] - 27])),
        ("v as 29 or 30", lambda s: s[:64] + bytes([s[64] + 2])),
        ("the other v", lambda s: s[:64] + bytes([55 - s[64]])),
        ("r of zero", lambda s: bytes(32) + s[32:]),
        ("s of zero", lambda s: s[:32] + bytes(32) + s[64:]),
        ("r beyond the curve order", lambda s: b"\xff" * 32 + s[32:]),
        ("all zero", lambda s: bytes(65)),
    ],
)
def test_other_encodings_of_a_signature_are_refused(copy: Path, name: str, change: object) -> None:
    """One receipt, one signature: a second encoding would be a second leaf."""
    forgery.change_receipt(copy, 4, lambda r: replace(r, signature=change(r.signature)))
    with pytest.raises(Refuted) as caught:
        counterfoil.verify(copy)
    assert "receipt 4 (step 3): signature" in str(caught.value.verdict)


def test_numbers_too_wide_for_their_field_are_refused(copy: Path) -> None:
    """EIP-712 words have room for more than their type: those bits must be zero."""
    for name in ("lane", "worker", "time"):
        word = struct.pack(">I", 1) + bytes(28)

        def widen(receipt: oracle.ReceiptFrame, name: str = name, word: bytes = word):
            kept = receipt.kind.word(receipt.body, name)
            wide = bytes(a | b for a, b in zip(kept, word, strict=True))
            body = receipt.kind.with_word(receipt.body, name, wide)
            return replace(receipt, body=body, digest=receipt.kind.digest(body))

        forgery.change_receipt(copy, 3, widen)
        with pytest.raises(Refuted) as caught:
            counterfoil.verify(copy)
        assert "receipt 3" in str(caught.value.verdict)
