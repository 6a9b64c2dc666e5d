"""Tampered run folders: each is refuted, and the verdict names the edge that broke."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import counterfoil
import forgery
import oracle
import samples
from counterfoil import Key, Record
from counterfoil.errors import Refuted
from oracle import Ledger, OpeningFrame, ReceiptFrame, word

# Receipts of the sample: genesis, join, steps 1-6, checkpoint, steps 7-12, checkpoint, close.
STEP_3, CHECKPOINT_6, STEP_9, CLOSE = 4, 8, 11, 16


def place(step: int) -> str:
    """The name of a step's receipt in a verdict."""
    return f"ledger: receipt {step + 1 + (step > 6)} (step {step})"


@pytest.fixture
def secret(home: Path) -> bytes:
    return samples.device_key(home)


def swapped_bit(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def body_with(name: str, value: bytes) -> Callable[[ReceiptFrame], ReceiptFrame]:
    return lambda receipt: replace(receipt, body=receipt.kind.with_word(receipt.body, name, value))


def change_body(run: Path) -> None:
    forgery.change_receipt(run, STEP_3, body_with("metrics", bytes(32)))


def change_body_and_digest(run: Path) -> None:
    def change(receipt: ReceiptFrame) -> ReceiptFrame:
        changed = body_with("metrics", oracle.sha256(b"lower loss"))(receipt)
        return replace(changed, digest=receipt.kind.digest(changed.body))

    forgery.change_receipt(run, STEP_3, change)


def sign_with_another_key(run: Path) -> None:
    def change(receipt: ReceiptFrame) -> ReceiptFrame:
        return replace(receipt, signature=forgery.sign(receipt.digest, b"\x01" * 32))

    forgery.change_receipt(run, STEP_3, change)


def receipts_only(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    """Changes the order of receipt frames; openings and heads stay where they are."""

    def tamper(run: Path) -> None:
        def rearrange(payloads: list[bytes]) -> list[bytes]:
            places = [at for at, payload in enumerate(payloads) if payload[:1] == b"R"]
            changed = change([payloads[at] for at in places])
            last = places[-1]
            before = [
                payload if payload[:1] != b"R" else None if not changed else changed.pop(0)
                for payload in payloads[: last + 1]
            ]
            return [payload for payload in before if payload] + changed + payloads[last + 1 :]

        forgery.rewrite(run, rearrange)

    return tamper


def change_opening(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def tamper(run: Path) -> None:
        receipt = Ledger.read(samples.journal(run)).receipts[STEP_3]

        def replace_opening(payload: bytes) -> bytes:
            if payload[:1] != b"O":
                return payload
            frame = OpeningFrame.decode(payload)
            if frame.receipt != receipt.digest:
                return payload
            first = frame.fields[0]
            first = replace(first, payload=change(first.payload))
            return replace(frame, fields=(first, *frame.fields[1:])).encode()

        forgery.rewrite(run, lambda payloads: [replace_opening(each) for each in payloads])

    return tamper


def values_in_blocks(run: Path) -> None:
    """Calls tensors whose values are stored tensors in blocks, in layouts and openings alike."""

    def rewritten(payloads: list[bytes]) -> list[bytes]:
        kind = len("L") + 4 + len("counterfoil.entry.v1")
        layouts = {p: p[:kind] + b"\4" + p[kind + 1 :] for p in payloads if p[:1] == b"L" and p[kind] == 0}
        names = {oracle.sha256(old): oracle.sha256(new) for old, new in layouts.items()}
        found = []
        for payload in payloads:
            if payload[:1] == b"O":
                frame = OpeningFrame.decode(payload)
                fields = (replace(each, layout=names.get(each.layout, each.layout)) for each in frame.fields)
                payload = replace(frame, fields=tuple(fields)).encode()
            found.append(layouts.get(payload, payload))
        return found

    forgery.rewrite(run, rewritten)


def change_spec(run: Path) -> None:
    spec = json.loads((run / "spec.json").read_text())
    text = json.dumps({**spec, "model": "better squares"}, sort_keys=True)
    (run / "spec.json").write_text(text)


def change_recipe(run: Path) -> None:
    (run / "recipe" / "recipe.py").write_text(samples.RECIPE + "# kinder\n")


def add_to_recipe(run: Path) -> None:
    (run / "recipe" / "also.py").write_text("# extra\n")


def change_object(run: Path) -> None:
    largest = max((run / "objects").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(swapped_bit(largest.read_bytes(), 100))


def cut_tail(run: Path) -> None:
    """Drops the close receipt and the checkpoint before it; the signed head stays."""
    receipts_only(lambda receipts: receipts[:-2])(run)


def change_head(run: Path) -> None:
    def change(payloads: list[bytes]) -> list[bytes]:
        return [swapped_bit(p, len(p) - 130) if p[:1] == b"H" else p for p in payloads]

    forgery.rewrite(run, change)


def rename_worker(run: Path) -> None:
    (folder,) = (run / "workers").iterdir()
    folder.rename(folder.with_name("0x" + "11" * 20))


def change_journal_byte(run: Path) -> None:
    path = samples.journal(run)
    data = path.read_bytes()
    path.write_bytes(swapped_bit(data, len(data) // 2))


TAMPERINGS: list[tuple[str, Callable[[Path], None], str]] = [
    ("a field of a receipt", change_body, re.escape(f"{place(3)}: body")),
    ("a field and its digest", change_body_and_digest, re.escape(f"{place(3)}: signature")),
    ("another key's signature", sign_with_another_key, re.escape(f"{place(3)}: signature")),
    ("a receipt removed", receipts_only(lambda r: r[:5] + r[6:]), r"receipt 5 .*(previous|seq)"),
    ("a receipt twice", receipts_only(lambda r: [*r[:5], *r[4:]]), r"receipt 5 .*(previous|seq)"),
    ("two receipts swapped", receipts_only(lambda r: [*r[:4], r[5], r[4], *r[6:]]), "receipt 4 "),
    ("the tail cut off", cut_tail, r"tree head of size 17: receipts"),
    ("an opened value", change_opening(lambda p: swapped_bit(p, 0)), f"{re.escape(place(3))}: .*opening"),
    ("a tree head", change_head, "tree head"),
    ("the specification", change_spec, "spec.json"),
    ("a file of the recipe", change_recipe, "recipe"),
    ("a file added to the recipe", add_to_recipe, "recipe"),
    ("a stored tensor", change_object, r"receipt (8|15) \(checkpoint (6|12)\): parameters"),
    ("the worker's folder renamed", rename_worker, "(genesis|worker|signature|ledger)"),
]  # fmt: skip


def test_the_untouched_run_verifies(recorded: Path) -> None:
    """The control of every test below."""
    verdict = counterfoil.verify(recorded)
    assert verdict.status == "verified"
    text = str(verdict)
    assert text.startswith("verified: integrity only")
    assert "intact" in text
    assert "unpinned" in text
    assert "structural" in text
    assert verdict.not_shown


def test_a_verdict_is_no_boolean(recorded: Path) -> None:
    """`if verify(run):` would read `undecided` as yes."""
    with pytest.raises(TypeError):
        bool(counterfoil.verify(recorded))


@pytest.mark.parametrize(
    ("tamper", "edge"), [each[1:] for each in TAMPERINGS], ids=[each[0] for each in TAMPERINGS]
)
def test_tampering_names_its_edge(copy: Path, tamper: Callable[[Path], None], edge: str) -> None:
    tamper(copy)
    with pytest.raises(Refuted) as caught:
        counterfoil.verify(copy)
    assert caught.value.verdict.status == "refuted"
    assert re.search(edge, str(caught.value.verdict)), str(caught.value.verdict)


def test_values_do_not_open_a_tensor_in_blocks(copy: Path) -> None:
    """The root of an entry in blocks is no tree over any bytes; a verifier that hashes them believes it."""
    values_in_blocks(copy)
    with pytest.raises(Refuted) as caught:
        counterfoil.verify(copy)
    assert any("sharded" in broken.actual for broken in caught.value.verdict.broken)


def test_a_damaged_journal_is_named_with_the_place_of_the_damage(copy: Path) -> None:
    """A frame that fails its checksum is no receipt; what lies around it is still judged."""
    change_journal_byte(copy)
    with pytest.raises(Refuted) as caught:
        counterfoil.verify(copy)
    assert re.search(r"journal at byte \d+", str(caught.value.verdict))


def test_a_receipt_of_another_run_is_refused(copy: Path, tmp_path: Path) -> None:
    samples.record(tmp_path / "other")
    other = Ledger.read(samples.journal(tmp_path / "other")).receipts[STEP_3]
    forgery.change_receipt(copy, STEP_3, lambda receipt: other)
    with pytest.raises(Refuted) as caught:
        counterfoil.verify(copy)
    assert f"{place(3)}: run" in str(caught.value.verdict)


def test_the_signer_is_pinned(recorded: Path) -> None:
    owner = Record(recorded).receipts()[0].signer
    assert f"expected {owner}" in str(counterfoil.verify(recorded, signer=owner))
    with pytest.raises(Refuted):
        counterfoil.verify(recorded, signer=Key.generate().address)


def test_the_recipe_is_pinned(recorded: Path) -> None:
    digest = Record(recorded).recipe_digest
    assert "recipe pinned" in str(counterfoil.verify(recorded, recipe=digest))
    with pytest.raises(Refuted):
        counterfoil.verify(recorded, recipe="0x" + "11" * 32)


def test_the_strict_requirement_says_what_is_missing(recorded: Path) -> None:
    verdict = counterfoil.verify(recorded, require="stranger")
    assert verdict.status == "undecided"
    assert len(verdict.missing) >= 4


def test_missing_openings_and_objects_lower_the_verdict_but_refute_nothing(copy: Path) -> None:
    """Withheld evidence is not false evidence."""
    forgery.rewrite(copy, lambda payloads: [p for p in payloads if p[:1] not in (b"O", b"L")])
    shutil.rmtree(copy / "objects")
    assert counterfoil.verify(copy).integrity.startswith("intact")


def test_an_unknown_kind_is_undecided(copy: Path, secret: bytes) -> None:
    """A newer writer is not a liar."""
    last = Ledger.read(samples.journal(copy)).receipts[-1]
    digest = oracle.sha256(b"a receipt from the future")
    leaf = digest + forgery.sign(digest, secret)
    frame = b"R" + (10).to_bytes(2) + leaf + last.body
    forgery.rewrite(copy, lambda payloads: [*payloads, frame])
    verdict = counterfoil.verify(copy)
    assert verdict.status == "undecided"
    assert "does not know" in " ".join(verdict.missing)


def test_a_forgery_signed_anew_passes_every_signature_check(
    copy: Path, secret: bytes, tmp_path: Path
) -> None:
    """The owner rewrites history with the real key: nothing inside the folder can show it.

    Integrity is intact and the signer is the expected one; only what left the folder before
    (an anchored head) or a replay of the step knows better.
    """
    owner = Record(copy).receipts()[0].signer
    chain = counterfoil.Chain.dev(tmp_path / "chain")
    chain.anchor(copy)
    forgery.change_scalar(copy, secret, STEP_9, "hyperparameters", 0.010001)
    anchors = tmp_path / "anchors"
    shutil.move(copy / "anchors", anchors)

    verdict = counterfoil.verify(copy, signer=owner)
    assert verdict.status == "verified"
    assert verdict.integrity.startswith("intact")
    assert f"expected {owner}" in str(verdict)
    record = Record(copy)
    opened = record.opened(record.receipts()[STEP_9])["hyperparameters"]
    assert opened.scalars() == {"lr": 0.010001}

    shutil.move(anchors, copy / "anchors")
    with pytest.raises(Refuted) as caught:
        counterfoil.verify(copy, signer=owner)
    assert "root over the first 17 receipts" in str(caught.value.verdict)


@pytest.mark.parametrize(
    ("name", "sequence", "value", "edge"),
    [
        ("step number", STEP_9, ("step", 10), "receipt 11 (step 10): step"),
        ("due field absent", STEP_9, ("gradients", 0), f"{place(9)}: gradients"),
        ("checkpoint of another step", CHECKPOINT_6, ("step", 5), "(checkpoint 5): step"),
        ("schema", STEP_3, ("schema", 2), f"{place(3)}: schema"),
        ("lane", STEP_3, ("lane", 1), f"{place(3)}: lane"),
        ("run", STEP_3, ("run", 7), f"{place(3)}: run"),
        ("worker", STEP_3, ("worker", 7), f"{place(3)}: worker"),
        ("step of close", CLOSE, ("step", 11), "(close): step"),
    ],
)
def test_structure_is_checked_even_when_signed(
    copy: Path, secret: bytes, name: str, sequence: int, value: tuple[str, int], edge: str
) -> None:
    """A valid signature on a wrong statement: the walk finds it."""
    kind = Ledger.read(samples.journal(copy)).receipts[sequence].kind
    forgery.resign(copy, secret, {sequence: lambda body: kind.with_word(body, value[0], word(value[1]))})
    with pytest.raises(Refuted) as caught:
        counterfoil.verify(copy)
    assert edge in str(caught.value.verdict)


@pytest.mark.parametrize(
    ("dropped", "edge"),
    [
        ({0}, "genesis"),
        ({1}, "order"),
        ({STEP_3}, "(step 4): step"),
        ({CHECKPOINT_6}, "checkpoint after step 6"),
    ],
)
def test_left_out_receipts_show_even_when_signed_anew(
    copy: Path, secret: bytes, dropped: set[int], edge: str
) -> None:
    forgery.resign(copy, secret, {}, drop=frozenset(dropped))
    with pytest.raises(Refuted) as caught:
        counterfoil.verify(copy)
    assert edge in str(caught.value.verdict)


def test_a_run_that_was_not_closed_says_so(tmp_path: Path) -> None:
    run = samples.create(tmp_path / "run")
    samples.LeastSquares().record(run, 1, 3)
    run.flush()
    verdict = counterfoil.verify(tmp_path / "run")
    assert verdict.integrity.startswith("intact")
    assert "end" in str(verdict.to_json())
    run.close()


def test_the_json_form_is_stable(recorded: Path) -> None:
    verdict = counterfoil.verify(recorded)
    loaded = json.loads(verdict.to_json())
    assert loaded["status"] == "verified"
    assert {"integrity", "signer", "time", "transition", "missing", "not_shown"} <= set(loaded)


def test_another_recipe_than_the_pinned_one_is_said_where_it_refutes(copy: Path) -> None:
    """A refusal without its reason reads as an accusation of something else."""
    pinned = "0x" + "11" * 32
    with pytest.raises(Refuted, match=f"not the pinned {pinned}"):
        counterfoil.verify(copy, recipe=pinned)


def test_a_chain_that_does_not_hold_the_anchor_dates_nothing(copy: Path, tmp_path: Path) -> None:
    counterfoil.Chain.dev(tmp_path / "one").anchor(copy)
    other = counterfoil.Chain.dev(tmp_path / "other")
    shorter = counterfoil.verify(copy, chain=other).time
    assert shorter.startswith("self-anchored:"), "it has no block of that number yet"
    with counterfoil.Run.create(tmp_path / "else") as run:
        run.record_policy(1, {"gradients": 1})
    while int(other.rpc("eth_blockNumber"), 16) < int(counterfoil.Record(copy).anchors[0]["blockNumber"]):
        other.anchor(run.path)
        with counterfoil.Run.open(run.path) as run:
            pass
    assert counterfoil.verify(copy, chain=other).time.startswith("none:")


def test_a_printed_verdict_says_what_was_expected_and_found(copy: Path, secret: bytes) -> None:
    """Whoever reads the text alone needs no second program to see what differs."""
    sequences = [each.sequence for each in Record(copy).receipts() if each.kind == "step"]
    kind = Ledger.read(samples.journal(copy)).receipts[sequences[0]].kind
    bad = {at: lambda body: kind.with_word(body, "batch", bytes([7] * 32)) for at in sequences[:7]}
    forgery.resign(copy, secret, bad)
    with pytest.raises(Refuted) as refuted:
        counterfoil.verify(copy)
    verdict = refuted.value.verdict
    lines = [line for line in str(verdict).splitlines() if line.startswith("  broken: ")]
    first = verdict.broken[0]
    assert lines[0] == f"  broken: {first.edge}: expected {first.expected}, found {first.actual}"
    assert len(lines) == 6 and lines[5] == f"  broken: {len(verdict.broken) - 5} more edges"
