"""The known datasets by name; another one is a file here, a line below, and its `sweeps/recipe`."""

from datasets.known import cityscapes, earth, folder, pascal_voc, synthetic
from datasets.known.interface import KnownDataset
from datasets.wording import did_you_mean

KNOWN: dict[str, KnownDataset] = {
    "folder": folder.FOLDER,
    "synthetic": synthetic.SYNTHETIC,
    "earth": earth.EARTH,
    "voc": pascal_voc.PASCAL_VOC,
    "cityscapes": cityscapes.CITYSCAPES,
}


def known_dataset(name: str) -> KnownDataset:
    """What is known about a dataset.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in KNOWN:
        near = did_you_mean(name, KNOWN)
        raise ValueError(f"Unknown dataset {name!r}; known: {', '.join(sorted(KNOWN))}.{near}")
    return KNOWN[name]
