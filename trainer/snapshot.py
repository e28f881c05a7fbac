"""A copy of the state in the host's memory, from which a thread writes while training goes on."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Snapshot:
    """Buffers that are filled again and again: fresh memory costs more than the copy into it."""

    _buffers: dict[tuple[str, ...], Tensor] = field(default_factory=dict)
    _devices: set[torch.device] = field(default_factory=set)

    def of(self, packed: dict[str, Any]) -> dict[str, Any]:
        """The same nested data, its tensors copied; whole when this returns.

        It is overwritten by the next call.
        """
        copied = self._copied(packed, ())
        assert isinstance(copied, dict)
        for device in self._devices:
            torch.cuda.synchronize(device)  # the copies were only begun
        return copied

    def _copied(self, value: Any, place: tuple[str, ...]) -> Any:
        if isinstance(value, Tensor):
            return self._buffer(value, place).copy_(value.detach(), non_blocking=True)
        if isinstance(value, dict):
            return {key: self._copied(inner, (*place, str(key))) for key, inner in value.items()}
        return value

    def _buffer(self, like: Tensor, place: tuple[str, ...]) -> Tensor:
        kept = self._buffers.get(place)
        if kept is None or kept.shape != like.shape or kept.dtype != like.dtype:
            kept = torch.empty_like(like, device="cpu", pin_memory=like.is_cuda)
            self._buffers[place] = kept
        if like.is_cuda:
            self._devices.add(like.device)
        return kept
