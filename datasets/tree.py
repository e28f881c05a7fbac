"""Reading images and masks from a folder tree, with errors that name the file and the cure."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from datasets.catalog import IGNORED, DatasetSpec
from datasets.errors import DataError as DataError


@dataclass(frozen=True)
class ImageTree:
    """Images and masks by id, in the layout of VOC, of Cityscapes, or any two patterns.

    Attributes:
        root: folder that holds the tree.
        image_pattern: path of an image below the root, with {id}.
        mask_pattern: path of a mask below the root, with {id}.
        num_classes: mask values are below it, or 255.
    """

    root: Path
    image_pattern: str
    mask_pattern: str
    num_classes: int

    def image_path(self, name: str) -> Path:
        """Where the image of an id lies."""
        return self.root / self.image_pattern.format(id=name)

    def mask_path(self, name: str) -> Path:
        """Where the mask of an id lies."""
        return self.root / self.mask_pattern.format(id=name)

    def image(self, name: str) -> Image.Image:
        """The image as RGB.

        Raises:
            DataError: it is missing or cannot be decoded.
        """
        return _decoded(self.image_path(name), "image").convert("RGB")

    def mask(self, name: str) -> Image.Image:
        """The class indices, one byte a pixel; 255 is ignored. Palettes are not applied.

        Raises:
            DataError: the mask is missing, cannot be decoded, or holds something else.
        """
        path = self.mask_path(name)
        mask = _decoded(path, "mask")
        if mask.mode not in ("L", "P"):
            raise DataError(
                f"{path} has colours (mode {mask.mode}) where class indices are expected. "
                "Convert it to a single-channel or palette PNG whose values are the classes."
            )
        counts = mask.histogram()
        wrong = [value for value in range(self.num_classes, IGNORED) if counts[value]]
        if wrong:
            raise DataError(
                f"{path} holds class {wrong[0]}, but there are {self.num_classes} classes "
                f"(0 to {self.num_classes - 1}; {IGNORED} is ignored). Convert the mask, or check "
                "that dataset and root belong together."
            )
        return mask

    def pair(self, name: str) -> tuple[Image.Image, Image.Image]:
        """Image and mask of one id.

        Raises:
            DataError: as `image` and `mask`, or the two differ in size.
        """
        image, mask = self.image(name), self.mask(name)
        if image.size != mask.size:
            raise DataError(
                f"{self.mask_path(name)} is {_size(mask)} pixels, its image "
                f"{self.image_path(name)} is {_size(image)}. Replace the one that is wrong."
            )
        return image, mask


def tree_of(spec: DatasetSpec, root: Path) -> ImageTree:
    """The tree of a known dataset below a folder."""
    return ImageTree(root, spec.image_pattern, spec.mask_pattern, len(spec.class_names))


def _decoded(path: Path, what: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
    except FileNotFoundError:
        raise DataError(
            f"The {what} {path} is missing. Put it there, or check the root folder and the split; "
            "`python -m datasets verify` lists every such file."
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"The {what} {path} cannot be decoded ({error}). Bring a fresh copy of the file; "
            "`python -m datasets verify` lists every such file."
        ) from error
    return image


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"
