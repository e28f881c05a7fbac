"""A decoded image, either Pillow's or an array (perhaps mapped from a file), and parts of it."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

Box4: TypeAlias = tuple[int, int, int, int]  # left, top, right, bottom
Pixels: TypeAlias = Image.Image | NDArray[np.uint8]  # RGB or indices; (H, W, 3) or (H, W)


class LazyImage:
    """An image that is decoded when its pixels are read, from the top as far as is needed.

    Attributes:
        size: width and height, pixels.
    """

    def __init__(self, size: tuple[int, int], decode: Callable[[int], Pixels]) -> None:
        """An image of known size that is not decoded yet.

        Args:
            size: width and height, pixels.
            decode: given a number of rows, decodes that many from the top.
        """
        self.size = size
        self._decode = decode
        self._asked = 0
        self._found: Pixels | None = None

    def ask(self, rows: int) -> None:
        """Announce that `rows` rows will be needed, so that they are decoded only once."""
        self._asked = max(self._asked, rows)

    def upper(self, rows: int) -> Pixels:
        """The image with at least its first `rows` rows."""
        if self._found is None or size_of(self._found)[1] < rows:
            self.ask(rows)
            self._found = self._decode(self._asked)
        return self._found


ImageLike: TypeAlias = Pixels | LazyImage


class ImageSource(Protocol):
    """Where images come from: a `LazyTree`, or a decoded copy."""

    def image(self, name: str) -> ImageLike:
        """The image of an id, RGB."""

    def pair(self, name: str) -> tuple[ImageLike, ImageLike]:
        """Image and mask of an id."""

    def prefetch(self, images: Sequence[str], masks: Sequence[str] = ()) -> None:
        """Announce ids that are read soon."""


def size_of(image: ImageLike) -> tuple[int, int]:
    """Width and height, pixels."""
    if isinstance(image, np.ndarray):
        return image.shape[1], image.shape[0]
    return image.size


def band_of(image: ImageLike, top: int, bottom: int) -> Image.Image:
    """The rows `top` to `bottom` (exclusive) of an image."""
    pixels = image.upper(bottom) if isinstance(image, LazyImage) else image
    if isinstance(pixels, Image.Image):
        whole = (top, bottom) == (0, pixels.height)
        return pixels if whole else pixels.crop((0, top, pixels.width, bottom))
    return Image.fromarray(np.ascontiguousarray(pixels[top:bottom]))


def part_of(image: ImageLike, box: Box4) -> NDArray[np.uint8]:
    """A rectangle of an image: (h, w), or (h, w, C) whose first three channels are RGB."""
    left, top, right, bottom = box
    pixels = image.upper(bottom) if isinstance(image, LazyImage) else image
    if isinstance(pixels, Image.Image):
        pixels = view_of(pixels)
    return pixels[top:bottom, left:right]


def whole_of(image: ImageLike) -> NDArray[np.uint8]:
    """A whole image as an array of its own: RGB (H, W, 3), or class indices (H, W)."""
    return np.array(image.upper(image.size[1]) if isinstance(image, LazyImage) else image)


def view_of(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an RGB, grey or palette image, without a copy where Pillow allows it.

    (H, W), or (H, W, 4) of RGB, where the last byte has no meaning; copies have three.
    """
    try:
        flat = pa.array(image)
    except ValueError:  # above 16 MB Pillow takes several blocks
        return np.asarray(image)
    channels = [4] if image.mode == "RGB" else []
    # The buffer itself: `to_numpy` would import pandas, 27 MB in every worker.
    data = (flat.values if channels else flat).buffers()[1]
    return np.frombuffer(data, np.uint8).reshape(image.height, image.width, *channels)
