"""Which file of which source becomes which file of a tree: the plan, before anything is written."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from datasets.catalog import DatasetSpec
from datasets.errors import DataError
from datasets.splits.lists import parse_lines, read_lines

_DEPTH = 5  # folders below a source that are looked into


@dataclass(frozen=True)
class VocParts:
    """What the sources hold of VOC, by kind.

    Attributes:
        images: folders `JPEGImages` (and SBD's `img`), the better ones first.
        own_masks: `SegmentationClass` of a VOCdevkit: VOC's own masks.
        sbd: folders with SBD's `cls`.
        merged_masks: masks that somebody merged already, as for UniMatch.
        lists: `ImageSets/Segmentation` of a VOCdevkit.
    """

    images: list[Path] = field(default_factory=list)
    own_masks: list[Path] = field(default_factory=list)
    sbd: list[Path] = field(default_factory=list)
    merged_masks: list[Path] = field(default_factory=list)
    lists: list[Path] = field(default_factory=list)


def voc_parts(sources: Sequence[Path]) -> VocParts:
    """Look for VOCdevkit, SBD and pre-processed trees.

    Raises:
        DataError: a source does not exist, or none holds anything of VOC.
    """
    parts = VocParts()
    for folder, names in _folders(sources):
        if "JPEGImages" in names or any(name.startswith("SegmentationClass") for name in names):
            _add_voc(parts, folder, names)
            names.clear()  # nothing to look for below
        elif "cls" in names:
            parts.sbd.append(folder)
            names.clear()
    parts.images.extend(folder / "img" for folder in parts.sbd if (folder / "img").is_dir())
    if not (parts.own_masks or parts.sbd or parts.merged_masks or parts.images):
        raise _nothing(
            sources,
            "VOC: neither JPEGImages nor SegmentationClass (VOCdevkit/VOC2012), "
            "nor cls (benchmark_RELEASE/dataset of SBD)",
        )
    return parts


def cityscapes_parts(sources: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Folders `leftImg8bit` and folders `gtFine` below the sources.

    Raises:
        DataError: a source does not exist, or none holds anything of Cityscapes.
    """
    images: list[Path] = []
    masks: list[Path] = []
    for folder, names in _folders(sources):
        found = [name for name in ("leftImg8bit", "gtFine") if name in names]
        for name, kind in (("leftImg8bit", images), ("gtFine", masks)):
            if folder.name == name:  # the source is that folder itself
                kind.append(folder)
                names.clear()
            elif name in found:
                kind.append(folder / name)
                names.remove(name)
    if not images and not masks:
        raise _nothing(sources, "Cityscapes: neither leftImg8bit nor gtFine")
    return images, masks


def files_of(folder: Path, suffix: str) -> dict[str, Path]:
    """Files below a folder by their path without suffix, sorted."""
    found = sorted(Path(folder).rglob(f"*{suffix}"))
    return {path.relative_to(folder).as_posix().removesuffix(suffix): path for path in found}


def _add_voc(parts: VocParts, folder: Path, names: list[str]) -> None:
    if "JPEGImages" in names:
        parts.images.insert(0, folder / "JPEGImages")
    lists = folder / "ImageSets/Segmentation"
    has_lists = (lists / "val.txt").is_file()
    if has_lists:
        parts.lists.append(lists)
    for name in sorted(names):
        if name == "SegmentationClass" and has_lists:
            parts.own_masks.append(folder / name)
        elif name.startswith("SegmentationClass") and "Raw" not in name:
            parts.merged_masks.append(folder / name)


def _folders(sources: Sequence[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Every folder with the names of its subfolders; names removed from the list are not entered.

    Raises:
        DataError: a source does not exist, or is no folder.
    """
    for source in sources:
        if not source.is_dir():
            state = "is no folder and no archive" if source.exists() else "does not exist"
            raise DataError(
                f"The source {source} {state}. Give the folder into which the dataset was "
                "unpacked, or the archive itself (.tar, .tgz, .zip)."
            )
        for folder, names, _ in os.walk(source):
            depth = len(Path(folder).relative_to(source).parts)
            names.sort()
            yield Path(folder), names
            if depth >= _DEPTH:
                names.clear()


def _nothing(sources: Sequence[Path], what: str) -> DataError:
    places = ", ".join(map(str, sources))
    return DataError(f"Below {places} lies nothing of {what}. Check the path of the source.")


Making = Literal["as_it_is", "sbd", "train_ids"]
VOC_COUNTS = {"train": 10582, "val": 1449}
CITYSCAPES_COUNTS = {"train": 2975, "val": 500}


@dataclass(frozen=True)
class ImageMaskPair:
    """One image and its mask, to be brought.

    Attributes:
        name: id.
        image: source of the image.
        mask: source of the mask.
        making: how the mask is made of its source.
    """

    name: str
    image: Path
    mask: Path
    making: Making


@dataclass(frozen=True)
class Assembly:
    """All there is to bring.

    Attributes:
        pairs: sorted by id.
        lists: ids by list file below the root.
        summary: what comes from where, for people.
        lacks: what a complete dataset would have besides.
    """

    pairs: tuple[ImageMaskPair, ...]
    lists: dict[str, list[str]]
    summary: str
    lacks: list[str]


def assemble(spec: DatasetSpec, sources: Sequence[Path], root: Path) -> Assembly:
    """Plan a dataset out of what the sources hold.

    Raises:
        DataError: nothing of it is there, or no list says which images are for validation.
    """
    return _ASSEMBLE[spec.name](spec, sources, root)


def _voc(spec: DatasetSpec, sources: Sequence[Path], root: Path) -> Assembly:
    """VOC's own masks where it has them, then SBD's, then merged ones (Hariharan et al. 2011)."""
    parts = voc_parts(sources)
    images = _merged([files_of(folder, ".jpg") for folder in parts.images])
    own = _merged([files_of(folder, ".png") for folder in parts.own_masks])
    sbd = _merged([files_of(folder / "cls", ".mat") for folder in parts.sbd])
    merged = _merged([files_of(folder, ".png") for folder in parts.merged_masks])
    validation = _voc_validation(spec, parts.lists, root)
    train = [name for folder in parts.lists for name in read_lines(folder / "train.txt")]
    wanted = {*train, *own, *sbd, *merged} - set(validation)
    masks: dict[str, tuple[Path, Making]] = {}
    for files, making in ((own, "as_it_is"), (sbd, "sbd"), (merged, "as_it_is")):
        for name, path in files.items():
            masks.setdefault(name, (path, making))  # type: ignore[arg-type]  # of a literal tuple
    training = sorted(wanted)
    pairs, lacks = _pairs([*training, *validation], images, masks)
    lacks += _miscounts({"train": len(training), "val": len(validation)}, VOC_COUNTS, _VOC_HINTS)
    origins = Counter(
        "VOC" if name in own else "SBD" if name in sbd else "a merged set" for name in wanted
    )
    told = ", ".join(f"{count} masks of {origin}" for origin, count in sorted(origins.items()))
    lists = {
        "ImageSets/Segmentation/trainaug.txt": training,
        "ImageSets/Segmentation/val.txt": validation,
    }
    summary = f"{len(training)} training images ({told}), {len(validation)} for validation"
    return Assembly(pairs, lists, summary, lacks)


def _voc_validation(spec: DatasetSpec, lists: Sequence[Path], root: Path) -> list[str]:
    if lists:
        return read_lines(lists[0] / "val.txt")
    path = root / "splits/val.txt"
    if path.is_file():
        return parse_lines(spec, read_lines(path), where=str(path))
    raise DataError(
        "Nothing says which images are for validation: no source has ImageSets/Segmentation/"
        f"val.txt. Bring the published list first (python -m datasets splits fetch dataset=voc "
        f"root={root}), or give VOCdevkit as a source, too."
    )


def _cityscapes(spec: DatasetSpec, sources: Sequence[Path], root: Path) -> Assembly:
    """Train ids where somebody made them, else made from label ids."""
    del spec, root
    image_folders, mask_folders = cityscapes_parts(sources)
    images = _merged([files_of(folder, "_leftImg8bit.png") for folder in image_folders])
    ready = _merged([files_of(folder, "_gtFine_labelTrainIds.png") for folder in mask_folders])
    labels = _merged([files_of(folder, "_gtFine_labelIds.png") for folder in mask_folders])
    masks: dict[str, tuple[Path, Making]] = {
        name: (path, "as_it_is") for name, path in ready.items()
    }
    for name, path in labels.items():
        masks.setdefault(name, (path, "train_ids"))
    kept = sorted(name for name in {*images, *masks} if name.startswith(("train/", "val/")))
    pairs, lacks = _pairs(kept, images, masks)
    counts = Counter(name.split("/")[0] for name in kept)
    lacks += _miscounts(counts, CITYSCAPES_COUNTS, _CITYSCAPES_HINTS)
    made = sum(pair.making == "train_ids" for pair in pairs)
    summary = (
        f"{counts['train']} training images, {counts['val']} for validation; train ids of "
        f"{len(pairs) - made} masks are there, {made} are made from label ids"
    )
    return Assembly(pairs, {}, summary, lacks)


def _merged(found: Sequence[dict[str, Path]]) -> dict[str, Path]:
    """One dict of several; the first that has an id wins."""
    merged: dict[str, Path] = {}
    for files in reversed(found):
        merged.update(files)
    return merged


def _pairs(
    wanted: Sequence[str], images: dict[str, Path], masks: dict[str, tuple[Path, Making]]
) -> tuple[tuple[ImageMaskPair, ...], list[str]]:
    """The pairs that are complete, and what the others lack."""
    lacks = [f"no source has the image of {name}" for name in wanted if name not in images]
    lacks += [f"no source has a mask of {name}" for name in wanted if name not in masks]
    complete = sorted(name for name in wanted if name in images and name in masks)
    return tuple(ImageMaskPair(name, images[name], *masks[name]) for name in complete), lacks


def _miscounts(
    counts: dict[str, int], expected: dict[str, int], hints: dict[str, str]
) -> list[str]:
    return [
        f"the sources have {counts.get(part, 0)} images for {part}, the dataset has {count}: "
        f"{hints[part]}"
        for part, count in expected.items()
        if counts.get(part, 0) != count
    ]


_VOC_HINTS = {
    "train": "give VOCdevkit (VOCtrainval_11-May-2012.tar) and SBD (benchmark.tgz), both complete, "
    "or a merged SegmentationClassAug beside VOCdevkit",
    "val": "unpack VOCtrainval_11-May-2012.tar again, or check the list val.txt",
}
_CITYSCAPES_HINTS = {
    "train": "unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip again, both complete",
    "val": "unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip again, both complete",
}
_ASSEMBLE = {"voc": _voc, "cityscapes": _cityscapes}
