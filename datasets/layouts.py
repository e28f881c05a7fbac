"""Finding the parts of a dataset in the folders that users have, wherever they were unpacked."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.errors import DataError

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
