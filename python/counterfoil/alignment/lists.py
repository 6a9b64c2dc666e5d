"""Lists that receipts sign: of records, which lie beside them, and of other receipts, by place and digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from counterfoil import records
from counterfoil._native import Commitment, Receipt, Record
from counterfoil.commit import commit_tensors
from counterfoil.errors import InvalidInput, NotFound, ProofError
from counterfoil.records import Salted
from counterfoil.run import Run


def named_list(digests: Mapping[str, bytes]) -> Commitment:
    """Commits to digests of 32 bytes by name."""
    named = {name: np.frombuffer(digest, np.uint8) for name, digest in digests.items()}
    return commit_tensors(named, keep=True)


def held_records(record: Record, receipt: Receipt | None, field: str = "pairs") -> Sequence[Salted | None]:
    """The records of the list that a receipt signs, each compared with what is signed; None for an erased one."""
    if receipt is None or not any(receipt.fields[field]):
        return []
    opened = record.opened(receipt).get(field)
    if opened is None or opened.values is None:
        raise NotFound(f"{spoken(receipt)}: {field} is withheld", where=spoken(receipt))
    held = records.read_records(record.path, opened.commitment.root)
    signed = opened.values
    if set(signed) != {str(number) for number in range(len(signed))}:
        raise ProofError(f"{spoken(receipt)}: {field} is no list of records", where=spoken(receipt))
    if len(held) != len(signed):
        raise ProofError(
            f"{spoken(receipt)}: another number of records than was signed",
            expected=str(len(signed)),
            actual=str(len(held)),
            where=spoken(receipt),
        )
    for number, each in enumerate(held):
        if each is not None and each.digest != signed[str(number)]:
            where = f"{spoken(receipt)}: {field} <- record {number}"
            raise ProofError(
                f"{where}: this is not the record that was signed",
                expected="0x" + signed[str(number)].hex(),
                actual="0x" + each.digest.hex(),
                where=where,
            )
    return held


def opened_values(record: Record, receipt: Receipt | None, field: str) -> dict[str, bytes]:
    """The values of a list that a receipt opens; none when it is withheld."""
    opened = None if receipt is None else record.opened(receipt).get(field)
    return dict(opened.values or {}) if opened is not None else {}


def opened_samples(record: Record, receipt: Receipt, field: str) -> list[bytes]:
    """The roots of the samples that a field of a receipt names."""
    opened = record.opened(receipt).get(field)
    content = None if opened is None else (opened.values or {}).get("content")
    if content is None:
        raise NotFound(f"{spoken(receipt)}: {field} is not opened", where=spoken(receipt))
    return [content[at : at + 32] for at in range(0, len(content), 32)]


def require_owner(run: Run) -> None:
    """Refuses to sign what would count for nothing."""
    owner = Record(run.path).receipts()[0].fields["owner"]
    if run.worker.lower() != owner.lower():
        raise InvalidInput(
            "this counts in a lane of the run's owner alone", expected=owner, actual=run.worker, where="run"
        )


def signed_receipt(run: Run, sequence: int) -> Receipt:
    """The receipt that was just recorded, durable."""
    return run.receipts()[sequence]


def name_of(receipt: Receipt) -> str:
    """What a list calls a receipt: `<worker>/<lane>/<sequence>`."""
    fields = receipt.fields
    return f"{fields['worker'].lower()}/{fields['lane']}/{receipt.sequence}"


def spoken(receipt: Receipt) -> str:
    """What an error calls a receipt."""
    return f"ledger of {receipt.fields['worker']} lane {receipt.fields['lane']}: receipt {receipt.sequence} ({receipt.kind})"
