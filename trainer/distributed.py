"""The ranks of one run, and sums over them whose order of additions is ours.

Floating-point addition is not associative, and NCCL and gloo may add in another order after a
restart. So no float goes through an all-reduce: the tensors of all ranks are gathered and added in
rank order, which gives the same bytes on every rank and in every run.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.config.schema import RunConfig
from trainer.hardware.gpu import check_device


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one run together.

    Attributes:
        rank: from 0; rank 0 writes files.
        device: where this rank computes.
        world_size: number of ranks.
        control: group for decisions, over gloo, so that a decision does not wait for the GPU; None
            on a CPU, where the default group is gloo already.
    """

    rank: int
    world_size: int
    device: torch.device
    control: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this rank writes."""
        return self.rank == 0

    def gather(self, values: Tensor) -> Tensor:
        """The tensors of all ranks, (world_size, ...), in rank order; shapes must agree."""
        if self.world_size == 1:
            return values[None]
        rows = values.new_empty(self.world_size * values.numel())
        dist.all_gather_single(rows, values.flatten())
        return rows.view(self.world_size, *values.shape)

    def gather_into(self, rows: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
        """Fill each of `rows`, (world_size, ...), with one of `tensors` of every rank.

        One message of all of them. Nothing is packed into a buffer before, so on CUDA this launches
        no kernel but NCCL's. All tensors are contiguous; `rows` may be slices of one tensor.
        """
        group = cast(dist.ProcessGroup, dist.group.WORLD)
        group.all_gather_single_coalesced(
            [row.view(-1) for row in rows], [values.view(-1) for values in tensors]
        ).wait()

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks, added in rank order."""
        return ordered_sum(self.gather(values))

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace the values of tensors by those of rank 0."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def broadcast_int(self, number: int) -> int:
        """Rank 0's number, on every rank; also a barrier, since it gathers from all ranks."""
        if self.world_size == 1:
            return number
        numbers = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(numbers, torch.tensor([number]), group=self.control)
        return int(numbers[0].item())

    def broadcast_bool(self, flag: bool) -> bool:
        """Rank 0's answer, on every rank, so that all of them take the same branch."""
        return bool(self.broadcast_int(int(flag)))

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its sum over ranks, added in rank order.

        Stock DDP rebuilds its buckets after the first step of every process, so with three ranks or
        more a resumed run adds in another order. Here each rank sums one slice of the flattened
        gradients: the bytes on the wire are those of a ring all-reduce, the order never changes.
        """
        if self.world_size == 1:
            return
        # Which parameters have a gradient follows from the method alone, so the ranks agree.
        gradients = [p.grad for p in parameters if p.grad is not None]
        # Channels last is how kernels lie in memory, so flattening them copies nothing.
        gradients = [x.movedim(1, -1) if x.dim() == 4 else x for x in gradients]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        share = -(-flat.numel() // self.world_size)  # rounded up; zeros fill the last slice
        sent = flat.new_zeros(share * self.world_size)
        sent[: flat.numel()] = flat
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent)
        mine = ordered_sum(received.view(self.world_size, share).unbind())
        summed = self.gather(mine).flatten()[: flat.numel()]
        parts = torch.split(summed, [gradient.numel() for gradient in gradients])
        views = [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
        torch._foreach_copy_(gradients, views)


def ordered_sum(rows: Iterable[Tensor]) -> Tensor:
    """Left to right sum of tensors of one shape."""
    iterator = iter(rows)
    total = next(iterator).clone()
    for row in iterator:
        total += row
    return total


def init_process_group(run: RunConfig) -> Ranks:
    """The ranks of this run: of an existing group (Ray Train), of torchrun, or this one alone.

    Raises:
        DeviceError: a GPU is here or was asked for, and torch cannot use it.
    """
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if _device(run.device).type == "cuda" else "gloo")
    device = _device(run.device)
    if not dist.is_initialized():
        return Ranks(0, 1, device)
    control = dist.new_group(backend="gloo") if device.type == "cuda" else None
    return Ranks(dist.get_rank(), dist.get_world_size(), device, control)


def _device(name: str) -> torch.device:
    """The device this rank computes on."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if check_device(name, index=local_rank) == "cpu":
        return torch.device("cpu")
    # Ray and Slurm may show each rank only its own card, as number 0.
    return torch.device("cuda", local_rank % torch.cuda.device_count())
