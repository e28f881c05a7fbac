"""Copy-paste of labelled images: pixels of some classes go from one image into another.

AEL (Hu et al. 2021) pastes into half of the images, from an image whose size varies more than that
of other crops. Legend: B images, n of them with pasted pixels, S x S pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datasets.augment.device_inputs import CropInputs, windows_of
from datasets.augment.host import Geometry, weak_image, weak_mask
from datasets.images.pixels import ImageLike


@dataclass(frozen=True)
class Paste:
    """A crop of another image, and where it replaces the pixels of one.

    Attributes:
        image: decoded.
        geometry: of its crop.
        mask: of the crop, uint8 (S, S).
        inside: True where it shows a class that is pasted, bool (S, S).
    """

    image: ImageLike
    geometry: Geometry
    mask: NDArray[np.uint8]
    inside: NDArray[np.bool_]

    @classmethod
    def of(
        cls, pair: tuple[ImageLike, ImageLike], geometry: Geometry, classes: tuple[int, ...]
    ) -> "Paste":
        """Of an image with its mask."""
        image, mask = pair
        cropped = weak_mask(mask, geometry)
        return cls(image, geometry, cropped, np.isin(cropped, classes))

    def onto_image(self, weak: Image.Image) -> Image.Image:
        """A weak view with the pasted pixels."""
        other = np.asarray(weak_image(self.image, self.geometry))
        return Image.fromarray(np.where(self.inside[..., None], other, np.asarray(weak)))


@dataclass(frozen=True)
class PastedWindows:
    """The inputs from which a device pastes.

    Attributes:
        windows: of the n other images.
        which: the one of them for each image; any for an image without, int64 (B,).
        inside: True where its pixels go, bool (B, S, S).
    """

    windows: CropInputs
    which: Tensor
    inside: Tensor


def pasted_windows(pastes: list[Paste | None]) -> PastedWindows | None:
    """The inputs of the pastes of B images; None where there is none."""
    real = [paste for paste in pastes if paste is not None]
    if not real:
        return None
    nowhere = np.zeros_like(real[0].inside)
    numbers = {id(paste): number for number, paste in enumerate(real)}
    return PastedWindows(
        windows=windows_of([paste.image for paste in real], [paste.geometry for paste in real]),
        which=torch.tensor([numbers.get(id(paste), 0) for paste in pastes]),
        inside=torch.from_numpy(np.stack([paste.inside if paste else nowhere for paste in pastes])),
    )


def paste_masks(masks: Tensor, pastes: list[Paste | None]) -> Tensor:
    """The masks uint8 (B, S, S) with the pasted classes."""
    return torch.stack(
        [
            mask if paste is None else torch.from_numpy(np.where(paste.inside, paste.mask, mask))
            for mask, paste in zip(masks, pastes, strict=True)
        ]
    )
