"""From the host's memory to the device that computes, without waiting for it."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Moved = TypeVar("Moved")


def sent(value: Moved, device: torch.device) -> Moved:
    """A tensor, or a dataclass of tensors, on `device`.

    To CUDA through pinned memory: a copy from pageable memory makes the host wait until the device
    has finished everything before it. torch keeps a pinned block until its copy is done.
    """

    def move(tensor: Tensor) -> Tensor:
        if device.type == "cuda":
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)

    moved: Moved = _each(value, move)
    return moved


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`change` on every tensor inside."""
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        inner = {item.name: _each(getattr(value, item.name), change) for item in fields(value)}
        return replace(value, **inner)
    if isinstance(value, tuple):
        return tuple(_each(entry, change) for entry in value)
    return value
