"""What UniMatch's data set does for one sample, plainly: the yardstick of the input pipeline.

The order of the steps, the copies and the waste are the official code's (whole image resized and
padded before the crop, masks of unlabelled images read to mark the padding, every strong view of
the partner made, float32 out); the random draws are ours, so that pixels can be compared.
"""

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from datasets.augment.host import Box, Geometry, Photometry

PADDED = 254  # marks padding in the mask of an unlabelled image
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def labelled_sample(image_path: Path, mask_path: Path, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Normalised image (3, S, S) and classes (S, S)."""
    image, mask = _opened(image_path, mask_path)
    image, mask = _weak(image, mask, geometry, fill=255)
    return normalised(image), torch.from_numpy(np.array(mask)).long()


def unlabelled_sample(
    image_path: Path,
    mask_path: Path,
    geometry: Geometry,
    strong: tuple[Photometry, Photometry],
    boxes: tuple[Box, Box],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Weak view, two strong views, ignored pixels (255 on padding), two box maps."""
    image, mask = _opened(image_path, mask_path)
    image, mask = _weak(image, mask, geometry, fill=PADDED)
    weak, first, second = deepcopy(image), deepcopy(image), deepcopy(image)
    first, second = _strong(first, strong[0]), _strong(second, strong[1])
    maps = [_box_map(box, geometry.crop) for box in boxes]
    ignored = Image.fromarray(np.zeros((mask.size[1], mask.size[0])))
    views = [normalised(view) for view in (weak, first, second)]
    marks = torch.from_numpy(np.array(mask)).long()
    ignore = torch.from_numpy(np.array(ignored)).long()
    ignore[marks == PADDED] = 255
    return views[0], views[1], views[2], ignore, maps[0], maps[1]


def normalised(image: Image.Image) -> Tensor:
    """ToTensor and Normalize."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    scaled = pixels.to(torch.float32).div(255)
    return scaled.sub_(torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(STD)[:, None, None])


def _opened(image_path: Path, mask_path: Path) -> tuple[Image.Image, Image.Image]:
    image = Image.open(image_path).convert("RGB")
    return image, Image.fromarray(np.array(Image.open(mask_path)))


def _weak(
    image: Image.Image, mask: Image.Image, geometry: Geometry, *, fill: int
) -> tuple[Image.Image, Image.Image]:
    """Resize, pad right and below, crop, mirror."""
    size, crop = (geometry.width, geometry.height), geometry.crop
    image = image.resize(size, Image.Resampling.BILINEAR)
    mask = mask.resize(size, Image.Resampling.NEAREST)
    border = (0, 0, max(crop - size[0], 0), max(crop - size[1], 0))
    image = ImageOps.expand(image, border=border, fill=0)
    mask = ImageOps.expand(mask, border=border, fill=fill)
    box = (geometry.left, geometry.top, geometry.left + crop, geometry.top + crop)
    image, mask = image.crop(box), mask.crop(box)
    if geometry.is_flipped:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image, mask


def _strong(image: Image.Image, drawn: Photometry) -> Image.Image:
    """Jitter, grayscale, blur, as torchvision has them for PIL images."""
    if drawn.is_jittered:
        for operation in drawn.order:
            if operation == 0:
                image = ImageEnhance.Brightness(image).enhance(drawn.brightness)
            elif operation == 1:
                image = ImageEnhance.Contrast(image).enhance(drawn.contrast)
            elif operation == 2:
                image = ImageEnhance.Color(image).enhance(drawn.saturation)
            else:
                image = _hue(image, drawn.hue)
    if drawn.is_grey:
        image = _grey(image)
    if drawn.is_blurred:
        image = image.filter(ImageFilter.GaussianBlur(radius=drawn.blur))
    return image


def _hue(image: Image.Image, turns: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    angles = np.array(hue, dtype=np.uint8)
    angles += np.array(int(turns * 255)).astype(np.uint8)  # wraps
    turned = Image.fromarray(angles, "L")
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    values = np.array(image.convert("L"), dtype=np.uint8)
    return Image.fromarray(np.dstack([values, values, values]), "RGB")


def _box_map(box: Box, crop: int) -> Tensor:
    inside = torch.zeros(crop, crop)
    inside[box.top : box.top + box.height, box.left : box.left + box.width] = 1
    return inside
