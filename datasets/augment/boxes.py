"""Boxes in views, on the host and on a device: maps of CutMix boxes, holes of cutout.

Noise is a hash of a key per view and of the pixel's place, in whole numbers, so that both make the
same bytes and nothing but the key is drawn and sent.
Legend: B images, S x S pixels, R boxes of one map.
"""

from functools import reduce

import torch
from torch import Tensor

from datasets.augment.host import Box


def edges_of(maps: list[list[tuple[Box, ...]]]) -> Tensor:
    """Left, top, right, bottom of the boxes of each map and image, int64 (maps, B, R, 4)."""
    edges = [[[box.edges for box in boxes] for boxes in of_map] for of_map in maps]
    return torch.tensor(edges, dtype=torch.int64)


def box_maps(edges: Tensor, crop: int) -> Tensor:
    """True inside one box, bool (B, S, S); boxes cancel where two of them overlap.

    Args:
        edges: left, top, right, bottom, int64 (B, R, 4).
        crop: side of a view, pixels.
    """
    pixel = torch.arange(crop, device=edges.device)
    maps = []
    for boxes in edges.unbind(dim=1):
        left, top, right, bottom = (edge[:, None] for edge in boxes.unbind(dim=1))
        columns = (pixel >= left) & (pixel < right)
        rows = (pixel >= top) & (pixel < bottom)
        maps.append(rows[:, :, None] & columns[:, None, :])
    return reduce(torch.ne, maps)


# Multipliers of splitmix64 (Steele et al. 2014), as signed numbers.
_STEP = -7046029254386353131
_MIX_1 = -4658895280553007687
_MIX_2 = -7723592293110705685


def fill_holes(images: Tensor, holes: Tensor, keys: Tensor) -> Tensor:
    """The images with noise in their holes (ST++, Yang et al. 2022).

    Args:
        images: uint8 (B, 3, S, S).
        holes: bool (B, S, S).
        keys: of the noise, int64 (B,).
    """
    noise = _shifted(_hashed(keys, images.shape), 56).to(torch.uint8)  # the top byte
    return torch.where(holes[:, None], noise, images)


def uniform_noise(numbers: Tensor, shape: torch.Size) -> Tensor:
    """Numbers in [0, 1) of a shape (B, C, H, W), float32: the upper 24 bits of a hash.

    Args:
        numbers: the keys, one of each image: in [0, 1), float64 (B,), see `ViewPlan.numbers`.
        shape: of the noise.
    """
    keys = (numbers.double() * 2.0**53).long()  # all bits of such a number
    return _shifted(_hashed(keys, shape), 40).to(torch.float32) * 2.0**-24


def _hashed(keys: Tensor, shape: torch.Size) -> Tensor:
    """A word of 64 bits for every place of `shape`, (B, C, H, W), from a key of each image."""
    place = torch.arange(1, shape[1:].numel() + 1, device=keys.device).view(shape[1:])
    word = place * _STEP + keys[:, None, None, None]
    word = (word ^ _shifted(word, 30)) * _MIX_1
    return (word ^ _shifted(word, 27)) * _MIX_2


def _shifted(word: Tensor, places: int) -> Tensor:
    """The word shifted right as an unsigned number would be; torch repeats the sign."""
    return (word >> places) & ((1 << (64 - places)) - 1)
