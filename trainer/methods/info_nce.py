"""InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) with many negatives, in little memory.

Legend: n anchors, N negatives, D channels.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Similarities that exist at a time: 64 MiB of float32, and as much for each step of their formula.
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

    The negatives are taken in chunks, whose similarities are computed once more in the backward
    pass, so the memory does not grow with their number. Float32 whatever the precision of the step.

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
        anchors, positives = anchors.float(), positives.float()
        similarity = (anchors * positives).sum(1)
        # As log(1 + sum of e^((a n - a p) / t)): vectors of length one need no other shift, and a
        # sum over chunks is a sum. Nothing is infinite, so that where() has a finite gradient.
        total = torch.zeros_like(similarity)
        size = max(most // max(len(anchors), 1), 1)
        for start in range(0, len(negatives), size):
            part = slice(start, start + size)
            chunk = partial(_ratios, is_negative=is_negative, part=part, temperature=temperature)
            total = total + checkpoint(
                chunk,
                anchors,
                similarity,
                negatives[part],
                use_reentrant=False,
                preserve_rng_state=False,
            )
        return total.log1p()


def _ratios(
    anchors: Tensor,
    similarity: Tensor,
    negatives: Tensor,
    *,
    is_negative: Callable[[slice], Tensor],
    part: slice,
    temperature: float,
) -> Tensor:
    """Sum of e^((a n - a p) / t) over one chunk of negatives, (n,)."""
    logits = (anchors @ negatives.float().T - similarity[:, None]) / temperature
    return torch.where(is_negative(part), logits.exp(), 0.0).sum(1)
