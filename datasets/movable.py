"""Batches move between memories as one."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Self, TypeVar

import torch
from torch import Tensor


class Movable:
    """A dataclass of tensors, tuples of them, such dataclasses, and plain data."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same on another device."""
        return _moved(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))


Part = TypeVar("Part", bound=Movable)


def _moved(part: Part, change: Callable[[Tensor], Tensor]) -> Part:
    """`change` on every tensor inside."""
    inner = {
        entry.name: _changed(getattr(part, entry.name), change)
        for entry in fields(part)  # type: ignore[arg-type]  # only dataclasses inherit
    }
    return type(part)(**inner)


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Movable):
        return _moved(value, change)
    if isinstance(value, tuple):
        return tuple(_changed(entry, change) for entry in value)
    return value
