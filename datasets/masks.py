"""Masks made of what others published: SBD's `.mat`, Cityscapes' label ids."""

import numpy as np
from PIL import Image

from datasets.assembly import Pair
from datasets.catalog import IGNORED, DatasetSpec
from datasets.formats import MaskCode, read_mask
from datasets.indexed_png import indexed_png
from datasets.matlab import sbd_mask

# Cityscapes' labels.py: the label id of every train id; all other labels are ignored.
TRAIN_LABELS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_NUM_LABELS = 34


def made_mask(data: bytes, pair: Pair, spec: DatasetSpec) -> bytes:
    """The mask file of a pair.

    Args:
        data: the bytes of its source.
        pair: says how it is made.
        spec: whose palette a new file gets.

    Raises:
        DataError: the source is broken, or its values are unknown.
    """
    if pair.making == "as_it_is":
        return data
    if pair.making == "sbd":
        return indexed_png(Image.fromarray(sbd_mask(data, str(pair.mask))), spec)
    labels = np.asarray(read_mask(data, str(pair.mask), _LABELS))
    table = np.full(256, IGNORED, dtype=np.uint8)
    table[list(TRAIN_LABELS)] = np.arange(len(TRAIN_LABELS))
    return indexed_png(Image.fromarray(table[labels]), spec)


_LABELS = MaskCode(tuple(range(_NUM_LABELS)))
