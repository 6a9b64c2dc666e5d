"""The tensors that a record shows, as torch's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from counterfoil.torch import wire

if TYPE_CHECKING:
    from counterfoil import Opened, Record
    from counterfoil.torch.collect import State


def tensors(record: Record, opened: Opened) -> State:
    """A field's tensors by name, kept by value or stored as objects."""
    values = opened.values or {}
    contents = {each.name: values.get(each.name) or record.object(each) for each in opened.entries}
    return {
        each.name: wire.from_bytes(each.dtype, each.shape, contents[each.name] or b"")
        for each in opened.entries
    }
