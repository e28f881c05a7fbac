"""Views on the host: draw the parameters, then crop, jitter and blur with Pillow and numpy.

Weak view: resize, crop, flip. Strong view: colour jitter, grayscale and blur on top of it, and a
CutMix box. Probabilities and ranges are those of the UniMatch code, unless `data.strong` says
otherwise; the arithmetic is Pillow's, in the order of torchvision's ColorJitter for PIL images.
"""

import math
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from datasets.augment.hue import hue_shift, shift_hue
from datasets.augment.resize import nearest, resized_window, span
from datasets.config import StrongViewConfig
from datasets.images.pixels import Box4, ImageLike, band_of, part_of, size_of
from datasets.randomness import KeyedRandom
from datasets.spec import IGNORED


@dataclass(frozen=True)
class Geometry:
    """Where a training crop lies.

    Attributes:
        width: of the whole image after resizing, pixels.
        height: of the whole image after resizing, pixels.
        left: of the crop in the resized and padded image.
        top: of the crop in the resized and padded image.
        crop: side of the crop, pixels.
        is_flipped: mirrored left to right, last.
    """

    width: int
    height: int
    left: int
    top: int
    crop: int
    is_flipped: bool

    @property
    def box(self) -> Box4:
        """The crop without its padding, in the resized image."""
        right = min(self.left + self.crop, self.width)
        return self.left, self.top, right, min(self.top + self.crop, self.height)


@dataclass(frozen=True)
class Photometry:
    """The colour parameters of a strong view; all are drawn, also those that are not used.

    Attributes:
        is_jittered: whether brightness, contrast, saturation and hue change.
        order: of these four operations, by their index.
        brightness: factor; 1 leaves the image.
        contrast: factor around the mean grey.
        saturation: factor around each pixel's own grey.
        hue: shift in turns of the colour circle.
        is_grey: whether colours are dropped.
        is_blurred: whether the image is blurred.
        blur: standard deviation of the blur, pixels.
    """

    is_jittered: bool
    order: tuple[int, int, int, int]
    brightness: float
    contrast: float
    saturation: float
    hue: float
    is_grey: bool
    is_blurred: bool
    blur: float


@dataclass(frozen=True)
class Box:
    """A CutMix rectangle inside the crop, pixels; width 0 pastes nothing."""

    left: int = 0
    top: int = 0
    width: int = 0
    height: int = 0

    @property
    def edges(self) -> Box4:
        """Left, top, right, bottom."""
        return self.left, self.top, self.left + self.width, self.top + self.height


class BoxRule(Enum):
    """How the boxes of CutMix are drawn."""

    one = "one"  # none, or one of 2 to 40 % of the crop: the UniMatch code
    half = "half"  # one of half of the crop: French et al. (2020)
    three = "three"  # three that cancel where they overlap: the code of Chen et al. (2021)


@dataclass(frozen=True)
class ScaleRule:
    """How the size of a resized image is drawn.

    Attributes:
        low: smallest resize, as a factor of the long side.
        high: largest resize, the same way.
        factors: those to choose from, in place of `low` to `high`; empty: any between them.
        base: long side that factors multiply, pixels; 0: the image's own.
        has_halves: whether one half of the resizes lies below 1 and the other above.
    """

    low: float = 0.5
    high: float = 2.0
    factors: tuple[float, ...] = ()
    base: int = 0
    has_halves: bool = False


def draw_geometry(
    draws: KeyedRandom, size: tuple[int, int], *, crop: int, rule: ScaleRule
) -> Geometry:
    """Choose a crop of a resized image.

    Args:
        draws: random numbers, of which four words are taken, and one more for halves.
        size: width and height of the image on disk.
        crop: side of the crop, pixels.
        rule: how its size is drawn.
    """
    new_width, new_height = _draw_size(draws, size, rule)
    new_width, new_height = max(new_width, 1), max(new_height, 1)
    left = draws.integer(0, max(new_width, crop) - crop)
    top = draws.integer(0, max(new_height, crop) - crop)
    return Geometry(new_width, new_height, left, top, crop, draws.bernoulli(0.5))


def _draw_size(draws: KeyedRandom, size: tuple[int, int], rule: ScaleRule) -> tuple[int, int]:
    """Width and height after resizing."""
    width, height = size
    side = rule.base or max(width, height)
    if rule.factors or rule.has_halves:
        # Both sides are cut to whole pixels, as the codes of CPS and U2PL do.
        factor = _draw_factor(draws, rule) * side / max(width, height)
        return int(width * factor), int(height * factor)
    long_side = draws.integer(int(side * rule.low), int(side * rule.high))
    if height > width:  # of a square image the width counts as the long side
        return int(width * long_side / height + 0.5), long_side
    return long_side, int(height * long_side / width + 0.5)


def _draw_factor(draws: KeyedRandom, rule: ScaleRule) -> float:
    """One of the factors, or one of a half that is drawn first."""
    if rule.factors:
        return rule.factors[draws.integer(0, len(rule.factors) - 1)]
    if draws.bernoulli(0.5):
        return draws.uniform(rule.low, 1.0)
    return draws.uniform(1.0, rule.high)


def weak_image(image: ImageLike, geometry: Geometry) -> Image.Image:
    """The weak view of an RGB image: resized, padded with black on the right and below, cropped."""
    _, height = size_of(image)
    box = geometry.box
    top, bottom = span(height, geometry.height, start=box[1], stop=box[3])
    size = (geometry.width, geometry.height)
    window = resized_window(band_of(image, top, bottom), top, height, size=size, box=box)
    if window.size != (geometry.crop, geometry.crop):
        window = window.crop((0, 0, geometry.crop, geometry.crop))  # Pillow pads with 0
    return window.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if geometry.is_flipped else window


def weak_mask(mask: ImageLike, geometry: Geometry) -> NDArray[np.uint8]:
    """The mask of a weak view, (crop, crop); padding is ignored (255)."""
    width, height = size_of(mask)
    crop = geometry.crop
    rows = nearest(height, geometry.height, start=geometry.top, crop=crop)
    columns = nearest(width, geometry.width, start=geometry.left, crop=crop)
    top, left = int(rows[0]), int(columns[0])
    part = part_of(mask, (left, top, int(columns[-1]) + 1, int(rows[-1]) + 1))
    inside = part.take(rows - top, axis=0).take(columns - left, axis=1)
    if inside.shape != (crop, crop):
        missing = (crop - len(rows), crop - len(columns))
        inside = np.pad(inside, ((0, missing[0]), (0, missing[1])), constant_values=IGNORED)
    return np.ascontiguousarray(inside[:, ::-1]) if geometry.is_flipped else inside


def padded_map(geometry: Geometry) -> NDArray[np.bool_]:
    """True where a weak view shows padding and no image, (crop, crop)."""
    rows = np.arange(geometry.crop) + geometry.top >= geometry.height
    columns = np.arange(geometry.crop) + geometry.left >= geometry.width
    padded: NDArray[np.bool_] = rows[:, None] | columns[None, :]
    return padded[:, ::-1].copy() if geometry.is_flipped else padded


_UNIMATCH = StrongViewConfig()


def draw_photometry(draws: KeyedRandom, strong: StrongViewConfig = _UNIMATCH) -> Photometry:
    """Draw the colour parameters of a strong view, as `strong` says; always twelve words."""
    is_jittered = draws.bernoulli(strong.jitter)
    brightness, contrast, saturation = (
        draws.uniform(1.0 - reach, 1.0 + reach)
        for reach in (strong.brightness, strong.contrast, strong.saturation)
    )
    hue = draws.uniform(-strong.hue, strong.hue)
    first, second, third, fourth = draws.permutation(4)
    return Photometry(
        is_jittered=is_jittered,
        order=(first, second, third, fourth),
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        is_grey=draws.bernoulli(strong.grey),
        is_blurred=draws.bernoulli(strong.blur),
        blur=draws.uniform(0.1, 2.0),
    )


def draw_overlap(draws: KeyedRandom, first: Geometry) -> Geometry:
    """Draw another crop of the same resized image, mirrored on its own (Lai et al. 2021).

    It is shifted by whole multiples of 8 pixels, so that it meets the first one on feature maps of
    stride 8 too, and its intersection over union with the first is at least 0.1; after 50 draws
    without success it is the first one.

    Args:
        draws: random numbers, of which the rejection loop takes as many as it needs.
        first: the other crop.
    """
    crop, is_flipped = first.crop, draws.bernoulli(0.5)
    for _ in range(_OVERLAP_DRAWS):
        left, top = (
            start + _OVERLAP_STEP * draws.integer(-(start // _OVERLAP_STEP), room // _OVERLAP_STEP)
            for start, room in (
                (first.left, max(first.width, crop) - crop - first.left),
                (first.top, max(first.height, crop) - crop - first.top),
            )
        )
        shared = max(crop - abs(left - first.left), 0) * max(crop - abs(top - first.top), 0)
        if shared >= _OVERLAP_LEAST * (2 * crop * crop - shared):
            return replace(first, left=left, top=top, is_flipped=is_flipped)
    return replace(first, is_flipped=is_flipped)


_OVERLAP_DRAWS, _OVERLAP_STEP, _OVERLAP_LEAST = 50, 8, 0.1


def draw_box(
    draws: KeyedRandom, crop: int, *, probability: float = 0.5, redraws_area: bool = False
) -> Box:
    """Draw a CutMix box of 2 to 40 % of the crop's area, or none.

    Args:
        draws: random numbers, of which the rejection loop takes as many as it needs.
        crop: side of the crop, pixels.
        probability: of a box.
        redraws_area: whether a rejection draws the area anew and not only the ratio: the holes of
            cutout in the code of Yang et al. (ST++, 2022).
    """
    if not draws.bernoulli(probability):
        return Box()
    area = draws.uniform(0.02, 0.4) * crop * crop
    while True:
        ratio = draws.uniform(0.3, 1 / 0.3)
        width, height = int(math.sqrt(area / ratio)), int(math.sqrt(area * ratio))
        left, top = draws.integer(0, crop - 1), draws.integer(0, crop - 1)
        if left + width <= crop and top + height <= crop:
            return Box(left, top, width, height)
        if redraws_area:
            area = draws.uniform(0.02, 0.4) * crop * crop


def draw_boxes(
    draws: KeyedRandom, crop: int, rule: BoxRule, *, probability: float = 0.5
) -> tuple[Box, ...]:
    """Draw the CutMix boxes of one view; always as many for a rule.

    Args:
        draws: random numbers, of which `BoxRule.one` takes as many as it needs, others four a box.
        crop: side of the crop, pixels.
        rule: how many and how large.
        probability: of the box of `BoxRule.one`; the other rules always draw theirs.
    """
    if rule is BoxRule.one:
        return (draw_box(draws, crop, probability=probability),)
    count, low, high = (1, 0.5, 0.5) if rule is BoxRule.half else (3, 0.25, 0.5)
    return tuple(_toggled_box(draws, crop, count, (low, high)) for _ in range(count))


def _toggled_box(draws: KeyedRandom, crop: int, count: int, shares: tuple[float, float]) -> Box:
    """One of `count` boxes, each of a share of the crop divided by their number."""
    share = draws.uniform(*shares)
    down = share ** draws.uniform(0.0, 1.0)
    across = share / down
    height, width = (round(side * crop / math.sqrt(count)) for side in (down, across))
    top, left = (round((crop - side) * draws.uniform(0.0, 1.0)) for side in (height, width))
    return Box(left, top, width, height)


def strong_image(weak: Image.Image, photometry: Photometry) -> Image.Image:
    """A strong view of a weak one: colour jitter, grayscale, blur, each where it was drawn."""
    image = weak
    if photometry.is_jittered:
        for operation in photometry.order:
            image = _jittered(image, photometry, operation)
    if photometry.is_grey:
        image = image.convert("L")  # equal channels are blurred once; the bytes are the same
    if photometry.is_blurred:
        image = image.filter(ImageFilter.GaussianBlur(photometry.blur))
    return image.convert("RGB") if photometry.is_grey else image


def mean_grey(grey: Image.Image) -> int:
    """Mean of a one-channel image, halves rounded up, as ImageEnhance.Contrast takes it."""
    counts = np.array(grey.histogram())
    total = int((counts * np.arange(256)).sum())
    num_pixels = grey.width * grey.height
    return (2 * total + num_pixels) // (2 * num_pixels)


def _jittered(image: Image.Image, photometry: Photometry, operation: int) -> Image.Image:
    """One of torchvision's four colour operations, in its PIL form."""
    if operation == 0:
        return ImageEnhance.Brightness(image).enhance(photometry.brightness)
    if operation == 1:
        return _contrasted(image, photometry.contrast)
    if operation == 2:
        return ImageEnhance.Color(image).enhance(photometry.saturation)
    return shift_hue(image, hue_shift(photometry.hue))


def _contrasted(image: Image.Image, factor: float) -> Image.Image:
    """Away from the mean grey, or towards it."""
    mean = mean_grey(image.convert("L"))
    return Image.blend(Image.new("RGB", image.size, (mean, mean, mean)), image, factor)
