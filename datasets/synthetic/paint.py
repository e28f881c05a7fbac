"""Shapes, textures and noise of the drawn scenes, as arrays.

Only additions, products, quotients, square roots and comparisons: IEEE fixes their results to the
last bit, so a seed gives the same pixels on every machine. (sin, exp and sums of whole arrays may
differ by instruction set.) Legend: u, v run from -1 to 1 over a shape; x, y count pixels.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from datasets.randomness import KeyedRandom

Field = NDArray[np.float64]


def inside(shape: int, u: Field, v: Field) -> Field:
    """How far a point lies outside a shape: negative inside, in units of the shape's radius.

    Args:
        shape: index into `datasets.known.synthetic.SHAPES`.
        u: across.
        v: down.
    """
    return _SHAPES[shape](u, v)


def tone(texture: int, x: Field, y: Field, draws: KeyedRandom) -> Field:
    """Brightness pattern of a texture of period 1, in [0, 1].

    Args:
        texture: index into `datasets.known.synthetic.TEXTURES`.
        x: across, in periods.
        y: down, in periods.
        draws: for textures with noise.
    """
    return _TEXTURES[texture](x, y, draws)


def value_noise(draws: KeyedRandom, x: Field, y: Field) -> Field:
    """Smooth noise in [0, 1) with one random value per unit square; x and y may be negative."""
    x, y = x - np.floor(x.min()), y - np.floor(y.min())
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    columns = int(left.max()) + 2
    lattice = uniforms(draws, (int(top.max()) + 2, columns)).ravel()
    fx, fy = smooth(x - left), smooth(y - top)
    corner = top * columns + left
    upper = lattice[corner] + (lattice[corner + 1] - lattice[corner]) * fx
    corner += columns
    lower = lattice[corner] + (lattice[corner + 1] - lattice[corner]) * fx
    result: Field = upper + (lower - upper) * fy
    return result


def uniforms(draws: KeyedRandom, shape: tuple[int, ...]) -> Field:
    """Random numbers in [0, 1), four to a word."""
    count = int(np.prod(shape))
    parts = draws.words(-(-count // 4)).astype("<u8").view("<u2")[:count]
    return parts.reshape(shape) * 2.0**-16


def bell(draws: KeyedRandom, shape: tuple[int, ...]) -> Field:
    """Bell-shaped noise of mean 0 and variance 1: sums of three uniform numbers."""
    first, second, third = (uniforms(draws, shape) for _ in range(3))
    return (first + second + third - 1.5) * 2.0


def smooth(t: Field) -> Field:
    """0 to 1 with flat ends, for t in [0, 1]."""
    return t * t * (3.0 - 2.0 * t)


def colour(hue: float, saturation: float, value: float) -> Field:
    """RGB in [0, 1], (3,); hue in turns of the circle."""
    sector = (hue % 1.0) * 6.0
    ramps = [abs(sector - 3.0) - 1.0, 2.0 - abs(sector - 2.0), 2.0 - abs(sector - 4.0)]
    full = np.clip(np.array(ramps), 0.0, 1.0)
    result: Field = value * (1.0 - saturation + saturation * full)
    return result


def wave(t: Field) -> Field:
    """A triangle wave of period 1 between 0 and 1."""
    result: Field = np.abs(2.0 * (t - np.floor(t)) - 1.0)
    return result


def _edge(t: Field) -> Field:
    """A soft step at 0.5."""
    result: Field = np.clip((t - 0.5) * 4.0 + 0.5, 0.0, 1.0)
    return result


def _radius(u: Field, v: Field) -> Field:
    result: Field = np.sqrt(u * u + v * v)
    return result


def _rectangle(u: Field, v: Field, half_width: float, half_height: float) -> Field:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def _disc(u: Field, v: Field) -> Field:
    return _radius(u, v) - 0.95


def _box(u: Field, v: Field) -> Field:
    return _rectangle(u, v, 0.85, 0.85)


def _triangle(u: Field, v: Field) -> Field:
    return np.maximum(v - 0.8, 0.87 * np.abs(u) - 0.5 * v - 0.45)


def _ring(u: Field, v: Field) -> Field:
    result: Field = np.abs(_radius(u, v) - 0.72) - 0.28
    return result


def _cross(u: Field, v: Field) -> Field:
    return np.minimum(_rectangle(u, v, 1.0, 0.36), _rectangle(u, v, 0.36, 1.0))


def _diamond(u: Field, v: Field) -> Field:
    result: Field = 0.7 * (np.abs(u) * 1.5 + np.abs(v) - 1.05)
    return result


def _crescent(u: Field, v: Field) -> Field:
    return np.maximum(_radius(u, v) - 1.0, 0.8 - _radius(u - 0.55, v))


def _bar(u: Field, v: Field) -> Field:
    return _rectangle(u, v, 1.0, 0.4)


def _striped(x: Field, y: Field, draws: KeyedRandom) -> Field:
    del y, draws
    return _edge(wave(x))


def _checked(x: Field, y: Field, draws: KeyedRandom) -> Field:
    del draws
    across, down = _edge(wave(x * 0.8)), _edge(wave(y * 0.8))
    return across + down - 2.0 * across * down


def _dotted(x: Field, y: Field, draws: KeyedRandom) -> Field:
    del draws
    radius = _radius(x - np.floor(x) - 0.5, y - np.floor(y) - 0.5)
    return _edge(0.5 + (0.33 - radius) * 2.0)


def _speckled(x: Field, y: Field, draws: KeyedRandom) -> Field:
    return value_noise(draws, x * 3.0, y * 3.0)


def _blotched(x: Field, y: Field, draws: KeyedRandom) -> Field:
    return _edge(0.5 + (value_noise(draws, x * 0.7, y * 0.7) - 0.5) * 3.0)


def _latticed(x: Field, y: Field, draws: KeyedRandom) -> Field:
    del draws
    return _edge(0.5 + (np.maximum(wave(x), wave(y)) - 0.72) * 2.5)


_SHAPES: tuple[Callable[[Field, Field], Field], ...] = (
    _disc,
    _box,
    _triangle,
    _ring,
    _cross,
    _diamond,
    _crescent,
    _bar,
)
_TEXTURES: tuple[Callable[[Field, Field, KeyedRandom], Field], ...] = (
    _striped,
    _checked,
    _dotted,
    _speckled,
    _blotched,
    _latticed,
)
