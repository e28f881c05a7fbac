"""Less memory for a training forward, with the same bits.

A forward keeps activations for the backward pass. A block that is recomputed (Chen et al. 2016,
arXiv 1604.06174) keeps its inputs only and runs once more when the backward pass reaches it. The
network draws no random numbers and batch norm takes its statistics from the first run, so both runs
give the same activations.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from trainer.config.schema import Memory
from trainer.network.batch_norm import recording, replaying

Output = TypeVar("Output")
HOST = torch.device("cpu")


class BlockRunner:
    """Runs the blocks of a network and decides what they keep for the backward pass.

    Args:
        memory: the rung, see `Memory`.
        host: where `Memory.offload` puts the inputs of blocks; another one only to count bytes.
    """

    def __init__(self, memory: Memory = Memory.full, host: torch.device = HOST) -> None:
        self._memory = memory
        self._host = host

    def __call__(self, block: Callable[..., Output], *inputs: Tensor) -> Output:
        """`block(*inputs)`."""
        if self._memory is Memory.full or not torch.is_grad_enabled():
            return block(*inputs)
        if self._memory is Memory.recompute:
            return _recomputed(block, *inputs)
        with saved_tensors_hooks(self._to_host, _to_device):
            return _recomputed(block, *inputs)

    def _to_host(self, tensor: Tensor) -> tuple[torch.device, Tensor]:
        # Not torch's save_on_cpu, which forgets channels_last: a convolution would then take
        # another kernel. From pinned memory, and into it, copies do not make the host wait.
        pinned = tensor.is_cuda
        copy = torch.empty_like(tensor, device=self._host, pin_memory=pinned)
        return tensor.device, copy.copy_(tensor, non_blocking=pinned)


def _to_device(packed: tuple[torch.device, Tensor]) -> Tensor:
    device, tensor = packed
    return tensor.to(device, non_blocking=device.type == "cuda")


def _recomputed(block: Callable[..., Output], *inputs: Tensor) -> Output:
    statistics: list[Any] = []
    result: Output = checkpoint(
        block,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (recording(statistics), replaying(statistics)),
    )
    return result
