"""Which file of which source becomes which file of a tree: the plan, before anything is written.

The files of this folder make such plans from what users have of their dataset; `datasets.prepare`
carries them out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets import files
from datasets.errors import DataError
from datasets.wording import quantity

_DEPTH = 5  # folders below a source that are looked into
Convert = Callable[[bytes, str], NDArray[np.uint8]]


@dataclass(frozen=True)
class ImageMaskPair:
    """One image and its mask, to be copied into the tree.

    Attributes:
        name: id.
        image: source of the image.
        mask: source of the mask.
        convert: class indices (H, W) from the bytes of the mask's source and its path (for
            errors); None when the source is a mask of the tree already.
    """

    name: str
    image: Path
    mask: Path
    convert: Convert | None = None


@dataclass(frozen=True)
class Assembly:
    """Everything to be copied into the tree of a dataset.

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


def folders_below(sources: Sequence[Path]) -> Iterator[tuple[Path, list[str]]]:
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
        for folder, names, _ in files.walk_linked(source):
            yield folder, names
            if len(folder.relative_to(source).parts) >= _DEPTH:
                names.clear()


def nothing_found(sources: Sequence[Path], what: str) -> DataError:
    """The error of sources that hold nothing of a dataset."""
    folders = ", ".join(map(str, sources))
    return DataError(f"Below {folders} lies nothing of {what}. Check the path of the source.")


def files_of(folders: Sequence[Path], suffix: str) -> dict[str, Path]:
    """Files below some folders by their path without suffix; the first that has an id wins."""
    paths: dict[str, Path] = {}
    for folder in reversed(folders):
        below = sorted(path for path in files.files_below(folder) if path.endswith(suffix))
        paths |= {path.removesuffix(suffix): folder / path for path in below}
    return paths


def complete_pairs(
    ids: Sequence[str],
    images: Mapping[str, Path],
    masks: Mapping[str, tuple[Path, Convert | None]],
) -> tuple[tuple[ImageMaskPair, ...], list[str]]:
    """The pairs that are complete, sorted by id, and what the others lack."""
    lacks = [f"no source has the image of {name}" for name in ids if name not in images]
    lacks += [f"no source has a mask of {name}" for name in ids if name not in masks]
    complete = sorted(name for name in ids if name in images and name in masks)
    return tuple(ImageMaskPair(name, images[name], *masks[name]) for name in complete), lacks


def miscounts(
    counts: Mapping[str, int], expected: Mapping[str, int], hints: Mapping[str, str]
) -> list[str]:
    """Which parts of a dataset have another number of images than it was published with.

    Args:
        counts: images by part.
        expected: the published numbers.
        hints: by part, what to do about it.
    """
    return [
        f"the sources have {quantity(counts.get(part, 0), 'image')} for {part}, the dataset has "
        f"{count}: {hints[part]}"
        for part, count in expected.items()
        if counts.get(part, 0) != count
    ]
