"""What the device needs to make the views: the visible parts of images, sizes and parameters.

The host only decodes and copies; `datasets/loading/device.py` resizes and augments, to the same
bytes as `datasets/augment/host.py`.

Legend: V views, h x w pixels of the largest part, C channels of which the first three are RGB
(Pillow keeps four, and leaving one out costs more than sending it).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.augment.host import Geometry, Photometry, weak_image
from datasets.augment.hue import hue_shift
from datasets.augment.resize import filter_width, is_upright, span
from datasets.images.pixels import ImageLike, part_of, size_of

OPERATIONS = ("brightness", "contrast", "saturation", "hue", "grey", "blur", "nothing")
BLUR_BITS = 24  # weights of a box blur are whole numbers in units of 2^-24
_GREY, _BLUR, _NOTHING = 4, 5, 6


@dataclass(frozen=True)
class AugmentSchedule:
    """The colour operations of N strong views, in T = 6 stages.

    Attributes:
        order: per stage, the views sorted by their operation, int64 (T, N).
        inverse: per stage, the position of each view in `order`, int64 (T, N).
        sizes: per stage, views under each of OPERATIONS.
        factors: of brightness, contrast and saturation, float32 (N, 3).
        shifts: of the hue modulo 256, int64 (N,).
        blurs: weights of a box blur's middle, first and second neighbours in units of 2^-24,
            int32 (N, 3).
    """

    order: Tensor
    inverse: Tensor
    sizes: tuple[tuple[int, ...], ...]
    factors: Tensor
    shifts: Tensor
    blurs: Tensor


def stages_of(drawn: Sequence[Photometry | None]) -> AugmentSchedule | None:
    """The schedule of N views; None stands for a view that is not changed.

    Returns:
        None without any view.
    """
    if not drawn:
        return None
    table = np.array([_operations(entry) for entry in drawn]).T  # (T, N)
    order = np.argsort(table, axis=1, kind="stable")
    sizes = tuple(tuple(np.bincount(row, minlength=len(OPERATIONS)).tolist()) for row in table)
    factors = [
        (entry.brightness, entry.contrast, entry.saturation) if entry else (1.0, 1.0, 1.0)
        for entry in drawn
    ]
    return AugmentSchedule(
        order=torch.from_numpy(order),
        inverse=torch.from_numpy(np.argsort(order, axis=1)),
        sizes=sizes,
        factors=torch.tensor(factors, dtype=torch.float32),
        shifts=torch.tensor([hue_shift(entry.hue) if entry else 0 for entry in drawn]),
        blurs=torch.tensor(
            [blur_weights(entry.blur) if entry else (0, 0, 0) for entry in drawn],
            dtype=torch.int32,
        ),
    )


def blur_weights(sigma: float) -> tuple[int, int, int]:
    """Weights of the middle, first and second neighbours in one pass of Pillow's GaussianBlur.

    Three box blurs of one radius, in single precision where Pillow's is; the fraction of the
    radius goes to the outermost neighbours.

    Args:
        sigma: standard deviation, pixels, at most 2: UniMatch's largest.
    """
    assert 0.0 < sigma <= 2.0, "a larger blur needs more neighbours"
    radius = _box_radius(np.float32(sigma))
    whole = int(radius)
    full = int(np.float32(1 << BLUR_BITS) / (radius * np.float32(2) + np.float32(1)))
    rest = ((1 << BLUR_BITS) - (2 * whole + 1) * full) // 2
    return (full, rest, 0) if whole == 0 else (full, full, rest)


def _box_radius(sigma: np.float32) -> np.float32:
    """Radius of the box whose three-fold blur has a variance of sigma squared."""
    variance = np.float32(sigma * sigma / np.float32(3))
    length = np.float32(math.sqrt(12.0 * float(variance) + 1.0))
    whole = np.float32(math.floor((float(length) - 1.0) / 2.0))
    one, two, three = np.float32(1), np.float32(2), np.float32(3)
    excess = (two * whole + one) * (whole * (whole + one) - three * variance)
    excess = np.float32(
        float(excess) / float(np.float32(6) * (variance - (whole + one) * (whole + one)))
    )
    return np.float32(whole + excess)


def _operations(drawn: Photometry | None) -> tuple[int, ...]:
    """Index into OPERATIONS for each stage."""
    if drawn is None:
        return (_NOTHING,) * 6
    jitter = drawn.order if drawn.is_jittered else (_NOTHING,) * 4
    return (
        *jitter,
        _GREY if drawn.is_grey else _NOTHING,
        _BLUR if drawn.is_blurred else _NOTHING,
    )


@dataclass(frozen=True)
class CropInputs:
    """The inputs of V crops.

    Attributes:
        pixels: the parts, top left in a common frame, uint8 (V, h, w, C).
        columns: the fields of `Axis` for the columns of each crop, int64 (6, V).
        rows: the same for its rows.
        crop: side of the crops, pixels.
        depth: largest number of source pixels that are summed for one pixel of a crop.
    """

    pixels: Tensor
    columns: Tensor
    rows: Tensor
    crop: int
    depth: int


class Axis(NamedTuple):
    """One axis of a crop, pixels.

    Attributes:
        source: before resizing.
        resized: after.
        start: first output pixel that the crop shows.
        shown: output pixels before padding begins; may be more than the crop has.
        skipped: first source pixels that are missing.
        is_mirrored: whether the crop is mirrored after resizing.
    """

    source: int
    resized: int
    start: int
    shown: int
    skipped: int
    is_mirrored: bool


def windows_of(images: Sequence[ImageLike], geometries: Sequence[Geometry]) -> CropInputs:
    """The parts of some RGB images and how to resize them, padded to a common size."""
    ready = [_view(image, geometry) for image, geometry in zip(images, geometries, strict=True)]
    parts = [part for part, _, _ in ready]
    height, width, channels = (max(sides) for sides in zip(*(p.shape for p in parts), strict=True))
    # Pixels outside a part have no weight in any sum, so they need not be cleared.
    pixels = torch.empty((len(parts), height, width, channels), dtype=torch.uint8)
    frame = pixels.numpy()
    for index, part in enumerate(parts):
        frame[index, : part.shape[0], : part.shape[1], : part.shape[2]] = part
    across, down = [view[1] for view in ready], [view[2] for view in ready]
    return CropInputs(
        pixels,
        columns=torch.tensor(across).T,
        rows=torch.tensor(down).T,
        crop=geometries[0].crop,
        depth=max(filter_width(axis.source, axis.resized) for axis in (*across, *down)),
    )


def _view(image: ImageLike, geometry: Geometry) -> tuple[NDArray[np.uint8], Axis, Axis]:
    """The part one crop needs, and how its columns and rows are resized."""
    (width, height), (left, top, right, bottom) = size_of(image), geometry.box
    crop, is_flipped = geometry.crop, geometry.is_flipped
    if is_upright((width, height), (geometry.width, geometry.height)):
        # A device resizes across, then down; this rare shape is resized here.
        ready = np.asarray(weak_image(image, replace(geometry, is_flipped=False)))
        across = Axis(crop, crop, 0, right - left, 0, is_flipped)
        return ready, across, Axis(crop, crop, 0, bottom - top, 0, False)
    first_column, last_column = span(width, geometry.width, start=left, stop=right)
    first_row, last_row = span(height, geometry.height, start=top, stop=bottom)
    part = part_of(image, (first_column, first_row, last_column, last_row))
    across = Axis(width, geometry.width, left, right - left, first_column, is_flipped)
    return part, across, Axis(height, geometry.height, top, bottom - top, first_row, False)
