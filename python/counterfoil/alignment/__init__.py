"""From preferences to answers: what people preferred, what was made of it, and what it says since.

Raters sign pairs of answers; the owner collects them, and a training run names the collection. Evaluations of a
checkpoint go before its release, and answers name the release that gave them. `counterfoil.verify` checks the links
inside one run; `check` those from a training run to the preferences it was made with.
"""

from counterfoil.alignment.preferences import (
    Collected,
    Pair,
    check,
    collect,
    collected,
    pin,
    sign_preferences,
)
from counterfoil.alignment.releases import (
    Answer,
    answers,
    overlap,
    record_evaluation,
    record_output,
    record_release,
)

__all__ = [
    "Answer",
    "Collected",
    "Pair",
    "answers",
    "check",
    "collect",
    "collected",
    "overlap",
    "pin",
    "record_evaluation",
    "record_output",
    "record_release",
    "sign_preferences",
]
