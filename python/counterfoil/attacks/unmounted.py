"""Attacks that are not mounted here, each with why: they are claimed to be caught by nobody."""

_ECONOMY = "needs stakes, rewards and escrow, whose contracts are not built"

UNMOUNTED: tuple[tuple[str, str, str], ...] = (
    ("sybil-workers", "open", f"{_ECONOMY}: anybody can make as many keys as they like"),
    (
        "cloned-data-owners",
        "open",
        f"{_ECONOMY}: a copy of a dataset has the same root, a changed copy another one",
    ),
    (
        "colluding-validators",
        "open",
        f"{_ECONOMY}: others' replays are counted as attested, and decide nothing",
    ),
    (
        "lazy-verifier-that-copies",
        "open",
        f"{_ECONOMY}: a promise hides an answer until it is given, and pays nobody",
    ),
    ("lazy-verifier-that-always-agrees", "open", f"{_ECONOMY}: no false step is planted to be found"),
    ("griefing-disputes", "open", f"{_ECONOMY}: there are no disputes"),
    ("flooding-disputes", "open", f"{_ECONOMY}: there are no disputes"),
    ("unbond-before-slash", "open", f"{_ECONOMY}: there are no bonds"),
    ("late-join-grinding", "open", f"{_ECONOMY}: no set of validators is drawn"),
    ("self-dealing-work", "open", f"{_ECONOMY}: nobody is paid for work"),
    ("random-matrix-useful-work", "open", f"{_ECONOMY}: work units are the worker's own measure"),
    ("requester-who-refuses-to-pay", "open", f"{_ECONOMY}: there is no escrow"),
    ("undecryptable-delivery", "open", f"{_ECONOMY}: nothing is delivered against payment"),
    (
        "beacon-bias",
        "open",
        "the hash of one block draws a sample, and whoever makes that block can withhold it and try another one",
    ),
    (
        "preference-poisoning",
        "open",
        "receipts say who preferred what; that a rater does not mean it leaves no trace before somebody is hurt by it",
    ),
    (
        "sybil-raters",
        "open",
        "keys cost nothing: verdicts count keys, and a collection may name whom it trusts",
    ),
    (
        "gradient-inversion",
        "out of scope",
        "receipts hide gradients by blinding; whoever is given stored gradients or contributions can invert them",
    ),
)
"""Name, `open` or `out of scope`, and the reason."""
