"""Batch normalisation over the global batch, with sums in rank order."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.distributed import Ranks, ordered_sum

# Of all ranks: mean and variance, each (C,), and pixels, (1,). On CUDA: mean and
# 1 / sqrt(variance + eps), each (C,), and the pixels of each rank, int32 (world_size,).
Statistics = tuple[Tensor, Tensor, Tensor]


class RankOrderedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose statistics span all ranks, summed in rank order.

    torch's SyncBatchNorm needs CUDA, and its backward all-reduces floats in no fixed order.
    Parameters, buffers and their names are those of BatchNorm2d. `ranks` is set by `set_ranks`.
    """

    ranks: Ranks | None = None
    counters: tuple[Tensor, ...] = ()  # see `set_ranks`
    is_frozen: bool = False  # in evaluation mode always: `model.frozen_norm`

    def train(self, mode: bool = True) -> "RankOrderedBatchNorm":
        """As of every module, but a frozen layer stays in evaluation mode."""
        return super().train(mode and not self.is_frozen)

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
        return self._over_ranks(x, self.ranks)

    def _over_ranks(self, x: Tensor, ranks: Ranks) -> Tensor:
        fused = ranks.device.type != "cpu"
        if (replayed := _replayed.get()) is not None:
            statistics = next(replayed)
        elif fused:
            statistics = self._fused_statistics(x, ranks)
        else:
            statistics = _global_statistics(x, ranks)
            self._move_running(*statistics)
        if (recorded := _recorded.get()) is not None:
            recorded.append(statistics)
        normalise = _FusedNormalise if fused else _Normalise
        y: Tensor = normalise.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, _Over(ranks, self.eps, statistics)
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

    @torch.no_grad()
    def _fused_statistics(self, x: Tensor, ranks: Ranks) -> Statistics:
        """Those that `_FusedNormalise` wants; moves the running ones."""
        if self.counters:
            torch._foreach_add_(self.counters, 1)
        mean, inverse = torch.batch_norm_stats(_channels_last(x), self.eps)
        sent = (mean, inverse, *_counts(x.numel() // x.shape[1], x.device, mean.dtype))
        rows = [values.new_empty(ranks.world_size, *values.shape) for values in sent]
        ranks.gather_into(rows, sent)
        means, inverses, counts, whole_counts = rows
        mean, inverse = torch.batch_norm_gather_stats_with_counts(
            x,
            means,
            inverses,
            self.running_mean,
            self.running_var,
            self.momentum or 0.0,
            self.eps,
            counts.flatten(),
        )
        return mean, inverse, whole_counts.flatten()


def set_ranks(model: nn.Module, ranks: Ranks) -> None:
    """Tell every batch-norm layer of `model`, which is on its device, which ranks it spans.

    On CUDA the first layer counts the batches of all of them, by one kernel instead of one each: a
    training forward passes every layer once.
    """
    layers = [module for module in model.modules() if isinstance(module, RankOrderedBatchNorm)]
    for layer in layers:
        layer.ranks = ranks
    layers = [layer for layer in layers if not layer.is_frozen]
    for first in layers[:1]:
        counters = (layer.num_batches_tracked for layer in layers)
        first.counters = tuple(counter for counter in counters if counter is not None)


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


class _FusedNormalise(torch.autograd.Function):
    """The same by the CUDA kernels of torch's SyncBatchNorm: three each way instead of forty.

    Those kernels add in a fixed order and hold all statistics in float32 (float64 for float64).
    SyncBatchNorm itself all-reduces in the backward pass, and makes the host wait in the forward.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, over: "_Over") -> Tensor:
        x = _channels_last(x)
        mean, inverse, counts = over.statistics
        ctx.save_for_backward(x, weight, mean, inverse, counts)
        ctx.ranks = over.ranks
        return torch.batch_norm_elemt(x, weight, bias, mean, inverse, over.eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, counts = ctx.saved_tensors
        grad = _channels_last(grad)
        # Sums of the gradient, and of the gradient times x - mean.
        sum_grad, sum_product, grad_weight, grad_bias = torch.batch_norm_backward_reduce(
            grad, x, mean, inverse, weight, True, True, True
        )
        rows = sum_grad.new_empty(2, ctx.ranks.world_size, *sum_grad.shape)
        ctx.ranks.gather_into(rows.unbind(), (sum_grad, sum_product))
        sum_grad, sum_product = rows.sum(1)
        grad_x = torch.batch_norm_backward_elemt(
            grad, x, mean, inverse, weight, sum_grad, sum_product, counts
        )
        # Weight and bias gradients stay local: the gradient sum over ranks adds them.
        return grad_x, grad_weight, grad_bias, None


def _channels_last(x: Tensor) -> Tensor:
    """The layout for which those kernels are made; nothing is copied where it is there already."""
    return x.contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=64)
def _counts(count: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A number in the two types in which the kernels want it, each (1,); made once."""
    number, whole = (torch.full((1,), count, device=device, dtype=t) for t in (dtype, torch.int32))
    return number, whole


def _widened(x: Tensor) -> Tensor:
    """As float32 where it is half precision; its statistics are, as in torch's own layer."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
