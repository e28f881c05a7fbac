"""One drawn scene: textured objects on clutter, lit unevenly, seen by a noisy camera.

A class is a shape with a texture. Size, turn and lighting are drawn freely, and the hue of a class
only leans to one side: the best rule from a pixel's colour to a class reaches an mIoU of 34 %.
Clutter borrows the shapes without their texture and the textures without their shape. What it
covers belongs to the background.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.config import SyntheticConfig
from datasets.known.synthetic import SHAPES, TEXTURES, drawn_parts
from datasets.randomness import KeyedRandom, Stream
from datasets.synthetic.paint import Field, bell, colour, inside, tone, value_noise

_HUE_SPREAD = 0.12  # of a class around its own hue, in turns; 0.5 would make hue uninformative
_PLAIN_CLUTTER = 0.7  # part of the clutter that has no texture
_SHOT_NOISE = 0.05  # standard deviation at full brightness

Paint = Callable[[Field, Field], Field]  # colours (h, w, 3) of points given in pixels


@dataclass
class _Canvas:
    """The scene so far: (H, W, 3) in [0, 1] and (H, W) classes."""

    pixels: Field
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class _Pose:
    """Pose of an object: centre and radius (pixels), cosine and sine of its turn, width stretch."""

    x: float
    y: float
    radius: float
    cosine: float
    sine: float
    stretch: float


def draw_scene(drawing: SyntheticConfig, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image (H, W, 3) and classes (H, W) of one scene."""
    draws = KeyedRandom(drawing.seed, Stream.DRAWING, index)
    size = (drawing.height, drawing.width)
    canvas = _Canvas(_background(draws, size), np.zeros(size, dtype=np.uint8))
    for _ in range(draws.integer(1, 3)):
        _add_clutter(canvas, draws)
    for _ in range(draws.integer(2, 5)):
        _add_object(canvas, draws, draws.integer(1, drawing.num_classes - 1))
    for _ in range(draws.integer(0, 2)):
        _add_stick(canvas, draws)
    return _photograph(canvas.pixels, draws), canvas.labels


def _background(draws: KeyedRandom, size: tuple[int, int]) -> Field:
    """Two hues mixed by smooth noise, with a little grain."""
    rows, columns = (axis + 0.5 for axis in np.indices(size, dtype=np.float64))
    scale = draws.uniform(1.5, 5.0) / min(size)
    rough = value_noise(draws, columns * scale, rows * scale)
    fine = value_noise(draws, columns * scale * 4.0, rows * scale * 4.0)
    hue, value = draws.uniform(0.0, 1.0), draws.uniform(0.35, 0.75)
    first = colour(hue, draws.uniform(0.1, 0.5), value)
    second = colour(hue + draws.uniform(-0.2, 0.2), draws.uniform(0.1, 0.5), value * 0.6)
    result: Field = first + (second - first) * (0.75 * rough + 0.25 * fine)[..., None]
    return result


def _add_object(canvas: _Canvas, draws: KeyedRandom, label: int) -> None:
    """One object of a class."""
    shape, texture = drawn_parts(label)
    pose = _pose(draws, canvas, smallest=0.16, largest=0.34)
    hue = label * 0.381966 + draws.uniform(-_HUE_SPREAD, _HUE_SPREAD)  # golden section of a turn
    paint = _textured(draws, hue=hue, texture=texture, radius=pose.radius)
    _add(canvas, pose, outside=lambda u, v: inside(shape, u, v), paint=paint, label=label)


def _add_clutter(canvas: _Canvas, draws: KeyedRandom) -> None:
    """A distractor, labelled background: a class's shape in one colour, or a textured blob."""
    pose = _pose(draws, canvas, smallest=0.10, largest=0.30)
    hue = draws.uniform(0.0, 1.0)
    if draws.bernoulli(_PLAIN_CLUTTER):
        shape, paint = draws.integer(0, len(SHAPES) - 1), _plain(draws, hue)
        _add(canvas, pose, outside=lambda u, v: inside(shape, u, v), paint=paint, label=0)
        return
    texture = draws.integer(0, len(TEXTURES) - 1)
    paint = _textured(draws, hue=hue, texture=texture, radius=pose.radius)

    def blob(u: Field, v: Field) -> Field:
        reach = 0.2 + 0.9 * value_noise(draws, u * 2.0, v * 2.0)
        result: Field = np.sqrt(u * u + v * v) - reach
        return result

    _add(canvas, pose, outside=blob, paint=paint, label=0)


def _add_stick(canvas: _Canvas, draws: KeyedRandom) -> None:
    """A thin bar of one colour in front of everything; its pixels are background."""
    pose = _pose(draws, canvas, smallest=0.25, largest=0.60)
    thin = draws.uniform(1.0, 2.5) / pose.radius
    paint = _plain(draws, draws.uniform(0.0, 1.0))
    _add(
        canvas,
        pose,
        outside=lambda u, v: np.maximum(np.abs(u) - 1.0, np.abs(v) - thin),
        paint=paint,
        label=0,
    )


def _pose(draws: KeyedRandom, canvas: _Canvas, *, smallest: float, largest: float) -> _Pose:
    """A pose anywhere on the canvas; sizes as parts of its short side."""
    height, width = canvas.labels.shape
    radius = draws.uniform(smallest, largest) * min(height, width)
    half = draws.uniform(-1.0, 1.0)  # tangent of half the turn; four quarters by sign and swap
    cosine, sine = (1.0 - half * half) / (1.0 + half * half), 2.0 * half / (1.0 + half * half)
    if draws.bernoulli(0.5):
        cosine, sine = -cosine, -sine
    return _Pose(
        x=draws.uniform(0.0, width),
        y=draws.uniform(0.0, height),
        radius=radius,
        cosine=cosine,
        sine=sine,
        stretch=draws.uniform(0.75, 1.3),
    )


def _textured(draws: KeyedRandom, *, hue: float, texture: int, radius: float) -> Paint:
    """Two tones of clearly different brightness, dealt by a texture turned on its own."""
    bright, dark = draws.uniform(0.65, 1.0), draws.uniform(0.1, 0.35)
    first = colour(hue, draws.uniform(0.2, 0.9), bright)
    second = colour(hue + draws.uniform(-0.15, 0.15), draws.uniform(0.2, 0.9), dark)
    period = draws.uniform(0.30, 0.45) * max(radius, 12.0)
    shift = draws.uniform(0.0, 1.0)

    def paint(x: Field, y: Field) -> Field:
        mix = tone(texture, x / period + shift, y / period + shift, draws)[..., None]
        result: Field = first + (second - first) * mix
        return result

    return paint


def _plain(draws: KeyedRandom, hue: float) -> Paint:
    """One colour, a little brighter at one end."""
    base = colour(hue, draws.uniform(0.1, 0.9), draws.uniform(0.2, 0.95))
    slope = draws.uniform(-0.01, 0.01)

    def paint(x: Field, y: Field) -> Field:
        del y
        result: Field = base * (1.0 + slope * x)[..., None]
        return result

    return paint


def _add(
    canvas: _Canvas,
    pose: _Pose,
    *,
    outside: Callable[[Field, Field], Field],
    paint: Paint,
    label: int,
) -> None:
    """Draw an object; its edge is blended over one pixel, its label is set from half cover on."""
    reach = pose.radius * max(pose.stretch, 1.0) * 1.45 + 1.0
    height, width = canvas.labels.shape
    top, left = max(int(pose.y - reach), 0), max(int(pose.x - reach), 0)
    bottom, right = min(int(pose.y + reach) + 1, height), min(int(pose.x + reach) + 1, width)
    part = (slice(top, bottom), slice(left, right))
    rows, columns = np.indices((bottom - top, right - left), dtype=np.float64)
    dx, dy = columns + (left + 0.5 - pose.x), rows + (top + 0.5 - pose.y)
    x = dx * pose.cosine + dy * pose.sine
    y = dy * pose.cosine - dx * pose.sine
    distance = outside(x / (pose.radius * pose.stretch), y / pose.radius) * pose.radius
    cover = np.clip(0.5 - distance, 0.0, 1.0)
    pixels = canvas.pixels[part]
    canvas.pixels[part] = pixels + (paint(x, y) - pixels) * cover[..., None]
    canvas.labels[part][cover >= 0.5] = label


def _photograph(pixels: Field, draws: KeyedRandom) -> NDArray[np.uint8]:
    """Uneven light, a tint, and shot noise that grows with the root of the brightness."""
    height, width = pixels.shape[:2]
    rows, columns = np.indices((height, width), dtype=np.float64)
    across, down = draws.uniform(-0.35, 0.35), draws.uniform(-0.35, 0.35)
    light = 1.0 + across * (2.0 * columns / width - 1.0) + down * (2.0 * rows / height - 1.0)
    tint = np.array([draws.uniform(0.85, 1.0) for _ in range(3)]) * draws.uniform(0.7, 1.1)
    lit = np.clip(pixels * light[..., None] * tint, 0.0, 1.0)
    noisy = lit + _SHOT_NOISE * np.sqrt(lit) * bell(draws, lit.shape)
    seen: NDArray[np.uint8] = np.clip(noisy * 255.0 + 0.5, 0.0, 255.0).astype(np.uint8)
    return seen
