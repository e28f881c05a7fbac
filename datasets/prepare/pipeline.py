"""Bringing a dataset into place: from what users have, or in their own folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.catalog import DatasetSpec
from datasets.config import DataConfig
from datasets.dataset import missing_files, opened_tree
from datasets.errors import DataError
from datasets.images.tree import nearby
from datasets.location import data_root, spec_of
from datasets.manifest import read_manifest
from datasets.prepare.archives import is_archive, remove_unpacked, unpacked
from datasets.prepare.assemble import assemble
from datasets.prepare.copy import How, copy_into_place
from datasets.prepare.verify import defects
from datasets.splits.generate import SUFFIXES, hold_out, image_ids, make_lists, masked_ids
from datasets.splits.lists import Split, load_split, present_splits
from datasets.splits.published import list_defects


def unlisted(spec: DatasetSpec, root: Path, split: Split) -> list[str]:
    """One line for each reason why pictures are left out.

    Args:
        spec: of the folder.
        root: of the folder.
        split: that all images should be in.
    """
    images, notes = image_ids(spec, root), []
    listed = {*split.labelled, *split.unlabelled, *split.validation}
    late = [name for name in images if name not in listed]
    if late:
        notes.append(
            f"note: {len(late)} images are in no list of the split {split.name!r}, the first is "
            f"{spec.image_file(late[0])}; remove {root / 'splits' / split.name} and prepare again "
            "to take them in"
        )
    before = spec.image_pattern.split("{id}")[0]
    folder = before.rpartition("/")[0]
    known = {spec.image_file(name) for name in images}
    known |= {spec.mask_file(name) for name in masked_ids(spec, root)}
    others = sorted(_pictures(root, root / folder) - known)
    if others:
        notes.append(
            f"note: {len(others)} pictures are not used, since no pattern of dataset.yaml takes "
            f"them; the first is {others[0]}. Rename them, or write `images: {before}{{id}}`, "
            "which takes all of .jpg, .png, ..."
        )
    return notes


def _pictures(root: Path, folder: Path) -> set[str]:
    """Paths below the root of what looks like pictures in a folder."""
    paths = (path.relative_to(root).as_posix() for path in folder.rglob("*") if path.is_file())
    return {path for path in paths if path.lower().endswith(SUFFIXES) and "/." not in f"/{path}"}


def missing_parts(config: DataConfig) -> list[str]:
    """What a real dataset still lacks at its root, by names alone; empty when it is complete."""
    present = present_splits(config)
    if not present:
        lists = list_defects(config)
        if read_manifest(data_root(config)) is None:
            return [f"{data_root(config)}: no images and masks were brought yet", *lists]
        return lists
    tree, parts = opened_tree(config), []
    for name in present:
        absent = missing_files(tree, load_split(replace(config, split=name)))
        if absent:
            parts.append(f"{len(absent)} files of split {name}, the first is {absent[0]}")
    return parts


def guidance(spec: DatasetSpec, root: Path) -> str:
    """Which files of a real dataset go where."""
    return _GUIDANCE[spec.name].format(root=root)


_GUIDANCE = {
    "voc": """PASCAL VOC 2012 with the masks of SBD: 10582 training images, 1449 for validation.
1. Download both archives, or have them downloaded (3.4 GB in all; a cut download goes on):
     http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar
     https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz
     python -m datasets download voc to=DIR
2. python -m datasets prepare voc DIR/VOCtrainval_11-May-2012.tar DIR/benchmark.tgz root={root}
   Unpacked folders (VOCdevkit, benchmark_RELEASE) will do, and so will the pre-processed
   JPEGImages and SegmentationClass of the UniMatch repository's README.
3. python -m datasets splits fetch dataset=voc root={root}
What lies at the root then: JPEGImages/ID.jpg, SegmentationClass/ID.png, splits/.""",
    "cityscapes": """Cityscapes: 2975 training images, 500 for validation. Its licence is
personal, so nobody may hand it on:
1. Register at https://www.cityscapes-dataset.com/register/ and download
     leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 MB)
2. python -m datasets prepare cityscapes DIR/leftImg8bit_trainvaltest.zip \\
     DIR/gtFine_trainvaltest.zip root={root}
   Unpacked folders will do, with labelIds or with labelTrainIds.
3. python -m datasets splits fetch dataset=cityscapes root={root}
What lies at the root then: leftImg8bit/train/CITY/ID_leftImg8bit.png,
gtFine/train/CITY/ID_gtFine_labelTrainIds.png, the same for val/, and splits/.""",
}


Say = Callable[[str], None]
ALL = "all"  # the split of a folder of one's own in which every mask is used


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How `prepare` shall work.

    Attributes:
        how: copy files, or link them.
        partial: whether less than the whole dataset will do.
    """

    how: How = "copy"
    partial: bool = False


def prepare_published(
    config: DataConfig, sources: Sequence[Path], wish: PrepareOptions, say: Say
) -> list[str]:
    """Bring VOC or Cityscapes from where it was unpacked to the root.

    Args:
        config: dataset and root.
        sources: folders, or archives.
        wish: how.
        say: given lines for people.

    Returns:
        Defects by file; what they concern was not brought.

    Raises:
        DataError: a source is no such dataset, parts are missing, or the root holds other things.
    """
    spec, root = spec_of(config), data_root(config)
    _check_apart(sources, root)
    folders = [unpacked(path, root, say) if is_archive(path) else path for path in sources]
    assembly = assemble(spec, folders, root)
    say(f"{spec.name}: {assembly.summary}")
    if assembly.lacks and not wish.partial:
        shown = "\n  ".join(assembly.lacks[:8])
        more = f"\n  and {len(assembly.lacks) - 8} more" if len(assembly.lacks) > 8 else ""
        raise DataError(
            f"The sources are not complete, so nothing was brought:\n  {shown}{more}\n"
            "Add what is missing as another source, or take what is there with counts=any."
        )
    outcome = copy_into_place(assembly, spec, root, how=wish.how, say=say)
    if not outcome.defects and wish.how == "copy":
        remove_unpacked(root)
    say(f"{outcome.num_brought} pairs brought, {outcome.num_found} were there already")
    return outcome.defects


def prepare_folder(config: DataConfig, *, validation: str, seed: int, say: Say) -> list[str]:
    """Prove somebody's own folder, and make its validation list and the split `all`.

    Args:
        config: root.
        validation: part of the images with masks that is held out, 1of5 or n60.
        seed: of that choice.
        say: given lines for people.

    Returns:
        Defects by file; without any the folder has its manifest afterwards.

    Raises:
        DataError: the description is missing or wrong, or there are no images or masks.
    """
    spec, root = spec_of(config), data_root(config)
    images, masks = image_ids(spec, root), masked_ids(spec, root)
    if not images:
        raise DataError(
            f"{root} has no image {spec.image_file('*')}. Correct `images` in dataset.yaml, or put "
            "them there."
        )
    lone = sorted(set(masks) - set(images))
    found = [
        f"{root / spec.mask_file(name)} has no image {spec.image_file(name)}. "
        f"{nearby(root / spec.image_file(name)) or 'Put it there, or remove the mask.'}"
        for name in lone
    ]
    found += _shared_masks(spec, root, images)
    if found:
        return found
    num_held = hold_out(config, part=validation, seed=seed)
    if not (root / "splits" / ALL).is_dir():
        make_lists(config, part=ALL, seed=seed, name=ALL)
    split = load_split(replace(config, split=ALL))
    say(
        f"folder: {len(spec.class_names)} classes, {len(split.labelled)} labelled images, "
        f"{len(split.unlabelled)} unlabelled, {num_held} for validation"
    )
    for note in unlisted(spec, root, split):
        say(note)
    return list(defects(config, say))


def _shared_masks(spec: DatasetSpec, root: Path, images: Sequence[str]) -> list[str]:
    """Masks whose pattern names no extension, where images differ in nothing else."""
    claims: dict[str, list[str]] = {}
    for name in images:
        claims.setdefault(spec.mask_file(name), []).append(spec.image_file(name))
    return [
        f"{root / mask} would be the mask of {' and '.join(claimed)}. Rename or remove all but one."
        for mask, claimed in claims.items()
        if len(claimed) > 1 and (root / mask).is_file()
    ]


def _check_apart(sources: Sequence[Path], root: Path) -> None:
    """The root must be no part of a source: nothing there is ours."""
    place = root.resolve()
    for source in sources:
        inside = source.resolve()
        if place == inside or inside in place.parents:
            raise DataError(
                f"The root {root} lies in the source {source}, where nothing may be changed. Give "
                "another folder with root=DIR (how=link needs no space on the same disk)."
            )
