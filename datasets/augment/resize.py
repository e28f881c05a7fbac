"""Resizing only what a crop shows, to the bytes Pillow gets when it resizes the whole image.

Pillow resizes along the width, rounds to bytes, then along the height. Each output pixel is a
weighted sum of a few source pixels; the weights are 22-bit whole numbers that depend on the sizes
alone. So rows above and below a crop can be left out, and another device can compute the same
bytes (`datasets/loading/device.py`). (`Image.resize(box=...)` cuts too, but to other bits: its box
is rounded to single precision.)
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.images.pixels import Box4


def nearest(source: int, resized: int, *, start: int, crop: int) -> NDArray[np.int64]:
    """Source pixel of each output pixel under Pillow's NEAREST; fewer than `crop` at padding."""
    step = source / resized
    # Summed step by step as Pillow does: start + i * step rounds differently for a few pixels.
    steps = np.full(min(start + crop, resized), step)
    steps[0] = step * 0.5
    return np.add.accumulate(steps)[start:].astype(np.int64)


def span(source: int, resized: int, *, start: int, stop: int) -> tuple[int, int]:
    """First source pixel that the outputs `start` to `stop` need, and the one after the last."""
    scale = source / resized
    support = max(scale, 1.0)
    first = max(int((start + 0.5) * scale - support + 0.5), 0)
    return first, min(int((stop - 0.5) * scale + support + 0.5), source)


def filter_width(source: int, resized: int) -> int:
    """How many source pixels Pillow's BILINEAR filter weights for one output pixel, at most."""
    return 2 * max(-(-source // resized), 1) + 1


def is_upright(source: tuple[int, int], resized: tuple[int, int]) -> bool:
    """Whether Pillow resizes the height first: very tall images that shrink.

    The rule of Pillow 13.0, found by trial. The two orders differ where they round.
    """
    (width, height), (new_width, new_height) = source, resized
    return new_height < height and height - new_height > 2 * (width - new_width)


def resized_window(
    band: Image.Image, top: int, height: int, *, size: tuple[int, int], box: Box4
) -> Image.Image:
    """A window of a resized image.

    Args:
        band: rows `top` and on of the image, as many as the window needs.
        top: of the band in the image.
        height: of the whole image.
        size: width and height of the whole image after resizing.
        box: the window in the resized image.
    """
    rows = (top, height, size[1], box)
    if is_upright((band.width, height), size):
        return _across(_down(band, rows), size[0], box)
    return _down(_across(band, size[0], box), rows)


def _across(band: Image.Image, width: int, box: Box4) -> Image.Image:
    """Resized along the width and cut to the window's columns."""
    if band.width != width:
        band = band.resize((width, band.height), Image.Resampling.BILINEAR)
    left, _, right, _ = box
    return band if (left, right) == (0, width) else band.crop((left, 0, right, band.height))


def _down(band: Image.Image, rows: tuple[int, int, int, Box4]) -> Image.Image:
    """Resized along the height and cut to the window's rows."""
    top, height, new_height, (_, above, _, below) = rows
    if height == new_height:
        return band.crop((0, above - top, band.width, below - top))
    if band.height != height:  # the empty rows around it have no weight inside the window
        whole = Image.new(band.mode, (band.width, height))
        whole.paste(band, (0, top))
        band = whole
    resized = band.resize((band.width, new_height), Image.Resampling.BILINEAR)
    return resized.crop((0, above, band.width, below))
