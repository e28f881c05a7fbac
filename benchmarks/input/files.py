"""Files like those of VOC and Cityscapes in size and weight, made up."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.images.tree import ImageTree


@dataclass(frozen=True)
class Kind:
    """One sort of files.

    Attributes:
        name: for the table.
        size: width and height, pixels.
        suffix: of the images.
        noise: standard deviation of the grain, which sets the weight of a file.
        num_classes: in the masks.
        crop: side of a training crop, pixels.
        count: images.
    """

    name: str
    size: tuple[int, int]
    suffix: str
    noise: float
    num_classes: int
    crop: int
    count: int


VOC = Kind("VOC 321", (500, 375), "jpg", 13.0, 21, 321, 16)
CITYSCAPES = Kind("Cityscapes 801", (2048, 1024), "png", 0.7, 19, 801, 3)


def written(kind: Kind, folder: Path) -> tuple[ImageTree, list[str]]:
    """The files of a kind below a folder, and their ids; every fourth VOC image is upright."""
    (folder / "masks").mkdir(parents=True)
    (folder / "images").mkdir()
    names = [f"scene{index}" for index in range(kind.count)]
    for index, name in enumerate(names):
        width, height = kind.size
        if kind.suffix == "jpg" and index % 4 == 3:
            width, height = height, width
        pixels, classes = _scene(np.random.default_rng(index), width, height, kind)
        path = folder / "images" / f"{name}.{kind.suffix}"
        Image.fromarray(pixels).save(path, quality=90)
        Image.fromarray(classes).save(folder / "masks" / f"{name}.png")
    pattern = f"images/{{id}}.{kind.suffix}"
    return ImageTree(folder, pattern, "masks/{id}.png", kind.num_classes), names


def mean_bytes(tree: ImageTree, names: list[str]) -> float:
    """Mean weight of an image file."""
    return float(np.mean([tree.image_path(name).stat().st_size for name in names]))


def _scene(
    random: np.random.Generator, width: int, height: int, kind: Kind
) -> tuple[np.ndarray, np.ndarray]:
    """Cloudy colours of all scales, a few flat regions, grain."""
    pixels = np.full((height, width, 3), 128.0)
    for scale in (4, 8, 16, 32, 64, 128):
        coarse = random.normal(size=(height // scale + 2, width // scale + 2, 3))
        for channel in range(3):
            cloud = Image.fromarray(coarse[..., channel].astype(np.float32))
            cloud = cloud.resize((width, height), Image.Resampling.BICUBIC)
            pixels[..., channel] += np.asarray(cloud) * (3.0 * scale**0.45)
    classes = np.zeros((height, width), np.uint8)
    for _ in range(12):
        top, left = random.integers(0, height), random.integers(0, width)
        bottom, right = top + height // 3, left + width // 4
        classes[top:bottom, left:right] = random.integers(0, kind.num_classes)
        pixels[top:bottom, left:right] += random.uniform(-60, 60, size=3)
    pixels += random.normal(scale=kind.noise, size=(height, width, 1))
    return np.clip(pixels, 0, 255).astype(np.uint8), classes
