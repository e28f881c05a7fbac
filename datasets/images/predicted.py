"""Masks that a network predicted for images without label, which a later training learns as labels.

Self-training (Yang et al., ST++, 2022) trains on one list of labelled images, some times over, and
of images with such masks.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from datasets.errors import DataError
from datasets.images.decode import plain_code, read_mask
from datasets.images.pixels import ImageLike, ImageSource, size_of
from datasets.images.tree import file_bytes


@dataclass(frozen=True)
class PredictedMasks:
    """What a training takes as labels besides the masks of its labelled images.

    Attributes:
        num_classes: mask values are below it.
        repeats: how often the labelled images stand in the list of an epoch.
        paths: of the predicted masks, PNGs of class indices, by the ids of unlabelled images.
    """

    num_classes: int
    repeats: int = 1
    paths: Mapping[str, Path] = field(default_factory=dict)

    def training_list(self, labelled: Sequence[str]) -> tuple[str, ...]:
        """The images of an epoch before they are shuffled."""
        return (*labelled,) * self.repeats + tuple(self.paths)

    def mask(self, name: str) -> Image.Image:
        """The predicted class indices of an image, one byte a pixel.

        Raises:
            DataError: the file is missing or damaged.
        """
        path, code = self.paths[name], plain_code(self.num_classes)
        return read_mask(file_bytes(path, "predicted mask"), str(path), code)


class WithPredicted:
    """Images of a source, some of them with predicted masks."""

    def __init__(self, source: ImageSource, predicted: PredictedMasks) -> None:
        """Take images, and masks that are not predicted, from `source`."""
        self._source = source
        self._masks = predicted

    @property
    def predicted(self) -> Collection[str]:
        """The ids of the images whose masks are predicted."""
        return self._masks.paths.keys()

    def image(self, name: str) -> ImageLike:
        """The image of an id, RGB."""
        return self._source.image(name)

    def pair(self, name: str) -> tuple[ImageLike, ImageLike]:
        """Image and class indices of an id.

        Raises:
            DataError: one is missing, cannot be decoded, or they differ in size.
        """
        if name not in self._masks.paths:
            return self._source.pair(name)
        image, mask = self._source.image(name), self._masks.mask(name)
        if size_of(image) != mask.size:
            raise DataError(
                f"{self._masks.paths[name]} is {mask.size[0]}x{mask.size[1]} pixels, its image "
                f"is {size_of(image)[0]}x{size_of(image)[1]}. Remove the mask and start the run "
                "again, which makes it anew."
            )
        return image, mask

    def prefetch(self, images: Sequence[str], masks: Sequence[str] = ()) -> None:
        """Announce ids that are read soon."""
        self._source.prefetch(images, [name for name in masks if name not in self._masks.paths])
