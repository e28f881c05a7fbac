"""The splits of a dataset: which images are labelled, unlabelled, for validation. No torch.

The names contain a letter because Hydra reads `1_16` as the number 116.

- `synthetic`: seeded and nested, made from the configuration: 1of16, 1of8, 1of4, 1of2, full, and
  n12 for twelve labelled images.
- `voc`: p1_1of16, p1_1of8, p1_1of4 (CPS lists), p2_92 to p2_1464 (high-quality masks), and
  u2pl_1of16, u2pl_1of8, u2pl_1of4, a protocol of its own (all labels of high quality, easier).
- `cityscapes`: 1of16, 1of8, 1of4, 1of2.
- `earth`: n8, n16, n32, n64 and all; with dev_ before the name the same without the validation
  images, for choosing settings.

Lists of `voc` and `cityscapes` are files `<root>/splits/<split>/{labeled,unlabeled}.txt` and
`<root>/splits/val.txt` of lines `image mask`, as the UniMatch repository has them. A list with a
published name must be the published list; lists of one's own take other names, and may have a
`<root>/splits/<split>/val.txt` of their own.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from datasets.config import DataConfig, SyntheticConfig
from datasets.errors import DataError
from datasets.known.list_file import lines_sha256, parse_lines, read_lines
from datasets.known.registry import KNOWN
from datasets.known.synthetic import DRAWN_SPLITS, num_labelled, scene_ids
from datasets.location import DatasetLocation, locate
from datasets.randomness import Stream, epoch_permutation
from datasets.wording import did_you_mean, quantity

CHECKSUMS = Path(__file__).with_name("checksums.json")  # of the published lists, and their origin


@dataclass(frozen=True)
class Split:
    """Ids of the labelled, the unlabelled and the validation images, in their order.

    Attributes:
        name: as on the command line.
        labelled: ids whose masks training may read.
        unlabelled: ids whose masks nobody reads; empty when all are labelled.
        validation: ids of the evaluation.
        checksum: sha256 over the three lists, order included.
    """

    name: str
    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    validation: tuple[str, ...]
    checksum: str


@dataclass(frozen=True)
class Published:
    """One published list file: where it lies in its repository, and what proves it.

    Attributes:
        source: path in the repository's `splits` folder.
        count: number of lines.
        sha256: of the lines, joined by newlines.
    """

    source: str
    count: int
    sha256: str


def load_split(location: DatasetLocation, name: str) -> Split:
    """The lists of a split.

    Args:
        location: of the dataset.
        name: of the split.

    Raises:
        ValueError: unknown name; the text lists the known ones.
        DataError: a list is missing, broken, or not the published one.
    """
    if location.drawing is not None:
        return _drawn_split(location, location.drawing, name)
    if name not in split_names(location):
        raise _unknown(location, name)
    lists = [_read_list(location, name, file) for file in _files_of(location, name)]
    return checked_split(name, lists, where=str(location.lists / name))


def split_names(location: DatasetLocation) -> list[str]:
    """Names that `data.split` may take here; drawn scenes also take n12 and the like."""
    if location.drawing is not None:
        return list(DRAWN_SPLITS)
    official = [*published_splits(location.spec.name), *KNOWN[location.spec.name].splits]
    present = {path.parent.name for path in location.lists.glob("*/labeled.txt")}
    return [*official, *sorted(present - {*official})]


def present_splits(location: DatasetLocation) -> list[str]:
    """Names of the splits whose lists lie at the root."""
    return [name for name in split_names(location) if (location.lists / name).is_dir()]


def split_sizes(config: DataConfig) -> tuple[int, int, int]:
    """Numbers of labelled, unlabelled and validation images of the configured split.

    No data is needed where the split is a published one.
    """
    return _published_sizes(config.dataset, config.split) or sizes_at(locate(config), config.split)


def sizes_at(location: DatasetLocation, name: str) -> tuple[int, int, int]:
    """Numbers of labelled, unlabelled and validation images of a split."""
    sizes = _published_sizes(location.spec.name, name)
    if sizes is None and name not in present_splits(location):
        sizes = KNOWN[location.spec.name].splits.get(name)
    if sizes is not None:
        return sizes
    split = load_split(location, name)
    return len(split.labelled), len(split.unlabelled), len(split.validation)


def list_files(split: str) -> tuple[str, str, str]:
    """The three list files of a split below `<root>/splits`: labelled, unlabelled, validation."""
    return f"{split}/labeled.txt", f"{split}/unlabeled.txt", "val.txt"


def _files_of(location: DatasetLocation, split: str) -> tuple[str, str, str]:
    """The list files of a split; a validation list of its own goes before that of all splits."""
    labelled, unlabelled, validation = list_files(split)
    own = f"{split}/{validation}"
    is_own = split not in published_splits(location.spec.name) and (location.lists / own).is_file()
    return labelled, unlabelled, own if is_own else validation


def published(dataset: str) -> dict[str, Published]:
    """The published list files of a dataset by their path below `<root>/splits`."""
    return {
        file: Published(str(entry["source"]), int(entry["count"]), str(entry["sha256"]))
        for file, entry in _table(CHECKSUMS)["lists"].get(dataset, {}).items()
    }


def published_splits(dataset: str) -> list[str]:
    """Names of the published splits of a dataset, in the order of the papers."""
    return [file.split("/")[0] for file in published(dataset) if file.endswith("/labeled.txt")]


def origin() -> tuple[str, str]:
    """Repository and commit of the published lists."""
    table = _table(CHECKSUMS)
    return str(table["repository"]), str(table["commit"])


def checked_split(name: str, lists: Sequence[Sequence[str]], *, where: str) -> Split:
    """A split of three lists of ids.

    Args:
        name: of the split.
        lists: labelled, unlabelled and validation ids.
        where: folder of the lists, for errors.

    Raises:
        DataError: an id stands twice, in two lists, or a needed list is empty.
    """
    for kind, ids in zip(("labelled", "unlabelled", "validation"), lists, strict=True):
        if not ids and kind != "unlabelled":
            raise DataError(
                f"Split {name!r} has no {kind} images ({where}). Choose a larger split, or fill "
                "the list; `python -m datasets splits list` shows the sizes."
            )
        if len(set(ids)) != len(ids):
            twice = next(entry for index, entry in enumerate(ids) if entry in ids[:index])
            raise DataError(
                f"The {kind} list of split {name!r} names {twice!r} more than once ({where}). "
                "Remove the repeated lines."
            )
    labelled, unlabelled, validation = map(tuple, lists)
    _check_disjoint(
        f"{name!r} ({where})",
        {"labelled": labelled, "unlabelled": unlabelled, "validation": validation},
    )
    return Split(name, labelled, unlabelled, validation, _checksum(lists))


def seeded_order(ids: Sequence[str], seed: int) -> list[str]:
    """The order in which images get labels in a generated split; prefixes of it are nested."""
    return [ids[index] for index in epoch_permutation(seed, Stream.SPLIT, 0, len(ids))]


def _published_sizes(dataset: str, split: str) -> tuple[int, int, int] | None:
    table, files = published(dataset), list_files(split)
    if not all(file in table for file in files):
        return None
    labelled, unlabelled, validation = (table[file].count for file in files)
    return labelled, unlabelled, validation


def _drawn_split(location: DatasetLocation, drawing: SyntheticConfig, name: str) -> Split:
    train, validation = scene_ids(drawing)
    count = num_labelled(name, len(train))
    if count is None:
        raise _unknown(location, name)
    if count > len(train):
        raise ValueError(
            f"Split {name!r} asks for {quantity(count, 'labelled scene')}, there are {len(train)}. "
            "Choose a smaller one, or raise data.drawn.num_train."
        )
    chosen = set(seeded_order(train, drawing.seed)[:count])
    rest = [scene for scene in train if scene not in chosen]
    labelled = [scene for scene in train if scene in chosen]
    return checked_split(name, (labelled, rest, validation), where="generated")


def _read_list(location: DatasetLocation, split: str, file: str) -> list[str]:
    """Ids of one list file, checked line by line."""
    path, dataset = location.lists / file, location.spec.name
    if not path.is_file():
        raise DataError(f"The list {path} is missing. {_how_to_get_list(location, path)}")
    lines = read_lines(path)
    is_published = split in published_splits(dataset)  # its val.txt then is, too
    official = published(dataset)[file] if is_published else None
    if official and lines_sha256(lines) != official.sha256:
        raise DataError(
            f"{path} is not the published list of that name ({quantity(len(lines), 'line')}, the "
            f"published one has {official.count}). Import it again, or give your own list another "
            "folder name."
        )
    return parse_lines(location.spec, lines, where=str(path))


def _how_to_get_list(location: DatasetLocation, path: Path) -> str:
    own = f"`python -m datasets splits make {location.words}`"
    prepare = f"`python -m datasets prepare {location.words}`"
    if location.spec.kind == "cut":
        return f"{prepare} brings it."
    if location.spec.kind == "described" and path.parent == location.lists:
        return f"{prepare} makes it again."
    if not published(location.spec.name):
        again = prepare if path.parent.name == "all" else own
        return f"Bring it back, or remove {path.parent} and make the lists of it anew with {again}."
    return (
        f"Bring the published lists with `python -m datasets splits fetch {location.words}` (or "
        f"`splits import DIR`), or make lists of your own with {own}."
    )


def _check_disjoint(name: str, lists: dict[str, tuple[str, ...]]) -> None:
    for first, second in (
        ("labelled", "unlabelled"),
        ("labelled", "validation"),
        ("unlabelled", "validation"),
    ):
        both = set(lists[first]) & set(lists[second])
        if both:
            raise DataError(
                f"Split {name}: {quantity(len(both), 'image')} both {first} and {second}, e.g. "
                f"{min(both)!r}. Every image belongs to one list; remove it from the other."
            )


def _unknown(location: DatasetLocation, name: str) -> ValueError:
    more = ", or nN for N labelled scenes (n12)" if location.drawing is not None else ""
    known = ", ".join(split_names(location)) or "none"
    near = did_you_mean(name, split_names(location))
    return ValueError(
        f"Unknown split {name!r} of {location.spec.name}; known: {known}{more}.{near}"
    )


def _checksum(lists: Sequence[Sequence[str]]) -> str:
    return hashlib.sha256(json.dumps([list(ids) for ids in lists]).encode()).hexdigest()


@cache
def _table(path: Path) -> dict[str, Any]:
    """The content of `CHECKSUMS`."""
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table
