"""What forgers of the attacks sign with: as good as a wallet, so that they are caught for what they claim."""

from __future__ import annotations

from pathlib import Path

import pytest
from eth_keys import keys
from eth_utils import keccak

from counterfoil import Record, verify
from counterfoil.attacks.ledgers import device_secret, record
from counterfoil.testing import signing
from counterfoil.testing.resign import resign


@pytest.mark.parametrize("size", [0, 1, 135, 136, 137, 271, 272, 1000])
def test_keccak_is_that_of_ethereum(size: int) -> None:
    """Padding at the borders of a block."""
    data = bytes(range(256)) * 4
    assert signing.keccak256(data[:size]) == keccak(data[:size])


def test_signatures_are_those_of_secp256k1() -> None:
    """A signature that is refused for its form, so that a forgery would be caught for a wrong reason."""
    secret = bytes(range(1, 33))
    owner = keys.PrivateKey(secret).public_key
    for number in range(8):
        digest = keccak(bytes([number]))
        signature = signing.sign(digest, secret)
        assert int.from_bytes(signature[32:64]) <= signing.ORDER // 2
        for each in (signature, signing.other_half(signature)):
            plain = keys.Signature(each[:64] + bytes([each[64] - 27]))
            assert plain.recover_public_key_from_msg_hash(digest) == owner


def test_a_history_that_its_worker_signs_anew_verifies(tmp_path: Path) -> None:
    """A forger who leaves a trace: a link, an opening or a head that belongs to the history before."""
    path = record(tmp_path / "run")
    before = Record(path).receipts()
    resign(path, device_secret(), lambda told: told.update(time="1"))
    after = Record(path).receipts()
    assert {receipt.fields["time"] for receipt in after} == {1}
    assert not {receipt.digest for receipt in before} & {receipt.digest for receipt in after}
    assert [{*Record(path).opened(receipt)} for receipt in after][2:-1] == [{"batch", "gradients"}] * 4
    assert verify(path).status == "verified"
