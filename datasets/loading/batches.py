"""The batches of a step: finished views, or the inputs from which a device makes them.

Legend: B images, S x S pixels, K channel bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.augment.device_inputs import AugmentSchedule, CropInputs
from datasets.augment.host import Geometry, weak_mask
from datasets.images.pixels import ImageLike
from datasets.randomness import KeyedRandom, Stream


@dataclass(frozen=True)
class LabelledBatch:
    """Images with masks.

    Attributes:
        images: weak views, uint8 (B, 3, S, S).
        masks: classes, int64 (B, S, S); 255 is ignored or padding.
        keep: fair channel-dropout bits, bool (B, K).
        ids: of the images.
    """

    images: Tensor
    masks: Tensor
    keep: Tensor
    ids: tuple[str, ...]


@dataclass(frozen=True)
class UnlabelledBatch:
    """Images without masks, and their CutMix partners.

    Attributes:
        weak: uint8 (B, 3, S, S).
        strong: two strong views of `weak`, before pasting, uint8 (B, 3, S, S) each.
        padded: True where `weak` shows padding, bool (B, S, S).
        boxes: per strong view, True where the partner is pasted, bool (B, S, S) each.
        keep: fair channel-dropout bits, bool (B, K).
        mix_weak: weak views of the partners, uint8 (B, 3, S, S).
        mix_strong: strong views of the partners. Where a box is empty nothing is pasted, and the
            entry is the partner's weak view, which spares its augmentation.
        mix_padded: True where `mix_weak` shows padding, bool (B, S, S).
        ids: of the images.
        mix_ids: of the partners.
    """

    weak: Tensor
    strong: tuple[Tensor, Tensor]
    padded: Tensor
    boxes: tuple[Tensor, Tensor]
    keep: Tensor
    mix_weak: Tensor
    mix_strong: tuple[Tensor, Tensor]
    mix_padded: Tensor
    ids: tuple[str, ...]
    mix_ids: tuple[str, ...]


@dataclass(frozen=True)
class LabelledWindows:
    """The inputs from which a device makes a `LabelledBatch`.

    Attributes:
        windows: of the images.
        masks: classes, uint8 (B, S, S), cropped already; 255 is ignored or padding.
        keep: fair channel-dropout bits, bool (B, K).
        ids: of the images.
    """

    windows: CropInputs
    masks: Tensor
    keep: Tensor
    ids: tuple[str, ...]


@dataclass(frozen=True)
class UnlabelledWindows:
    """The inputs from which a device makes an `UnlabelledBatch`.

    Attributes:
        windows: of the B images, then of their B partners.
        stages: of 4 B views: both strong views of the images, both of the partners.
        boxes: left, top, right, bottom of both boxes, int64 (2, B, 4).
        keep: fair channel-dropout bits, bool (B, K).
        ids: of the images.
        mix_ids: of the partners.
    """

    windows: CropInputs
    stages: AugmentSchedule
    boxes: Tensor
    keep: Tensor
    ids: tuple[str, ...]
    mix_ids: tuple[str, ...]


def stack_images(images: Sequence[Image.Image]) -> Tensor:
    """RGB images of one size as a tensor, uint8 (B, 3, S, S)."""
    return torch.from_numpy(
        np.stack([[np.asarray(band) for band in image.split()] for image in images])
    )


def stack_masks(pairs: list[tuple[ImageLike, ImageLike]], geometries: list[Geometry]) -> Tensor:
    """The masks of (image, mask) pairs, cropped: uint8 (B, S, S)."""
    masks = [
        weak_mask(mask, geometry) for (_, mask), geometry in zip(pairs, geometries, strict=True)
    ]
    return torch.from_numpy(np.stack(masks))


def channel_bits(seed: int, kind: int, positions: Sequence[int], num_bits: int) -> Tensor:
    """Fair channel-dropout bits for the images at some global positions, bool (B, K)."""
    rows = [
        KeyedRandom(seed, Stream.DROPOUT, kind, position).bits(num_bits) for position in positions
    ]
    return torch.from_numpy(np.stack(rows))
