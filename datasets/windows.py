"""The parts of photographs that crops show, before resizing, with the tables to resize them.

A host that hands these over has only decoded and copied; `trainer/augment_on_device.py` does the
arithmetic, with the bits of `augment.weak_image`.

Legend: V views, h x w pixels of the largest part, S pixels of a crop's side, K taps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.augment import Geometry, weak_image
from datasets.movable import Movable
from datasets.photo import Photo, part_of, size_of
from datasets.region import Taps, is_upright, span, taps


@dataclass(frozen=True)
class Windows(Movable):
    """V crops to be.

    Attributes:
        pixels: the parts, top left in a common frame, uint8 (V, h, w, 3).
        columns: first column of the part for each column of the crop, int64 (V, S).
        column_weights: of this and the next columns, in units of 2^-22, int32 (V, K, S); all zero
            exactly on padding.
        rows: the same down the part, int64 (V, S).
        row_weights: int32 (V, K, S).
    """

    pixels: Tensor
    columns: Tensor
    column_weights: Tensor
    rows: Tensor
    row_weights: Tensor


def windows_of(photos: Sequence[Photo], geometries: Sequence[Geometry]) -> Windows:
    """The parts of some RGB photographs and their tables, padded to a common size."""
    ready = [_view(photo, geometry) for photo, geometry in zip(photos, geometries, strict=True)]
    height = max(part.shape[0] for part, _, _ in ready)
    width = max(part.shape[1] for part, _, _ in ready)
    # What is beyond a part is never weighted: no need to clear it.
    pixels = torch.empty((len(ready), height, width, 3), dtype=torch.uint8)
    frame = pixels.numpy()
    for place, (part, _, _) in enumerate(ready):
        frame[place, : part.shape[0], : part.shape[1]] = part
    columns = [table for _, table, _ in ready]
    rows = [table for _, _, table in ready]
    return Windows(pixels, _firsts(columns), _weights(columns), _firsts(rows), _weights(rows))


def _view(photo: Photo, geometry: Geometry) -> tuple[NDArray[np.uint8], Taps, Taps]:
    """The part one crop needs, with tables for its columns and rows."""
    if is_upright(size_of(photo), (geometry.width, geometry.height)):
        # The tables say across, then down; this rare shape is resized here.
        ready = np.asarray(weak_image(photo, geometry))
        columns, rows = _identity(geometry)
        return ready, columns, rows
    width, height = size_of(photo)
    left, top, right, bottom = geometry.box
    first_column, last_column = span(width, geometry.width, start=left, stop=right)
    first_row, last_row = span(height, geometry.height, start=top, stop=bottom)
    part = part_of(photo, (first_column, first_row, last_column, last_row))
    across = taps(width, geometry.width, start=left, crop=geometry.crop).moved(first_column)
    down = taps(height, geometry.height, start=top, crop=geometry.crop).moved(first_row)
    return part, across.mirrored() if geometry.is_flipped else across, down


def _identity(geometry: Geometry) -> tuple[Taps, Taps]:
    """Tables that leave a finished crop as it is; its padding stays marked."""
    crop, (left, top, right, bottom) = geometry.crop, geometry.box
    across, down = (taps(crop, crop, start=0, crop=crop) for _ in range(2))
    missing = crop - (right - left)
    is_padding = slice(0, missing) if geometry.is_flipped else slice(crop - missing, crop)
    across.weights[:, is_padding] = 0
    down.weights[:, bottom - top :] = 0
    return across, down


def _firsts(tables: Sequence[Taps]) -> Tensor:
    return torch.from_numpy(np.stack([table.first for table in tables]))


def _weights(tables: Sequence[Taps]) -> Tensor:
    depth = max(len(table.weights) for table in tables)
    weights = np.zeros((len(tables), depth, tables[0].weights.shape[1]), np.int32)
    for place, table in enumerate(tables):
        weights[place, : len(table.weights)] = table.weights
    return torch.from_numpy(weights)
