"""Batch normalisation over the global batch, with sums in rank order."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.distributed import Ranks, ordered_sum


class RankOrderedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose statistics span all ranks, summed in rank order.

    torch's SyncBatchNorm needs CUDA, and its backward all-reduces floats in no fixed order.
    Parameters, buffers and their names are those of BatchNorm2d. `ranks` is set by `set_ranks`.
    """

    ranks: Ranks | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) over B, H, W of all ranks; in evaluation by running statistics.

        The forward of a recomputed block comes twice: only the first one gathers statistics and
        moves the running ones.
        """
        if not self.training:
            return super().forward(x)
        replayed = _replayed.get()
        if self.ranks is None or self.ranks.world_size == 1:
            return super().forward(x) if replayed is None else self._forward_again(x)
        statistics = _global_statistics(x, self.ranks) if replayed is None else next(replayed)
        if replayed is None:
            self._move_running(*statistics)
        if (recorded := _recorded.get()) is not None:
            recorded.append(statistics)
        y: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, _Over(self.ranks, self.eps, statistics)
        )
        return y

    def _forward_again(self, x: Tensor) -> Tensor:
        """The same output once more; copies of the running statistics are moved."""
        buffers = dict(self.named_buffers(recurse=False))
        mean, variance = (buffers[name].clone() for name in ("running_mean", "running_var"))
        return functional.batch_norm(
            x, mean, variance, self.weight, self.bias, training=True, eps=self.eps
        )

    @torch.no_grad()
    def _move_running(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        unbiased = variance * (count / (count - 1))
        buffers = dict(self.named_buffers(recurse=False))
        buffers["running_mean"].lerp_(mean, self.momentum or 0.0)
        buffers["running_var"].lerp_(unbiased, self.momentum or 0.0)
        buffers["num_batches_tracked"].add_(1)


def set_ranks(model: nn.Module, ranks: Ranks) -> None:
    """Tell every batch-norm layer of `model` which ranks it spans."""
    for module in model.modules():
        if isinstance(module, RankOrderedBatchNorm):
            module.ranks = ranks


Statistics = tuple[Tensor, Tensor, Tensor]  # mean and variance, each (C,), and pixels, (1,)
_recorded: ContextVar[list[Statistics] | None] = ContextVar("recorded", default=None)
_replayed: ContextVar[Iterator[Statistics] | None] = ContextVar("replayed", default=None)


@contextmanager
def recording(statistics: list[Statistics]) -> Iterator[None]:
    """Within the block every layer that gathers statistics over ranks appends them to a list."""
    token = _recorded.set(statistics)
    try:
        yield
    finally:
        _recorded.reset(token)


@contextmanager
def replaying(statistics: list[Statistics]) -> Iterator[None]:
    """Within the block layers take their statistics from the list and move no running ones."""
    token = _replayed.set(iter(statistics))
    try:
        yield
    finally:
        _replayed.reset(token)


@torch.no_grad()
def _global_statistics(x: Tensor, ranks: Ranks) -> Statistics:
    """Mean, variance and number of the pixels of all ranks; one gather."""
    channels = x.shape[1]
    values = _widened(x)  # half precision cannot count the pixels
    # Made on the device, so that nothing is copied from the host.
    count = values.new_full((1,), x.numel() // channels)
    mean = values.mean((0, 2, 3))
    squares = (values - mean[:, None, None]).square().sum((0, 2, 3))
    rows = ranks.gather(torch.cat([mean, squares, count]))
    means, sums, counts = zip(
        *(r.tensor_split([channels, 2 * channels]) for r in rows), strict=True
    )
    total = ordered_sum(counts)
    # Chan's pairwise form: no cancellation, unlike E[x^2] - E[x]^2.
    mean = ordered_sum([m * n for m, n in zip(means, counts, strict=True)]) / total
    parts = [s + n * (m - mean).square() for m, s, n in zip(means, sums, counts, strict=True)]
    return mean, ordered_sum(parts) / total, total


@dataclass(frozen=True)
class _Over:
    """What a batch is normalised over."""

    ranks: Ranks
    eps: float
    statistics: Statistics


class _Normalise(torch.autograd.Function):
    """Normalisation by given statistics, and its gradient, which gathers once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, over: "_Over") -> Tensor:
        mean, variance, total = over.statistics
        scale = (variance + over.eps).rsqrt()
        normal = (_widened(x) - mean[:, None, None]) * scale[:, None, None]
        ctx.save_for_backward(normal.to(x.dtype), weight, scale, total)
        ctx.ranks = over.ranks
        y = normal * weight[:, None, None] + bias[:, None, None]
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        normal, weight, scale, total = ctx.saved_tensors
        dtype = grad.dtype
        grad, normal = _widened(grad), _widened(normal)
        sum_grad = grad.sum((0, 2, 3))
        sum_grad_normal = (grad * normal).sum((0, 2, 3))
        both = ordered_sum(ctx.ranks.gather(torch.cat([sum_grad, sum_grad_normal]))) / total
        shift, slope = both.split(grad.shape[1])
        grad_x = grad - shift[:, None, None] - normal * slope[:, None, None]
        grad_x = (grad_x * (weight * scale)[:, None, None]).to(dtype)
        # Weight and bias gradients stay local: the gradient sum over ranks adds them.
        return grad_x, sum_grad_normal, sum_grad, None


def _widened(x: Tensor) -> Tensor:
    """As float32 where it is half precision; its statistics are, as in torch's own layer."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
