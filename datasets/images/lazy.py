"""Images of which only the rows that crops show are decoded.

A crop is drawn from the size of an image alone, which says how many rows are needed. Damage below
the last of them is not noticed here; `python -m datasets verify` reads whole files.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.images.decode import MaskCode, read_image, read_mask, refuse_values
from datasets.images.pixels import ImageLike, LazyImage, size_of
from datasets.images.png import Png
from datasets.images.tree import ImageTree, refuse_sizes


class LazyTree:
    """The images of a tree, decoded when and as far as they are needed."""

    def __init__(self, tree: ImageTree) -> None:
        """Read from `tree`."""
        self._tree = tree

    def image(self, name: str) -> ImageLike:
        """The image as RGB.

        Raises:
            DataError: it is missing or cannot be decoded; perhaps only when its pixels are read.
        """
        item = self._tree.item("image", name)
        png = Png.of(item.data) if item.encoding == "file" else None
        if png is None:
            return self._tree.decoded_image(item)
        return LazyImage(png.size, _image_rows(png, item.path))

    def pair(self, name: str) -> tuple[ImageLike, ImageLike]:
        """Image and class indices of one id.

        Raises:
            DataError: as `image`, or the two differ in size.
        """
        image, item = self.image(name), self._tree.item("mask", name)
        png = Png.of(item.data) if item.encoding == "file" else None
        mask: ImageLike
        if png is None:
            mask = self._tree.decoded_mask(item)
        else:
            mask = LazyImage(png.size, _mask_rows(png, item.path, self._tree.mask_code))
        if size_of(image) != size_of(mask):
            refuse_sizes(self._tree, name, size_of(image), size_of(mask))
        return image, mask

    def prefetch(self, images: Sequence[str], masks: Sequence[str] = ()) -> None:
        """Announce ids that are read soon."""
        self._tree.prefetch(images, masks)


def _image_rows(png: Png, path: str) -> Callable[[int], Image.Image | NDArray[np.uint8]]:
    def decode(rows: int) -> Image.Image | NDArray[np.uint8]:
        pixels = png.fast(rows) if png.layout == "rgb" else None
        return read_image(png.upper(rows), path) if pixels is None else pixels

    return decode


def _mask_rows(
    png: Png, path: str, code: MaskCode
) -> Callable[[int], Image.Image | NDArray[np.uint8]]:
    def decode(rows: int) -> Image.Image | NDArray[np.uint8]:
        pixels = png.fast(rows) if png.layout == "mono" else None
        if pixels is None:
            return read_mask(png.upper(rows), path, code)
        refuse_values(pixels, path, code)
        return pixels if code.is_plain else np.array(code.table(), np.uint8)[pixels]

    return decode
