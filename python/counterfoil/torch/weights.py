"""The weights that a model holds now, under the names that a recorder gives them."""

from __future__ import annotations

import torch

from counterfoil import Commitment, commit_tensors
from counterfoil.torch.collect import Collector


def commit_parameters(model: torch.nn.Module) -> Commitment:
    """Commits to a model's parameters as checkpoints and step receipts do.

    Args:
        model: On any device; its wrappers leave no trace in the names.

    Returns:
        The commitment, for `counterfoil.alignment.record_output`.

    Raises:
        UnsupportedDtype: A parameter has no canonical encoding; `.where` names it.

    Example:
        >>> commit_parameters(torch.nn.Linear(3, 1)).count
        2

    Source:
        docs/format.md, section 14.
    """
    return commit_tensors(Collector(model, ()).parameters())
