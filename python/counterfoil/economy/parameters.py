"""What a deployment of the market sets, and what it assumes of the people in it."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

from counterfoil.errors import InvalidInput

COIN = 10**18
"""Wei of one coin, the unit in which amounts are printed."""

_FIRST = {"units": 1, "steps": 1, "sampled_steps": 1, "false_steps": 1, "tries": 1, "seats": 1}
_FIRST |= {"panel": 1, "appeal_panel": 1, "self_units": 1, "busy_units": 1, "slots": 1, "fee_per_unit": 1}
_FIRST |= {"gain_per_step": 1, "verifier_cost": 1, "verifier_fee": 1, "bond": 1, "issuance": 1}

_MOST_DISPUTES = 128
"""The price of a later one would not fit a contract's number."""


@dataclass(frozen=True)
class Parameters:
    """A deployment. Amounts are whole wei, odds and shares lie above 0 and up to 1.

    Attributes:
        reward: Of a job, paid when it is final and refunded when it is refuted.
        units: Of work in a job.
        stake: Of a worker, locked for a job; slashed for faults that a contract decides, and for nothing else.
        steps: Of a job.
        sampled_steps: How many distinct steps an audit executes again.
        false_steps: How many a cheat that hides fakes.
        tries: How often a cheat may sign anew until the sample is kind.
        missed_odds: With which odds a sample may miss a share of `false_steps / steps`.
        gain_per_step: What a worker saves by faking one step.
        audit_probability: That steps of a job are executed again (an assumption).
        detection: That the verdict on a false step which was executed again is right (an assumption).
        inspection_probability: That somebody looks for a fault that a contract decides (an assumption).
        verifier_cost: Of executing what a panel judges.
        verifier_fee: Of a game, forfeited by a vote that turns out wrong.
        canary_share: Of a verifier's games, those that are planted and known to be false.
        seats: On the roll of verifiers, of equal weight.
        adversarial_seats: How many of them one attacker holds (an assumption).
        panel: Distinct seats of the first panel.
        appeal_panel: Distinct seats of the panel whose verdict is final.
        tolerated_odds: With which odds a final verdict may be the attacker's.
        bounty: Of a challenger who is right, out of the withheld reward.
        challenge_cost: Of executing what is challenged.
        bond: Of the first dispute of a job; each further one costs twice as much.
        disputes: How many fit before the cap on a job's delay.
        fee_per_unit: Burned for a unit that becomes final.
        issuance: Of an epoch.
        honest_units: That others finalise in an epoch.
        self_units: That an attacker finalises for itself in it.
        quiet_units: That others finalise in a quiet epoch.
        busy_units: That others finalise in the epoch behind a quiet one.
        slots: Of an epoch, among which its issuance is divided.
        proposer_share: Of the blocks, those that one attacker makes (an assumption).
        drawn_share: Of the weights, the attacker's.
        withheld_blocks: How many blocks in a row the attacker can withhold for one draw.
        block_reward: Lost with a withheld block.
    """

    reward: int = COIN
    units: int = 10
    stake: int = 3 * COIN // 2
    steps: int = 1000
    sampled_steps: int = 50
    false_steps: int = 10
    tries: int = 5
    missed_odds: float = 2.0**-20
    gain_per_step: int = COIN // 10_000
    audit_probability: float = 0.2
    detection: float = 0.95
    inspection_probability: float = 0.05
    verifier_cost: int = COIN // 1000
    verifier_fee: int = COIN // 100
    canary_share: float = 0.15
    seats: int = 300
    adversarial_seats: int = 100
    panel: int = 11
    appeal_panel: int = 33
    tolerated_odds: float = 0.02
    bounty: int = COIN // 5
    challenge_cost: int = COIN // 50
    bond: int = COIN // 20
    disputes: int = 6
    fee_per_unit: int = COIN // 100
    issuance: int = 9 * COIN
    honest_units: int = 900
    self_units: int = 100
    quiet_units: int = 50
    busy_units: int = 900
    slots: int = 100
    proposer_share: float = 0.2
    drawn_share: float = 0.1
    withheld_blocks: int = 3
    block_reward: int = COIN // 50

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "float":
                kind, fits = "a number above 0 and up to 1", isinstance(value, int | float) and 0 < value <= 1
            else:
                first = _FIRST.get(field.name, 0)
                kind, fits = f"a whole number from {first}", isinstance(value, int) and value >= first
            if not fits or isinstance(value, bool):
                raise _refused(field.name, kind, value)
        self._check_at_most("sampled_steps", "steps")
        self._check_at_most("false_steps", "steps")
        self._check_at_most("adversarial_seats", "seats")
        if self.disputes > _MOST_DISPUTES:
            raise _refused("disputes", f"at most {_MOST_DISPUTES}", self.disputes)
        self._check_at_most("panel", "appeal_panel")
        self._check_at_most("appeal_panel", "seats")

    def _check_at_most(self, name: str, other: str) -> None:
        limit = getattr(self, other)
        if getattr(self, name) > limit:
            raise _refused(name, f"at most {other}, {limit}", getattr(self, name))

    @classmethod
    def from_json(cls, text: str) -> Parameters:
        """A deployment from a JSON object by name; what it does not name has its default.

        Raises:
            InvalidInput: It is no such object, names something else, or a value is out of its range.
        """
        try:
            document = json.loads(text)
        except ValueError as refused:
            raise InvalidInput(f"the parameters are no JSON: {refused}", where="parameters") from None
        if not isinstance(document, dict):
            raise _refused("parameters", "a JSON object", document)
        unknown = sorted({*document} - {field.name for field in fields(cls)})
        if unknown:
            known = ", ".join(field.name for field in fields(cls))
            raise _refused(", ".join(unknown), f"some of {known}", "a name that no parameter has")
        return cls(**document)


def _refused(name: str, expected: str, actual: object) -> InvalidInput:
    message = f"{name} must be {expected}, found {actual}"
    return InvalidInput(message, expected=expected, actual=str(actual), where=name)
