"""A decoded picture, either Pillow's or an array (perhaps mapped from a file), and parts of it."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.region import Box4

Photo: TypeAlias = Image.Image | NDArray[np.uint8]  # RGB or indices; arrays are (H, W, 3) or (H, W)


class Photos(Protocol):
    """Where pictures come from: an `ImageTree`, or its decoded copy."""

    def image(self, name: str) -> Photo:
        """The picture of an id, RGB."""

    def pair(self, name: str) -> tuple[Photo, Photo]:
        """Picture and mask of an id."""

    def prefetch(self, images: Sequence[str], masks: Sequence[str] = ()) -> None:
        """Say which ids are read soon."""


def size_of(photo: Photo) -> tuple[int, int]:
    """Width and height, pixels."""
    if isinstance(photo, Image.Image):
        return photo.size
    return photo.shape[1], photo.shape[0]


def band_of(photo: Photo, top: int, bottom: int) -> Image.Image:
    """Some rows of it."""
    if isinstance(photo, Image.Image):
        whole = (top, bottom) == (0, photo.height)
        return photo if whole else photo.crop((0, top, photo.width, bottom))
    return Image.fromarray(np.ascontiguousarray(photo[top:bottom]))


def part_of(photo: Photo, box: Box4) -> NDArray[np.uint8]:
    """A rectangle inside it, (h, w, 3) or (h, w)."""
    left, top, right, bottom = box
    if isinstance(photo, Image.Image):
        whole = box == (0, 0, *photo.size)
        return np.asarray(photo if whole else photo.crop(box))
    return photo[top:bottom, left:right]
