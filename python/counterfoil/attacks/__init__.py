"""Attacks on the evidence of a training: each goes through where its defence is off, and is caught where it is on.

One module each. `mount` does the attack, or with `honest` what an honest party does in its place; `undefended` and
`defended` judge the outcome without and with the defence, and return None when they accept it, else what they found.
An attack is caught when the first accepts it, the second does not, and the second accepts the honest party.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

from counterfoil.attacks import (
    backdating,
    backdoor,
    checkpoint_swap,
    cloned_data_owners,
    copied_gradients,
    copied_gradients_with_noise,
    cross_chain_replay,
    cross_run_replay,
    data_after_the_fact,
    discarded_branch,
    drift_within_tolerance,
    dropped_rank,
    duplicated_last_leaf,
    earlier_timestamp,
    easy_data,
    edited_recipe,
    equal_bytes,
    equal_values,
    equivocation,
    evaluation_leakage,
    fewer_inner_steps,
    flipped_preference,
    flooding_disputes,
    forged_loss,
    forked_run,
    free_riding_with_noise,
    free_riding_with_zeros,
    gradient_elsewhere,
    griefing_disputes,
    guessed_leaf,
    hostile_bundle,
    interpolation_spoof,
    label_flip,
    late_join_grinding,
    lazy_verifier_that_always_agrees,
    lazy_verifier_that_copies,
    learning_rate_drift,
    learning_rate_drift_with_stored_gradients,
    little_is_enough,
    lost_anchor,
    lower_precision,
    other_weights,
    poisoned_data,
    random_matrix_useful_work,
    receipt_in_another_lane,
    replayed_receipt,
    requester_who_refuses_to_pay,
    reused_run,
    rotated_key,
    scaled_contribution,
    second_preimage,
    seed_grinding,
    self_dealing_work,
    sign_flip,
    signature_malleability,
    skipped_steps,
    stolen_key,
    sybil_workers,
    torn_tail,
    trained_before,
    truncated_ledger,
    unbond_before_slash,
    undelivered_result,
    unobserved_rank,
    unpinned_data,
    work_in_two_lanes,
    zero_address,
)
from counterfoil.attacks.unmounted import UNMOUNTED
from counterfoil.errors import InvalidInput


class Attack(Protocol):
    """What a module of this package holds; the first line of its docstring says what the attacker does."""

    __name__: str
    __doc__: str | None
    LAYER: str
    """The defence, by the name of the function or command that holds it."""

    def mount(self, folder: Path, *, honest: bool) -> Any:
        """Does the attack, or what an honest party does instead, in an empty folder; returns what is judged."""

    def undefended(self, case: Any, /) -> str | None:
        """Judges without the defence; None when it accepts."""

    def defended(self, case: Any, /) -> str | None:
        """Judges with the defence; None when it accepts, else what it found."""


ATTACKS: tuple[Attack, ...] = (
    forged_loss,
    replayed_receipt,
    receipt_in_another_lane,
    work_in_two_lanes,
    cross_run_replay,
    cross_chain_replay,
    earlier_timestamp,
    data_after_the_fact,
    backdating,
    checkpoint_swap,
    equivocation,
    forked_run,
    discarded_branch,
    truncated_ledger,
    torn_tail,
    dropped_rank,
    unobserved_rank,
    signature_malleability,
    zero_address,
    second_preimage,
    duplicated_last_leaf,
    equal_values,
    equal_bytes,
    stolen_key,
    rotated_key,
    guessed_leaf,
    lost_anchor,
    hostile_bundle,
    edited_recipe,
    free_riding_with_zeros,
    free_riding_with_noise,
    copied_gradients,
    copied_gradients_with_noise,
    skipped_steps,
    fewer_inner_steps,
    easy_data,
    unpinned_data,
    seed_grinding,
    learning_rate_drift,
    learning_rate_drift_with_stored_gradients,
    lower_precision,
    gradient_elsewhere,
    drift_within_tolerance,
    interpolation_spoof,
    label_flip,
    backdoor,
    scaled_contribution,
    sign_flip,
    little_is_enough,
    poisoned_data,
    trained_before,
    flipped_preference,
    other_weights,
    evaluation_leakage,
    reused_run,
    sybil_workers,
    late_join_grinding,
    self_dealing_work,
    random_matrix_useful_work,
    lazy_verifier_that_copies,
    lazy_verifier_that_always_agrees,
    griefing_disputes,
    flooding_disputes,
    unbond_before_slash,
    requester_who_refuses_to_pay,
    undelivered_result,
    cloned_data_owners,
)


@dataclass(frozen=True)
class Row:
    """What came of an attack.

    Attributes:
        name: Of the attack: its module's, with hyphens.
        outcome: `caught`; `not caught`; `open` or `out of scope`, when nothing was tried; `broken` when the attack is
            none or its defence refuses an honest party as well.
        layer: The defence.
        seconds: What the defence took to judge the attack.
        found: What the defence found, or why nothing was tried.
        summary: What the attacker does.
    """

    name: str
    outcome: str
    layer: str
    seconds: float | None
    found: str
    summary: str


def scoreboard(folder: Path, names: Sequence[str] = ()) -> Iterator[Row]:
    """Mounts attacks below an empty folder and yields what came of each, then those that are not mounted.

    Args:
        folder: Where runs are recorded.
        names: Of some attacks; none for all.

    Raises:
        InvalidInput: No attack has such a name.
    """
    known = {name_of(attack): attack for attack in ATTACKS}
    unknown = sorted({*names} - {*known})
    if unknown:
        there, asked = ", ".join(sorted(known)), ", ".join(unknown)
        near = [each for name in unknown for each in get_close_matches(name, known, 1)]
        hint = f"; did you mean {', '.join(near)}?" if near else f"; there are {there}"
        raise InvalidInput(f"there is no attack {asked}{hint}", expected=there, actual=asked)
    for name, attack in known.items():
        if not names or name in names:
            yield row(attack, folder / name)
    if not names:
        for name, outcome, reason in UNMOUNTED:
            yield Row(name, outcome, "", None, reason, "")


def row(attack: Attack, folder: Path) -> Row:
    """Mounts one attack, and the honest deed beside it, and judges both."""
    (folder / "attack").mkdir(parents=True)
    (folder / "honest").mkdir()
    case = attack.mount(folder / "attack", honest=False)
    noticed = attack.undefended(case)
    begun = time.perf_counter()
    found = attack.defended(case)
    seconds = time.perf_counter() - begun
    accused = attack.defended(attack.mount(folder / "honest", honest=True))
    summary = (attack.__doc__ or "").partition("\n")[0]
    broken = None
    if noticed is not None:
        broken = f"it is seen without the defence: {noticed}"
    elif accused is not None:
        broken = f"the defence refuses an honest party: {accused}"
    outcome = "broken" if broken else "not caught" if found is None else "caught"
    return Row(name_of(attack), outcome, attack.LAYER, seconds, broken or found or "", summary)


def name_of(attack: Attack) -> str:
    """An attack's name: its module's last part, with hyphens."""
    return attack.__name__.rpartition(".")[2].replace("_", "-")
