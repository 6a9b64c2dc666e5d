"""Every attack goes through where its defence is off, and is caught where it is on."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import oracle
import samples
from counterfoil import Key, Record, Run, commit_tensors
from counterfoil.attacks import (
    ATTACKS,
    backdating,
    checkpoint_swap,
    cross_chain_replay,
    duplicated_last_leaf,
    earlier_timestamp,
    equal_bytes,
    equal_values,
    flooding_disputes,
    griefing_disputes,
    guessed_leaf,
    hostile_bundle,
    late_join_grinding,
    lazy_verifier_that_always_agrees,
    lazy_verifier_that_copies,
    markets,
    name_of,
    plain_tree,
    random_matrix_useful_work,
    requester_who_refuses_to_pay,
    reused_run,
    row,
    scoreboard,
    second_preimage,
    self_dealing_work,
    signature_malleability,
    sybil_workers,
    unbond_before_slash,
    undelivered_result,
    zero_address,
)
from counterfoil.attacks.judging import by_chain, by_each_receipt
from counterfoil.attacks.ledgers import Dated, PublicChain, journal, record, resigned
from counterfoil.attacks.unmounted import UNMOUNTED
from counterfoil.errors import InvalidInput
from counterfoil.testing import signing
from counterfoil.testing.resign import resign
from counterfoil.testing.tamper import read_frames, write_frames

PAGE = Path(__file__).parents[3] / "docs" / "attacks.md"

EXPECTED_NOT_CAUGHT = {
    "discarded-branch": "docs/threat-model.md: that this was the only run",
    "unobserved-rank": "docs/threat-model.md: that the lanes shown are all of its lanes",
    "seed-grinding": "docs/threat-model.md: that this was the only run",
    "drift-within-tolerance": "docs/threat-model.md: what the thresholds hide",
    "poisoned-data": "docs/threat-model.md: that the data is what its name says",
    "cloned-data-owners": "docs/threat-model.md: that who lists a dataset for payment owns it",
}
"""Attacks that go through, each with the page that says that no verdict shows the opposite."""

NAMED = {
    "replayed-receipt": "receipt 6 (step 4): previous",
    "receipt-in-another-lane": "receipt 1 (step 1): previous",
    "cross-run-replay": "receipt 2 (step 1): run",
    "data-after-the-fact": "split view: not excluded",
    "guessed-leaf": "none of 100 candidates",
    "skipped-steps": "step 4: parameters",
    "fewer-inner-steps": "step 3: gradients",
    "easy-data": "step 2: gradients",
    "unpinned-data": "step 2: its batch holds a sample, row 1",
    "learning-rate-drift": "step 4: parameters",
    "learning-rate-drift-with-stored-gradients": "(step 4): update of parameters",
    "lower-precision": "step 1: gradients",
    "interpolation-spoof": "step 1: gradients",
    "gradient-elsewhere": "step 1: gradients",
    "trained-before": "undecided: the run did not begin from the state that its recipe makes",
    "reused-run": "WrongClose(word: 1)",
    "sybil-workers": "NotEnlisted",
    "lazy-verifier-that-copies": "WrongVote",
    "flooding-disputes": "dispute 5 costs 1 coins",
    "unbond-before-slash": "2 coins are slashed of what leaves",
    "undelivered-result": "the panel was given no run",
} | dict.fromkeys(
    ["free-riding-with-zeros", "free-riding-with-noise", "copied-gradients", "copied-gradients-with-noise", "label-flip",
     "backdoor", "scaled-contribution", "sign-flip", "little-is-enough"],
    "lane 1: contribution",
)  # fmt: skip
"""What the defence must name, where an attack could also be refused for another reason."""


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=name_of)
def test_an_attack_is_caught(attack: ModuleType, tmp_path: Path) -> None:
    """A defence that is gone or refuses honest people, or an attack that was never one."""
    found = row(attack, tmp_path)
    expected = "not caught" if found.name in EXPECTED_NOT_CAUGHT else "caught"
    assert found.outcome == expected, found.found
    assert NAMED.get(found.name, "") in found.found
    assert found.summary.endswith(".")
    told = attack.__doc__ or ""
    assert "\n\nDefence: " in told and ("\n\nNot caught: " in told) == (expected == "not caught")


def test_names_are_taken_once_and_checked(tmp_path: Path) -> None:
    """A row that hides another one, or a misspelt name that runs nothing."""
    names = [name_of(attack) for attack in ATTACKS] + [name for name, *_ in UNMOUNTED]
    assert len(names) == len({*names})
    assert {outcome for _, outcome, _ in UNMOUNTED} == {"open", "out of scope"}
    with pytest.raises(InvalidInput, match="there is no attack unknown; there are backdating"):
        next(scoreboard(tmp_path, ["equal-values", "unknown"]))
    assert [each.name for each in scoreboard(tmp_path, ["equal-values"])] == ["equal-values"]


def test_the_page_lists_every_attack_with_its_outcome() -> None:
    """A page that claims what the board does not show, or leaves out what goes through."""
    rows = re.findall(r"^\| (\S+) \| [^|]+ \| ([a-z ]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    mounted = [name_of(attack) for attack in ATTACKS]
    outcomes = [(name, "not caught" if name in EXPECTED_NOT_CAUGHT else "caught") for name in mounted]
    outcomes += [(name, outcome) for name, outcome, _ in UNMOUNTED]
    assert [row for row in rows if row != ("attack", "outcome")] == outcomes
    counted = Counter(outcome for _, outcome in outcomes)
    told = f"Of {len(mounted)} attacks that are mounted {counted['caught']} are caught and {counted['not caught']} are not;"
    told += f" {counted['open']} are open, {counted['out of scope']} is out of scope."
    assert told in " ".join(PAGE.read_text(encoding="utf-8").split())


def test_a_row_is_broken_where_the_attack_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board that counts an attack as caught which fails by itself, or whose defence refuses everybody."""
    monkeypatch.setattr(equal_values, "undefended", lambda case: "seen")
    assert row(equal_values, tmp_path / "seen").outcome == "broken"
    monkeypatch.undo()
    monkeypatch.setattr(equal_values, "defended", lambda case: "refused")
    assert row(equal_values, tmp_path / "refused").outcome == "broken"
    monkeypatch.setattr(equal_values, "defended", lambda case: None)
    assert row(equal_values, tmp_path / "none").outcome == "not caught"


# Each tool without the defence refuses what is grossly wrong, and takes what is honest.


def test_each_receipt_alone_is_still_checked(tmp_path: Path) -> None:
    """A naive verifier that looks at nothing."""
    path = record(tmp_path / "run")
    assert by_each_receipt(path) is None
    Key.generate(tmp_path / "stranger.key")
    resign(path, bytes.fromhex((tmp_path / "stranger.key").read_text()), lambda told: None)
    assert "is no key of" in str(by_each_receipt(path))


@pytest.mark.parametrize("attack", [signature_malleability, zero_address], ids=name_of)
def test_a_contract_refuses_a_signature_of_somebody_else(attack: ModuleType, tmp_path: Path) -> None:
    """A recovery whose answer is compared with nothing."""
    case = attack.mount(tmp_path, honest=False)
    resigned(case.path, lambda signature: signing.sign(bytes(32), bytes(31) + b"\x07"))
    assert "is signed by" in attack.undefended(case)


def test_a_ledger_of_any_chain_refuses_another_signer(tmp_path: Path) -> None:
    """A signature that is not recovered at all."""
    case = cross_chain_replay.mount(tmp_path, honest=False)
    other = replace(case, signature=signing.sign(signing.typed_digest(case.document), bytes(31) + b"\x07"))
    assert "signed by" in str(cross_chain_replay.undefended(other))


def test_times_that_receipts_tell_are_read(tmp_path: Path) -> None:
    """A naive judge of time that is content with any time."""
    late = backdating.mount(tmp_path / "late", honest=True)
    assert "behind the deadline" in str(backdating.undefended(replace(late, deadline=0)))
    claim = earlier_timestamp.mount(tmp_path / "claim", honest=True)
    assert "earlier time" in str(earlier_timestamp.undefended(claim))


def test_a_loader_refuses_a_checkpoint_that_was_cut(tmp_path: Path) -> None:
    """A loader that takes any bytes for a tensor."""
    path = checkpoint_swap.mount(tmp_path, honest=True)
    (stored,) = (path / "objects").iterdir()
    stored.write_bytes(stored.read_bytes()[:-4])
    assert "does not have 2400 bytes" in str(checkpoint_swap.undefended(path))


def test_a_plain_tree_refuses_other_leaves(tmp_path: Path) -> None:
    """A tree that proves everything."""
    case = second_preimage.mount(tmp_path, honest=False)
    leaf, *rest = case.plain
    assert second_preimage.undefended(replace(case, plain=(leaf + b"x", *rest)))
    assert plain_tree.includes(*second_preimage.mount(tmp_path, honest=True).plain)
    assert duplicated_last_leaf.undefended((b"a" * 3000, b"b" * 3000))


@pytest.mark.parametrize("attack", [equal_values, equal_bytes], ids=name_of)
def test_a_careless_comparison_refuses_another_tensor(attack: ModuleType, tmp_path: Path) -> None:
    """A comparison that takes any version."""
    case = attack.mount(tmp_path, honest=False)
    other = {"everything": {"w": np.full((2, 3), 9, np.float32)}}
    assert "where everything is another" in attack.undefended(replace(case, versions=other))


def test_a_search_finds_only_what_is_among_its_candidates(tmp_path: Path) -> None:
    """A search that finds whatever it is shown."""
    case = guessed_leaf.mount(tmp_path, honest=False)
    assert guessed_leaf.undefended(case) is None
    with Run.create(tmp_path / "other", public=["step.metrics"]) as run:
        run.record_step(1, {"metrics": commit_tensors({"loss": 1.25}, keep=True)})
    assert guessed_leaf.undefended(replace(case, public=Record(tmp_path / "other").receipts()))


def test_a_search_finds_a_blinded_value_with_the_secret(home: Path, tmp_path: Path) -> None:
    """A search that finds nothing because it hashes in another way than the library."""
    case = guessed_leaf.mount(tmp_path, honest=False)
    known = guessed_leaf.words(case.private)
    assert guessed_leaf.search(case.private, known)
    secret = samples.lane_secret(home, oracle.Ledger.read(journal(tmp_path / "private")))
    assert guessed_leaf.search(case.private, [*known, secret]) is None


def test_a_careless_reader_checks_hashes_and_writes_outside(tmp_path: Path) -> None:
    """A reader that refuses nothing, or an escape that escapes nowhere."""
    case = hostile_bundle.mount(tmp_path, honest=False)
    assert hostile_bundle.undefended(case) is None
    assert (case.target / "escape" / "escaped.py").read_text() == "x = 1\n"
    shutil.copy(case.bundles[0], tmp_path / "damaged")
    data = bytearray((tmp_path / "damaged").read_bytes())
    data[-1] ^= 1
    (tmp_path / "damaged").write_bytes(data)
    assert "has another hash" in str(
        hostile_bundle.undefended(replace(case, bundles=(tmp_path / "damaged",)))
    )


def test_a_chain_that_counts_as_public_is_still_asked(tmp_path: Path) -> None:
    """A judge by a chain that takes an anchor's own word."""
    path, chain = record(tmp_path / "run"), PublicChain.dev(tmp_path / "chain")
    assert "cover 0 of 7 receipts" in str(by_chain(Dated(path, chain)))
    chain.anchor(path)
    assert by_chain(Dated(path, chain)) is None
    frames = read_frames(journal(path))
    write_frames(journal(path), frames[:-2])
    assert "anchor" in str(by_chain(Dated(path, chain)))


def test_tools_of_a_market_without_the_defence_refuse_what_is_gross(tmp_path: Path) -> None:
    """A rule without the defence that refuses nothing, against which every defence would look needed."""
    work = markets.accepted(markets.opened(tmp_path), tmp_path)
    key, other = work.worker, record(tmp_path / "other")
    assert "something else" in str(reused_run.undefended(reused_run.Submission(work, other)))
    assert "on the list" in str(sybil_workers.undefended(sybil_workers.Crowd(work.market, [key, key])))
    richer = markets.wealth(work.market, key) + 10 * markets.COIN
    assert "it costs" in str(self_dealing_work.undefended(self_dealing_work.Finished(work, richer)))
    claim = random_matrix_useful_work.Claim(work.market, key, other)
    assert "not anchored" in str(random_matrix_useful_work.undefended(claim))
    vote = lazy_verifier_that_copies.Opened(work.market, bytes(32), key, (2, bytes(32), bytes(32)), bytes(32))
    assert "another envelope" in str(lazy_verifier_that_copies.undefended(vote))
    game = lazy_verifier_that_always_agrees.Game(work, bytes(32), key)
    assert lazy_verifier_that_always_agrees.undefended(game) == "no vote, no fee"
    assert "no dispute" in str(griefing_disputes.undefended(griefing_disputes.Quarrel(work, key, 1)))
    assert "expensive" in str(flooding_disputes.undefended(flooding_disputes.Flood(work, 100, markets.COIN)))
    assert "holds the stake" in str(unbond_before_slash.undefended(unbond_before_slash.Leaving(work, other)))
    willing = requester_who_refuses_to_pay.Result(work, True)
    assert "paid" in str(requester_who_refuses_to_pay.undefended(willing))
    answered = undelivered_result.Answered(work, bytes(32), tmp_path, key)
    assert "the demand is open" in str(undelivered_result.undefended(answered))


def test_a_live_roll_is_still_a_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A roll that lets every newcomer win, whatever the others staked."""
    monkeypatch.setattr(late_join_grinding, "SETTLED", (10**9,) * 4)
    market = markets.opened(tmp_path)
    work = markets.Work(market, None, None, None, tmp_path)  # type: ignore[arg-type]
    late = late_join_grinding.Late(work, bytes(32), None)  # type: ignore[arg-type]
    assert "wins the panel" in str(late_join_grinding.undefended(late))
