"""InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) with many negatives, in little memory.

Legend: n anchors, N negatives, D channels.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Similarities that exist at a time: 64 MiB of float32.
_MOST = 2**24


def info_nce(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    is_negative: Callable[[slice], Tensor],
    temperature: float,
    most: int = _MOST,
) -> Tensor:
    """-log(e^(a p / t) / (e^(a p / t) + sum over negatives n of e^(a n / t))) of every anchor a.

    The negatives are taken in chunks, so the memory does not grow with their number. Float32
    whatever the precision of the step.

    Args:
        anchors: (n, D), each of length one, as all others; gradients flow here.
        positives: of each anchor, (n, D), constants.
        negatives: (N, D), constants.
        is_negative: of some columns, which of them count for each anchor: bool (n, chunk).
        temperature: t, not below 0.03: N e^(2 / t) must be a float32.
        most: similarities that exist at a time.

    Returns:
        (n,); 0 for an anchor without negatives.
    """
    with torch.autocast("cuda" if anchors.is_cuda else "cpu", enabled=False):
        losses: Tensor = _InfoNce.apply(  # type: ignore[no-untyped-call]
            anchors.float() / temperature, positives.float(), negatives, is_negative, most
        )
        return losses


class _InfoNce(torch.autograd.Function):
    """The losses, and in the same pass over the negatives their gradients.

    Each similarity is made once: with a divided by t, and T the sum of e^(a n - a p) over the
    negatives, a loss is log(1 + T), and its gradient the sum of e^(a n - a p) (n - p) / (1 + T).
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        positives: Tensor,
        negatives: Tensor,
        is_negative: Callable[[slice], Tensor],
        most: int,
    ) -> Tensor:
        """See `info_nce`."""
        # Vectors of length one need no other shift than a p, and so a sum over chunks is a sum.
        similarity = (anchors * positives).sum(1, keepdim=True)
        total, weighted = torch.zeros_like(similarity), torch.zeros_like(anchors)
        size = max(most // max(len(anchors), 1), 1)
        for start in range(0, len(negatives), size):
            part = slice(start, start + size)
            chunk = negatives[part].float()
            ratios = (anchors @ chunk.T).sub_(similarity).exp_()
            ratios.masked_fill_(~is_negative(part), 0.0)
            total += ratios.sum(1, keepdim=True)
            weighted += ratios @ chunk
        ctx.save_for_backward((weighted - total * positives) / (1.0 + total))
        return total.squeeze(1).log1p()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the anchors."""
        (gradient,) = ctx.saved_tensors
        return slopes[0][:, None] * gradient, None, None, None, None
