"""Data that hypothesis makes up for these tests."""

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from datasets.randomness import KeyedRandom, Stream
from sweeps.cell import Cell

seeds = st.integers(-(2**70), 2**70)
sizes = st.tuples(st.integers(5, 90), st.integers(5, 90))  # width, height


def draws_of(seed: int) -> KeyedRandom:
    return KeyedRandom(seed, Stream.UNLABELLED_CROP, 0)


def photo(seed: int, size: tuple[int, int]) -> Image.Image:
    """Random pixels, RGB."""
    width, height = size
    words = KeyedRandom(seed, Stream.DRAWING, 1).words(-(-width * height * 3 // 8))
    return Image.fromarray(words.view(np.uint8)[: width * height * 3].reshape(height, width, 3))


def labels(seed: int, size: tuple[int, int], num_classes: int = 5) -> Image.Image:
    """Random classes and some ignored pixels, one byte a pixel."""
    values = np.asarray(photo(seed, size))[..., 0] % (num_classes + 1)
    return Image.fromarray(np.where(values == num_classes, 255, values).astype(np.uint8))


names = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)

cells = st.builds(
    Cell,
    recipe=names,
    split=names,
    backbone=names,
    crop=st.integers(1, 9999),
    method=names,
    loss=names,
    seed=st.integers(0, 2**40),
)
