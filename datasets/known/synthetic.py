"""Scenes that this program draws: their classes, their splits, the folder they go to."""

import re
from dataclasses import replace

from datasets.config import SyntheticConfig
from datasets.known.interface import KnownDataset
from datasets.spec import DatasetSpec, voc_colour

SYNTHETIC_VERSION = 1  # of the drawn scenes; raise it when a change moves their pixels

SHAPES = ("disc", "box", "triangle", "ring", "cross", "diamond", "crescent", "bar")
TEXTURES = ("striped", "checked", "dotted", "speckled", "blotched", "latticed")
MAX_DRAWN_CLASSES = 1 + len(SHAPES) * len(TEXTURES)

DRAWN_SPLITS = {"1of16": 16, "1of8": 8, "1of4": 4, "1of2": 2, "full": 1}
_COUNTED = re.compile(r"n(\d+)")


def drawn_parts(label: int) -> tuple[int, int]:
    """Indices into `SHAPES` and `TEXTURES` of a drawn class (1 or more); no two classes agree."""
    turn, shape = divmod(label - 1, len(SHAPES))
    return shape, (shape + turn) % len(TEXTURES)


def scene_ids(drawing: SyntheticConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids of the drawn training and validation scenes."""
    names = [f"scene_{index:05d}" for index in range(drawing.num_train + drawing.num_val)]
    return tuple(names[: drawing.num_train]), tuple(names[drawing.num_train :])


def num_labelled(split: str, num_train: int) -> int | None:
    """How many scenes a split labels: a fraction of `DRAWN_SPLITS`, or 12 for n12.

    Returns:
        The number, rounded up as in the published lists; None when no split is called so.
    """
    counted = _COUNTED.fullmatch(split)
    if counted:
        return int(counted.group(1))
    return -(-num_train // DRAWN_SPLITS[split]) if split in DRAWN_SPLITS else None


def drawn_spec(drawing: SyntheticConfig) -> DatasetSpec:
    """The spec of scenes with the configured number of classes.

    Raises:
        ValueError: so many classes cannot be drawn.
    """
    count = drawing.num_classes
    if not 2 <= count <= MAX_DRAWN_CLASSES:
        raise ValueError(
            f"data.drawn.num_classes is {count}; between 2 and {MAX_DRAWN_CLASSES} can be drawn."
        )
    return replace(_SPEC, class_names=_SPEC.class_names[:count], palette=_SPEC.palette[:count])


def _draw_folder(drawing: SyntheticConfig) -> str:
    counts = f"{drawing.num_train}+{drawing.num_val}"
    name = f"{counts}-{drawing.width}x{drawing.height}-c{drawing.num_classes}-s{drawing.seed}"
    return f"{name}-v{SYNTHETIC_VERSION}"


def _drawn_name(label: int) -> str:
    if label == 0:
        return "background"
    shape, texture = drawn_parts(label)
    return f"{TEXTURES[texture]} {SHAPES[shape]}"


_SPEC = DatasetSpec(
    name="synthetic",
    class_names=tuple(_drawn_name(label) for label in range(MAX_DRAWN_CLASSES)),
    palette=tuple(voc_colour(label) for label in range(MAX_DRAWN_CLASSES)),
    image_pattern="JPEGImages/{id}.jpg",
    mask_pattern="SegmentationClass/{id}.png",
    kind="drawn",
    validation_list="ImageSets/Segmentation/val.txt",
)
SYNTHETIC = KnownDataset(spec=_SPEC, draw_spec=drawn_spec, draw_folder=_draw_folder)
