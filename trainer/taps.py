"""Which source pixels make each pixel of a crop: Pillow's BILINEAR filter as whole-number weights.

Legend: V crops, S pixels of a crop's side, K taps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

WEIGHT_BITS = 22  # Pillow's precision for 8-bit images


@dataclass(frozen=True)
class Taps:
    """One axis of V crops.

    Attributes:
        first: first source pixel of each output pixel, int64 (V, S); 0 on padding.
        weights: of the source pixels from there on, in units of 2^-22, int32 (V, K, S); all zero
            exactly on padding.
    """

    first: Tensor
    weights: Tensor


def taps(axes: Tensor, *, crop: int, depth: int) -> Taps:
    """The weights of a filter that widens when it shrinks, in double precision as Pillow's are.

    Args:
        axes: fields of `datasets.windows.Axis` of each crop, int64 (6, V).
        crop: output pixels.
        depth: taps; enough for all crops.
    """
    source, resized, start, _, skipped, _ = axes[..., None].unbind()  # (V, 1) each
    place, shown = _places(axes, crop)
    scale = source.double() / resized.double()
    support = scale.clamp(min=1.0)
    centre = (place + start + 0.5) * scale  # (V, S)
    first = (centre - support + 0.5).long().clamp_(min=0)
    beyond = torch.minimum((centre + support + 0.5).long(), source)
    steps = torch.arange(depth, device=axes.device)[:, None]  # (K, 1)
    distance = (steps + first[:, None]) - centre[:, None] + 0.5
    distance = (distance * (1.0 / support)[:, None]).abs_()
    inside = (steps < (beyond - first)[:, None]) & shown[:, None]
    height = torch.where(inside, (1.0 - distance).clamp_(min=0.0), 0.0)  # (V, K, S)
    total = height[:, 0].clone()
    for step in range(1, depth):  # in Pillow's order, so that the sum has its bits
        total += height[:, step]
    share = height / torch.where(shown, total, 1.0)[:, None]
    weights = (share * (1 << WEIGHT_BITS) + 0.5).int()
    return Taps(torch.where(shown, (first - skipped).clamp_(min=0), 0), weights)


def is_padding(axes: Tensor, crop: int) -> Tensor:
    """Where crops show nothing along an axis, bool (V, S)."""
    return ~_places(axes, crop)[1]


def _places(axes: Tensor, crop: int) -> tuple[Tensor, Tensor]:
    """Which pixel of the crop each one is before mirroring, and whether it shows any, (V, S)."""
    _, _, _, shown, _, is_mirrored = axes[..., None].unbind()
    place = torch.arange(crop, device=axes.device).expand(axes.shape[1], -1)
    place = torch.where(is_mirrored > 0, crop - 1 - place, place)
    return place, place < shown
