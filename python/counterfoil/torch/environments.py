"""Environments that a verifier chooses for the process in which a recipe is executed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from counterfoil.errors import InvalidInput
from counterfoil.torch.child import CHOSEN

_FLAGS: tuple[str | int | bool, ...] = (True, False)
_VARIABLE = re.compile("(?!PYTHON|OMP_NUM_THREADS$|MKL_NUM_THREADS$)[A-Z][A-Z0-9_]*")
_ALLOWED: dict[str, tuple[str | int | bool, ...]] = {
    "deterministic": _FLAGS,
    "mkldnn": _FLAGS,
    "matmul_precision": ("highest", "high", "medium"),
    "default_dtype": tuple(f"torch.{name}" for name in ("float32", "float64", "float16", "bfloat16")),
}
"""What a process can be told, besides its number of threads."""


def checked(wanted: Mapping[str, str | int | bool]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the process is told, and its environment variables.

    Raises:
        InvalidInput: A name is no setting, or has no such value.
    """
    settings = {name: value for name, value in wanted.items() if name in CHOSEN}
    for name, value in settings.items():
        if name == "threads":
            if type(value) is not int or value < 1:
                raise InvalidInput(f"{name} is a positive int", actual=repr(value), where=name)
        elif not any(type(value) is type(one) and value == one for one in _ALLOWED[name]):
            raise InvalidInput(
                f"{name} has no such value",
                expected=" or ".join(map(str, _ALLOWED[name])),
                actual=repr(value),
                where=name,
            )
    variables = {name: str(value) for name, value in wanted.items() if name not in CHOSEN}
    for name, value in variables.items():
        # What the process would never look at must not pass for an environment that was tried.
        if _VARIABLE.fullmatch(name) is None or "\0" in value:
            raise InvalidInput(
                f"{name!r} is no setting, and no environment variable that the process reads",
                expected=f"{', '.join(CHOSEN)}, or a variable in capitals",
                actual=repr(value),
                where=name,
            )
    return settings, variables
