"""The parts of photographs that crops show, before resizing, with the sizes to resize them by.

A host that hands these over has only decoded and copied; `trainer/augment_on_device.py` does the
arithmetic, with the bits of `augment.weak_image`.

Legend: V views, h x w pixels of the largest part, C channels of which the first three are RGB
(Pillow keeps four, and leaving one out costs more than sending it).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.augment import Geometry, weak_image
from datasets.movable import Movable
from datasets.photo import Photo, part_of, size_of
from datasets.region import is_upright, span, tap_depth


@dataclass(frozen=True)
class Windows(Movable):
    """V crops to be.

    Attributes:
        pixels: the parts, top left in a common frame, uint8 (V, h, w, C).
        columns: what an `Axis` says of each crop's columns, int64 (6, V).
        rows: the same of its rows.
        crop: side of the crops, pixels.
        depth: source pixels that make one of a crop, at most.
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


def windows_of(photos: Sequence[Photo], geometries: Sequence[Geometry]) -> Windows:
    """The parts of some RGB photographs and how to resize them, padded to a common size."""
    ready = [_view(photo, geometry) for photo, geometry in zip(photos, geometries, strict=True)]
    parts = [part for part, _, _ in ready]
    height, width, channels = (max(sides) for sides in zip(*(p.shape for p in parts), strict=True))
    # What is beyond a part is never weighted: no need to clear it.
    pixels = torch.empty((len(parts), height, width, channels), dtype=torch.uint8)
    frame = pixels.numpy()
    for place, part in enumerate(parts):
        frame[place, : part.shape[0], : part.shape[1], : part.shape[2]] = part
    across, down = [view[1] for view in ready], [view[2] for view in ready]
    return Windows(
        pixels,
        columns=torch.tensor(across).T,
        rows=torch.tensor(down).T,
        crop=geometries[0].crop,
        depth=max(tap_depth(axis.source, axis.resized) for axis in (*across, *down)),
    )


def _view(photo: Photo, geometry: Geometry) -> tuple[NDArray[np.uint8], Axis, Axis]:
    """The part one crop needs, and how its columns and rows are resized."""
    (width, height), (left, top, right, bottom) = size_of(photo), geometry.box
    crop, is_flipped = geometry.crop, geometry.is_flipped
    if is_upright((width, height), (geometry.width, geometry.height)):
        # A device resizes across, then down; this rare shape is resized here.
        ready = np.asarray(weak_image(photo, replace(geometry, is_flipped=False)))
        across = Axis(crop, crop, 0, right - left, 0, is_flipped)
        return ready, across, Axis(crop, crop, 0, bottom - top, 0, False)
    first_column, last_column = span(width, geometry.width, start=left, stop=right)
    first_row, last_row = span(height, geometry.height, start=top, stop=bottom)
    part = part_of(photo, (first_column, first_row, last_column, last_row))
    across = Axis(width, geometry.width, left, right - left, first_column, is_flipped)
    return part, across, Axis(height, geometry.height, top, bottom - top, first_row, False)
