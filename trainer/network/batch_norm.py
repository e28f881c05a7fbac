"""Batch normalisation over the global batch, with sums in rank order."""

from typing import Any

import torch
from torch import Tensor, nn

from trainer.distributed import Ranks, ordered_sum


class RankOrderedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose statistics span all ranks, summed in rank order.

    torch's SyncBatchNorm needs CUDA, and its backward all-reduces floats in no fixed order.
    Parameters, buffers and their names are those of BatchNorm2d. `ranks` is set by `set_ranks`.
    """

    ranks: Ranks | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) over B, H, W of all ranks; in evaluation by running statistics."""
        if not self.training or self.ranks is None or self.ranks.world_size == 1:
            return super().forward(x)
        y, mean, variance, count = _Normalise.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, self.eps, self.ranks
        )
        with torch.no_grad():
            unbiased = variance * (count / (count - 1))
            buffers = dict(self.named_buffers(recurse=False))
            buffers["running_mean"].lerp_(mean, self.momentum or 0.0)
            buffers["running_var"].lerp_(unbiased, self.momentum or 0.0)
            buffers["num_batches_tracked"].add_(1)
        return y  # type: ignore[no-any-return]


def set_ranks(model: nn.Module, ranks: Ranks) -> None:
    """Tell every batch-norm layer of `model` which ranks it spans."""
    for module in model.modules():
        if isinstance(module, RankOrderedBatchNorm):
            module.ranks = ranks


class _Normalise(torch.autograd.Function):
    """The training forward and its gradient; one gather each way."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, ranks: Ranks
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels = x.shape[1]
        values = x.float() if x.dtype in _HALF else x  # half precision cannot count the pixels
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
        variance = ordered_sum(parts) / total
        scale = (variance + eps).rsqrt()
        normal = (values - mean[:, None, None]) * scale[:, None, None]
        ctx.save_for_backward(normal.to(x.dtype), weight, scale, total)
        ctx.ranks = ranks
        ctx.mark_non_differentiable(mean, variance, total)
        y = normal * weight[:, None, None] + bias[:, None, None]
        return y.to(x.dtype), mean, variance, total

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        normal, weight, scale, total = ctx.saved_tensors
        dtype = grad.dtype
        if dtype in _HALF:
            grad, normal = grad.float(), normal.float()
        sum_grad = grad.sum((0, 2, 3))
        sum_grad_normal = (grad * normal).sum((0, 2, 3))
        both = ordered_sum(ctx.ranks.gather(torch.cat([sum_grad, sum_grad_normal]))) / total
        shift, slope = both.split(grad.shape[1])
        grad_x = grad - shift[:, None, None] - normal * slope[:, None, None]
        grad_x = (grad_x * (weight * scale)[:, None, None]).to(dtype)
        # Weight and bias gradients stay local: the gradient sum over ranks adds them.
        return grad_x, sum_grad_normal, sum_grad, None, None


_HALF = (torch.bfloat16, torch.float16)  # their statistics are float32, as in torch's own layer
