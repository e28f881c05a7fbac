"""Which images have labels: published lists, imported or generated. Needs no torch.

The names contain a letter because Hydra reads `1_16` as the number 116.

- `synthetic`: seeded and nested, made from the configuration: 1of16, 1of8, 1of4, 1of2, full, and
  n12 for twelve labelled images.
- `voc`: p1_1of16, p1_1of8, p1_1of4 (CPS lists), p2_92 to p2_1464 (high-quality masks), and
  u2pl_1of16, u2pl_1of8, u2pl_1of4, a protocol of its own (all labels of high quality, easier).
- `cityscapes`: 1of16, 1of8, 1of4, 1of2.

Lists of `voc` and `cityscapes` are files `<root>/splits/<split>/{labeled,unlabeled}.txt` and
`<root>/splits/val.txt` of lines `image mask`, as the UniMatch repository has them. A list with a
published name must be the published list; lists of one's own take other names.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from datasets.catalog import DatasetSpec
from datasets.config import DataConfig
from datasets.errors import DataError
from datasets.location import data_root, spec_of, synthetic_of
from datasets.randomness import Stream, epoch_permutation

CHECKSUMS = Path(__file__).with_name("checksums.json")  # of the published lists, and their origin
DRAWN_SPLITS = {"1of16": 16, "1of8": 8, "1of4": 4, "1of2": 2, "full": 1}
_COUNTED = re.compile(r"n(\d+)")


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


def load_split(config: DataConfig) -> Split:
    """The lists of the configured split.

    Raises:
        ValueError: unknown name; the text lists the known ones.
        DataError: a list is missing, broken, or not the published one.
    """
    if config.dataset == "synthetic":
        return _drawn_split(config)
    spec_of(config)
    if config.split not in split_names(config):
        raise _unknown(config)
    folder = data_root(config) / "splits"
    lists = [_read_list(config, file) for file in list_files(config.split)]
    return checked_split(config.split, lists, where=str(folder / config.split))


def split_names(config: DataConfig) -> list[str]:
    """Names that `data.split` may take here; drawn scenes also take n12 and the like."""
    if config.dataset == "synthetic":
        return list(DRAWN_SPLITS)
    folder = data_root(config) / "splits"
    found = {path.parent.name for path in folder.glob("*/labeled.txt")}
    return [*published_splits(config.dataset), *sorted(found - {*published_splits(config.dataset)})]


def present_splits(config: DataConfig) -> list[str]:
    """Names of the splits whose lists lie at the root."""
    folder = data_root(config) / "splits"
    return [name for name in split_names(config) if (folder / name).is_dir()]


def split_sizes(config: DataConfig) -> tuple[int, int, int]:
    """Numbers of labelled, unlabelled and validation images; no data needed for known names."""
    table = published(config.dataset)
    files = list_files(config.split)
    if all(file in table for file in files):
        labelled, unlabelled, validation = (table[file].count for file in files)
        return labelled, unlabelled, validation
    split = load_split(config)
    return len(split.labelled), len(split.unlabelled), len(split.validation)


def list_files(split: str) -> tuple[str, str, str]:
    """The three list files of a split below `<root>/splits`: labelled, unlabelled, validation."""
    return f"{split}/labeled.txt", f"{split}/unlabeled.txt", "val.txt"


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
        where: the lists' place, for errors.

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
            twice = next(entry for place, entry in enumerate(ids) if entry in ids[:place])
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


def lines_sha256(lines: Iterable[str]) -> str:
    """What proves a list: sha256 of its lines, whatever the line ends."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_lines(path: Path) -> list[str]:
    """The lines of a list file, blank ones left out.

    Raises:
        DataError: it is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors of Windows begin with a mark
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error.reason}). Save it as UTF-8.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def line_of(spec: DatasetSpec, name: str) -> str:
    """The `image mask` line of an id."""
    return f"{spec.image_file(name)} {spec.mask_file(name)}"


def drawn_ids(config: DataConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids of the drawn training and validation scenes."""
    drawn = synthetic_of(config)
    names = [f"scene_{index:05d}" for index in range(drawn.num_train + drawn.num_val)]
    return tuple(names[: drawn.num_train]), tuple(names[drawn.num_train :])


def seeded_order(ids: Sequence[str], seed: int) -> list[str]:
    """The order in which a generated split hands out labels; its prefixes are nested splits."""
    return [ids[index] for index in epoch_permutation(seed, Stream.SPLIT, 0, len(ids))]


def _drawn_split(config: DataConfig) -> Split:
    train, validation = drawn_ids(config)
    counted = _COUNTED.fullmatch(config.split)
    if counted:
        count = int(counted.group(1))
    elif config.split in DRAWN_SPLITS:
        count = -(-len(train) // DRAWN_SPLITS[config.split])  # rounded up, as the published lists
    else:
        raise _unknown(config)
    if count > len(train):
        raise ValueError(
            f"Split {config.split!r} asks for {count} labelled scenes, there are {len(train)}. "
            "Choose a smaller one, or raise data.drawn.num_train."
        )
    order = seeded_order(train, synthetic_of(config).seed)
    chosen = set(order[:count])
    rest = [name for name in train if name not in chosen]
    labelled = [name for name in train if name in chosen]
    return checked_split(config.split, (labelled, rest, validation), where="generated")


def _read_list(config: DataConfig, file: str) -> list[str]:
    """Ids of one list file, checked line by line."""
    path = data_root(config) / "splits" / file
    if not path.is_file():
        raise DataError(f"The list {path} is missing. {_bringing(config)}")
    lines = read_lines(path)
    is_published = config.split in published_splits(config.dataset)  # its val.txt then is, too
    official = published(config.dataset)[file] if is_published else None
    if official and lines_sha256(lines) != official.sha256:
        raise DataError(
            f"{path} is not the published list of that name ({len(lines)} lines, the published one "
            f"has {official.count}). Import it again, or give your own list another folder name."
        )
    return parse_lines(spec_of(config), lines, where=str(path))


def _bringing(config: DataConfig) -> str:
    place = f"dataset={config.dataset} root={data_root(config)}"
    own = f"`python -m datasets splits make {place}`"
    if not published(config.dataset):
        return f"Make it with {own}."
    return (
        f"Bring the published lists with `python -m datasets splits fetch {place}` (or `splits "
        f"import DIR`), or make lists of your own with {own}."
    )


def parse_lines(spec: DatasetSpec, lines: Sequence[str], *, where: str) -> list[str]:
    """Ids of `image mask` lines.

    Raises:
        DataError: a line fits neither the dataset's layout nor the form.
    """
    before, after = (re.escape(part) for part in spec.image_pattern.split("{id}"))
    pattern = re.compile(f"{before}(?P<id>.+){after}")
    ids = []
    for number, line in enumerate(lines, start=1):
        match = pattern.fullmatch(line.split(" ")[0])
        if match is None or line_of(spec, match["id"]) != line:
            raise DataError(
                f"{where}, line {number}: {line!r} is no line of {spec.name}; one reads like "
                f"{line_of(spec, 'ID')!r}. Correct the list, or check the dataset's name."
            )
        ids.append(match["id"])
    return ids


def _check_disjoint(name: str, lists: dict[str, tuple[str, ...]]) -> None:
    for first, second in (
        ("labelled", "unlabelled"),
        ("labelled", "validation"),
        ("unlabelled", "validation"),
    ):
        both = set(lists[first]) & set(lists[second])
        if both:
            raise DataError(
                f"Split {name}: {len(both)} images are both {first} and {second}, e.g. "
                f"{min(both)!r}. Every image belongs to one list; remove it from the other."
            )


def _unknown(config: DataConfig) -> ValueError:
    more = ", or nN for N labelled scenes (n12)" if config.dataset == "synthetic" else ""
    known = ", ".join(split_names(config))
    return ValueError(
        f"Unknown split {config.split!r} of {config.dataset}; known: {known or 'none'}{more}."
    )


def _checksum(lists: Sequence[Sequence[str]]) -> str:
    return hashlib.sha256(json.dumps([list(ids) for ids in lists]).encode()).hexdigest()


@cache
def _table(path: Path) -> dict[str, Any]:
    """The content of `CHECKSUMS`."""
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table
