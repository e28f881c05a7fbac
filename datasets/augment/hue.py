"""Pillow's conversion from RGB to HSV and back as small tables of whole numbers.

Pillow computes both ways in floating point, pixel by pixel. The tables hold the results, so that
numpy is faster than Pillow on the way back, and so that another device gives the same bytes
without a division. They agree with Pillow on all 16.7 million colours.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WHEEL_BITS = 24  # weights of `hsv_to_rgb_table` are whole numbers in units of 2^-24
EDGE = 255  # index of a difference of 0 in `hues`


@cache
def saturations() -> NDArray[np.uint8]:
    """Saturation by 256 * largest channel + (largest - smallest), (65536,)."""
    largest, spread = np.divmod(np.arange(65536), 256)
    smallest = np.maximum(largest - spread, 0)
    return _hsv(largest, smallest, smallest)[..., 1]


@cache
def hues() -> NDArray[np.uint8]:
    """Hue by ((511 k + difference + 255) * 256 + spread), (3 * 511 * 256,).

    k is the first largest of the channels R, G, B; the difference is that of the two after it in
    the circle R G B R G; the spread is largest - smallest. Hue depends on nothing else.
    """
    k, difference, spread = np.ogrid[0:3, -EDGE : EDGE + 1, 0:256]
    difference = np.clip(difference, -spread, spread)
    circle = (spread, np.maximum(difference, 0), np.maximum(-difference, 0))
    channels = [np.choose((channel - k) % 3, circle) for channel in range(3)]
    return _hsv(*channels)[..., 0].ravel()


@cache
def hsv_to_rgb_table() -> NDArray[np.uint32]:
    """RGB divided by the value V of HSV: weights by 256 * hue + saturation, (65536, 3).

    A channel is (weight * value + 2^23) >> 24.
    """
    hue, saturation = np.divmod(np.arange(65536), 256)
    sector = hue * 6 // 255
    within = (hue * 6.0 / 255.0 - sector).astype(np.float32)
    strength = (saturation / 255.0).astype(np.float32)
    full = np.ones(65536)
    least = 1.0 - strength.astype(np.float64)
    falling = 1.0 - (strength * within).astype(np.float64)
    rising = 1.0 - strength * (1.0 - within.astype(np.float64))
    red = np.choose(sector % 6, (full, falling, least, least, rising, full))
    green = np.choose(sector % 6, (rising, full, full, falling, least, least))
    blue = np.choose(sector % 6, (least, least, rising, full, full, falling))
    weights = np.stack([red, green, blue], axis=1)
    rounded: NDArray[np.uint32] = np.rint(weights * (1 << WHEEL_BITS)).astype(np.uint32)
    return rounded


def hue_shift(turns: float) -> int:
    """A hue in [0, 255] to add modulo 256: 8-bit hue wraps, the shift is cut towards zero."""
    return int(turns * 255) % 256


def shift_hue(image: Image.Image, shift: int) -> Image.Image:
    """An RGB image with its hue shifted."""
    red, green, blue = (np.asarray(band) for band in image.split())
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    saturation = saturations().take((value.astype(np.intp) << 8) | spread)
    hue = hues().take(_hue_places(red, green, blue, value) << 8 | spread)
    hue += np.uint8(shift)  # wraps, as bytes do
    index = (hue.astype(np.intp) << 8) | saturation
    units = value.astype(np.uint32)
    bands = []
    for weights in _wheel_channels():
        channel = weights.take(index)
        channel *= units
        channel += np.uint32(1 << (WHEEL_BITS - 1))
        channel >>= np.uint32(WHEEL_BITS)
        bands.append(Image.fromarray(channel.astype(np.uint8)))
    return Image.merge("RGB", bands)


def _hue_places(
    red: NDArray[np.uint8],
    green: NDArray[np.uint8],
    blue: NDArray[np.uint8],
    value: NDArray[np.uint8],
) -> NDArray[np.intp]:
    """511 k + difference + 255, as `hues` wants it; the last case first, so that R wins ties."""
    r, g, b = (channel.astype(np.int16) for channel in (red, green, blue))
    index = r - g + np.int16(2 * 511 + EDGE)
    np.copyto(index, b - r + np.int16(511 + EDGE), where=green == value)
    np.copyto(index, g - b + np.int16(EDGE), where=red == value)
    return index.astype(np.intp)


@cache
def _wheel_channels() -> tuple[NDArray[np.uint32], ...]:
    return tuple(np.ascontiguousarray(hsv_to_rgb_table()[:, channel]) for channel in range(3))


def _hsv(*channels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Pillow's HSV of colours of any shape, (..., 3)."""
    colours = np.stack(np.broadcast_arrays(*channels), axis=-1).astype(np.uint8)
    flat = colours.reshape(1, -1, 3)
    return np.array(Image.fromarray(flat).convert("HSV")).reshape(colours.shape)
