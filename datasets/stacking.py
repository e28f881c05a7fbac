"""Samples of a batch in one tensor.

Legend: B images, S x S pixels, K channel bits.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.augment import Geometry, weak_mask
from datasets.photo import Photo
from datasets.randomness import Draws, Stream


def stack_images(images: Sequence[Image.Image]) -> Tensor:
    """(B, 3, S, S) uint8."""
    return torch.from_numpy(
        np.stack([[np.asarray(band) for band in image.split()] for image in images])
    )


def stack_masks(pairs: list[tuple[Photo, Photo]], geometries: list[Geometry]) -> Tensor:
    """(B, S, S) uint8."""
    masks = [
        weak_mask(mask, geometry) for (_, mask), geometry in zip(pairs, geometries, strict=True)
    ]
    return torch.from_numpy(np.stack(masks))


def channel_bits(seed: int, kind: int, positions: Sequence[int], num_bits: int) -> Tensor:
    """(B, K) bool."""
    rows = [Draws(seed, Stream.DROPOUT, kind, position).bits(num_bits) for position in positions]
    return torch.from_numpy(np.stack(rows))
