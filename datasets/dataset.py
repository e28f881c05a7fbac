"""Opening a dataset: its images and masks, its split, and the fingerprint of its bytes."""

from dataclasses import dataclass

from PIL import Image

from datasets.config import DataConfig
from datasets.errors import DataError
from datasets.identity import DataIdentity, identity_at
from datasets.images.predicted import PredictedMasks
from datasets.images.tree import ImageTree, tree_of
from datasets.location import DatasetLocation, locate
from datasets.shards.download_cache import ItemCache
from datasets.shards.reader import Shards, is_packed
from datasets.spec import IGNORED, DatasetSpec
from datasets.splits.lists import Split, load_split
from datasets.storage.open import open_storage
from datasets.synthetic.draw import ensure_drawn
from datasets.wording import quantity


@dataclass(frozen=True)
class Dataset:
    """Everything a run needs of its data.

    Attributes:
        spec: classes and colours.
        tree: reads images and masks by id.
        split: labelled, unlabelled and validation ids.
        num_classes: background included.
        identity: which files these are.
        predicted: masks of unlabelled images that a training takes as labels; None but in
            self-training.
    """

    spec: DatasetSpec
    tree: ImageTree
    split: Split
    num_classes: int
    identity: DataIdentity
    predicted: PredictedMasks | None = None

    @property
    def fingerprint(self) -> str:
        """sha256 of the bytes of the images and masks, see `datasets.identity`."""
        return self.identity.fingerprint


def open_dataset(config: DataConfig) -> Dataset:
    """Open the configured dataset; drawn scenes are drawn when they are not there yet.

    All ranks may call it at once. Masks of unlabelled images need not exist.

    Raises:
        ValueError: unknown dataset or split.
        DataError: files are missing, the root holds something else, or no validation mask has a
            pixel that counts.
    """
    location = locate(config)
    split = load_split(location, config.split)
    if location.drawing is not None:
        ensure_drawn(location.root, location.drawing)
    tree = open_tree(location)
    _check_files(tree, split)
    _check_scored(tree, split)
    identity = identity_at(location, split)
    identity.remember()
    return Dataset(location.spec, tree, split, len(location.spec.class_names), identity)


def check_unchanged(dataset: Dataset) -> None:
    """Look whether the images and masks are still those that were opened.

    Raises:
        DataError: some were replaced.
    """
    if dataset.tree.store is not None:
        return  # each item of a shard is proved when it is read
    changed = dataset.identity.changed_files(dataset.tree.root)
    if changed:
        raise DataError(
            f"{quantity(len(changed), 'file')} below {dataset.tree.root} changed while the run "
            f"read them, the first is {changed[0]}. Bring them back as they were and start it "
            "again: it goes on from its newest checkpoint, which is from before. Or remove the "
            "run's folder to train from step 0 on the data of today."
        )


def open_tree(location: DatasetLocation) -> ImageTree:
    """The tree at a location, of files or of shards; nothing else is checked."""
    root, store = location.root, None
    if location.url:
        cache = ItemCache(location.cache / "items", location.cache_bytes)
        store = Shards(root, open_storage(location.url), cache)
    elif is_packed(root):
        store = Shards(root, open_storage(str(root)), None)
    return tree_of(location.spec, root, store)


def missing_files(tree: ImageTree, split: Split) -> list[str]:
    """Paths below the root that a run on this split reads and that are not there."""
    with_mask = [*split.labelled, *split.validation]
    images = [*with_mask, *split.unlabelled]
    if tree.store is not None:
        absent = [tree.image_path(name) for name in images if not tree.has_image(name)]
        absent += [tree.mask_path(name) for name in with_mask if not tree.has_mask(name)]
        return [path.relative_to(tree.root).as_posix() for path in absent]
    paths = [tree.image_path(name) for name in images]
    paths += [tree.mask_path(name) for name in with_mask]
    # One listing per folder, because ten thousand calls of exists() are slow on a network disk.
    present = {
        folder: {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        for folder in {path.parent for path in paths}
    }
    absent = [path for path in paths if path.name not in present[path.parent]]
    return [path.relative_to(tree.root).as_posix() for path in absent]


def _check_files(tree: ImageTree, split: Split) -> None:
    absent = missing_files(tree, split)
    if absent:
        raise DataError(
            f"{tree.root} lacks {quantity(len(absent), 'file')} of split {split.name!r}, the "
            f"first is {absent[0]}. Put them there, or give the right folder with data.root=DIR; "
            "`python -m datasets verify` lists them all."
        )


def _check_scored(tree: ImageTree, split: Split) -> None:
    """Raise if every pixel of the validation masks is ignored; one mask is read where all is well.

    The mIoU of such a set would be 0 whatever a network predicts.
    """
    for name in split.validation:
        if shown_classes(tree.mask(name)):
            return
    raise DataError(nothing_scored(tree, len(split.validation), split.validation[0]))


def shown_classes(mask: Image.Image) -> list[int]:
    """The classes of a mask of class indices; empty where every pixel is ignored."""
    counts = mask.histogram()
    return [label for label in range(IGNORED) if counts[label]]


def nothing_scored(tree: ImageTree, num_masks: int, first: str) -> str:
    """Says that validation masks show no class, and what to do.

    Args:
        tree: of the masks.
        num_masks: number of validation masks.
        first: id of one of them.
    """
    return (
        f"{tree.root}: every pixel of the {quantity(num_masks, 'validation mask')} is ignored, "
        f"so there is nothing to score; the first is {tree.mask_path(first)}. Make these masks "
        "again, or list other images in splits/val.txt; of your own folder, look at `ignore` in "
        "dataset.yaml."
    )
