"""Cityscapes: 2,975 training images, 500 for validation, 19 classes of its 34 labels."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.known.assembly import (
    Assembly,
    Convert,
    complete_pairs,
    files_of,
    folders_below,
    miscounts,
    nothing_found,
)
from datasets.known.interface import KnownDataset
from datasets.spec import IGNORED, DatasetSpec
from datasets.wording import quantity

_CLASSES = (
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("pole", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
)
# Cityscapes' labels.py: the label id of every train id; all other labels are ignored.
_TRAIN_LABELS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_NUM_LABELS = 34
_NUM_IMAGES = {"train": 2975, "val": 500}
_HINT = "unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip again, both complete"
_GUIDANCE = """Cityscapes: 2975 training images, 500 for validation. Its licence is
personal, so nobody may hand it on:
1. Register at https://www.cityscapes-dataset.com/register/ and download
     leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 MB)
2. python -m datasets prepare cityscapes DIR/leftImg8bit_trainvaltest.zip \\
     DIR/gtFine_trainvaltest.zip root={root}
   Unpacked folders will do, with labelIds or with labelTrainIds.
3. python -m datasets splits fetch dataset=cityscapes root={root}
What lies at the root then: leftImg8bit/train/CITY/ID_leftImg8bit.png,
gtFine/train/CITY/ID_gtFine_labelTrainIds.png, the same for val/, and splits/."""


def _assemble(spec: DatasetSpec, sources: Sequence[Path], root: Path) -> Assembly:
    """Plan the tree: masks of train ids as they are, or converted from label ids.

    Raises:
        DataError: nothing of Cityscapes is there.
    """
    del spec, root
    image_folders, mask_folders = _parts(sources)
    images = files_of(image_folders, "_leftImg8bit.png")
    labels = files_of(mask_folders, "_gtFine_labelIds.png")
    train_ids = files_of(mask_folders, "_gtFine_labelTrainIds.png")
    masks: dict[str, tuple[Path, Convert | None]] = {}
    masks |= {name: (path, train_id_mask) for name, path in labels.items()}
    masks |= {name: (path, None) for name, path in train_ids.items()}
    kept = sorted(name for name in {*images, *masks} if name.startswith(("train/", "val/")))
    pairs, lacks = complete_pairs(kept, images, masks)
    counts = Counter(name.split("/")[0] for name in kept)
    lacks += miscounts(counts, _NUM_IMAGES, dict.fromkeys(_NUM_IMAGES, _HINT))
    num_made = sum(pair.convert is not None for pair in pairs)
    summary = (
        f"{quantity(counts['train'], 'training image')}, {counts['val']} for validation; train "
        f"ids of {quantity(len(pairs) - num_made, 'mask')} there, {num_made} made from label ids"
    )
    return Assembly(pairs, {}, summary, lacks)


def _parts(sources: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Folders `leftImg8bit` and folders `gtFine` below the sources."""
    images: list[Path] = []
    masks: list[Path] = []
    for folder, names in folders_below(sources):
        inside = [name for name in ("leftImg8bit", "gtFine") if name in names]
        for name, kind in (("leftImg8bit", images), ("gtFine", masks)):
            if folder.name == name:  # the source is that folder itself
                kind.append(folder)
                names.clear()
            elif name in inside:
                kind.append(folder / name)
                names.remove(name)
    if not images and not masks:
        raise nothing_found(sources, "Cityscapes: neither leftImg8bit nor gtFine")
    return images, masks


def train_id_mask(data: bytes, path: str) -> NDArray[np.uint8]:
    """Train ids (H, W) from a file of label ids.

    Args:
        data: the file's bytes.
        path: of the file, for errors.

    Raises:
        DataError: it cannot be decoded, or holds an unknown label.
    """
    from datasets.images.decode import MaskCode, read_mask  # Pillow, which planning does without

    labels = np.asarray(read_mask(data, path, MaskCode(tuple(range(_NUM_LABELS)))))
    table = np.full(256, IGNORED, dtype=np.uint8)
    table[list(_TRAIN_LABELS)] = np.arange(len(_TRAIN_LABELS))
    train_ids: NDArray[np.uint8] = table[labels]
    return train_ids


CITYSCAPES = KnownDataset(
    spec=DatasetSpec(
        name="cityscapes",
        class_names=tuple(name for name, _ in _CLASSES),
        palette=tuple(colour for _, colour in _CLASSES),
        image_pattern="leftImg8bit/{id}_leftImg8bit.png",
        mask_pattern="gtFine/{id}_gtFine_labelTrainIds.png",
        validation_prefix="val/",
        held_out=("val/", "test/"),
    ),
    guidance=_GUIDANCE,
    archive_members=(
        r"leftImg8bit/(train|val)/.+_leftImg8bit\.png"
        r"|gtFine/(train|val)/.+_gtFine_label(Train)?Ids\.png"
    ),
    assemble=_assemble,
)
