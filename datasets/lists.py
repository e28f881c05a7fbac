"""Bringing list files into place: fetched or imported and proved, or made by seed.

The published lists are those of the UniMatch repository (MIT licence). They are not part of this
project; `checksums.json` is, and proves them.
"""

import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from datasets.catalog import DatasetSpec, data_root, spec_of
from datasets.config import DataConfig
from datasets.errors import DataError
from datasets.splits import (
    DRAWN_SPLITS,
    checked_split,
    line_of,
    lines_sha256,
    list_files,
    origin,
    parse_lines,
    published,
    published_splits,
    read_lines,
    seeded_order,
)

_TIMEOUT_SECONDS = 30.0
_PART = re.compile(r"1of(\d+)|n(\d+)")


class Unreachable(ConnectionError):
    """The server with the lists does not answer; the text says what to do without it."""


def import_lists(config: DataConfig, folder: Path) -> list[str]:
    """Copy the published lists of a dataset from a checkout's `splits` folder.

    Args:
        config: dataset and root.
        folder: holds `pascal/` or `cityscapes/`, or is that folder.

    Returns:
        Paths written below `<root>/splits`.

    Raises:
        DataError: a list is missing there or is not the published one; nothing was written.
    """

    def read(source: str) -> str:
        for path in (folder / source, folder / source.partition("/")[2]):
            if path.is_file():
                return path.read_text(encoding="utf-8")
        raise DataError(
            f"{folder / source} is missing. Give the `splits` folder of a checkout of "
            f"https://github.com/{origin()[0]} at commit {origin()[1]}."
        )

    return _bring(config, read)


def fetch_lists(config: DataConfig, address: str = "") -> list[str]:
    """Download the published lists of a dataset.

    Args:
        config: dataset and root.
        address: of a copy of the `splits` folder; empty means the repository, at the commit.

    Returns:
        Paths written below `<root>/splits`.

    Raises:
        DataError: a list is not the published one; nothing was written.
        Unreachable: no answer.
    """
    repository, commit = origin()
    base = address or f"https://raw.githubusercontent.com/{repository}/{commit}/splits"

    def read(source: str) -> str:
        place = f"{base.rstrip('/')}/{source}"
        try:
            with urllib.request.urlopen(place, timeout=_TIMEOUT_SECONDS) as answer:
                return str(answer.read().decode("utf-8"))
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise Unreachable(
                f"{place} cannot be had ({error}). Where there is a network: git clone "
                f"https://github.com/{repository}, git checkout {commit}; carry its folder "
                f"`splits` here and run `python -m datasets splits import DIR "
                f"dataset={config.dataset} root={data_root(config)}`."
            ) from error

    return _bring(config, read)


def list_defects(config: DataConfig, split: str = "") -> list[str]:
    """What is wrong with the published lists at the root; of one split, or of all."""
    wanted = list_files(split) if split else tuple(published(config.dataset))
    folder = data_root(config) / "splits"
    found = []
    for file in wanted:
        official = published(config.dataset).get(file)
        if official is None:
            found.append(f"{file}: no list is published under this name")
        elif not (folder / file).is_file():
            found.append(
                f"{folder / file}: missing; `splits fetch` or `splits import DIR` bring it"
            )
        elif lines_sha256(read_lines(folder / file)) != official.sha256:
            found.append(f"{folder / file}: not the published list; bring it again")
    return found


def make_lists(config: DataConfig, *, part: str, seed: int, name: str = "") -> str:
    """Make a labelled and an unlabelled list of one's own from the images that have masks.

    Equal seeds give nested lists: the labelled images of 1of16 are among those of 1of8.

    Args:
        config: dataset and root.
        part: 1of16 and the like, or n100 for a hundred labelled images.
        seed: of the order in which images get labels.
        name: of the split; empty means `seed<seed>_<part>`.

    Returns:
        The name to give as data.split.

    Raises:
        ValueError: a name of the published lists, or a part that is none.
        DataError: no masks, no validation list, or an existing list of that name.
    """
    name = name or f"seed{seed}_{part}"
    if name in published_splits(config.dataset) or name in DRAWN_SPLITS:
        raise ValueError(f"{name!r} is the name of a published split; give another with name=NAME.")
    if not re.search("[A-Za-z]", name) or not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise ValueError(
            f"A split cannot be called {name!r}: use letters, digits and underscores, and at least "
            "one letter (the command line reads 1_16 as a number)."
        )
    spec, folder = spec_of(config), data_root(config) / "splits"
    if (folder / name).exists():
        raise DataError(f"{folder / name} exists; remove it, or give another name with name=NAME.")
    validation = _validation_ids(config)
    train = _training_ids(config, validation)
    count = _count_of(part, len(train))
    chosen = set(seeded_order(train, seed)[:count])
    rest = [entry for entry in train if entry not in chosen]
    labelled = [entry for entry in train if entry in chosen]
    checked_split(name, (labelled, rest, validation), where=str(folder / name))
    for file, ids in zip(list_files(name), (labelled, rest, validation), strict=True):
        if file != "val.txt" or not (folder / file).is_file():
            _write(folder / file, [line_of(spec, entry) for entry in ids])
    return name


def _bring(config: DataConfig, read: Callable[[str], str]) -> list[str]:
    """Read all published lists, prove them, then write them."""
    table = published(spec_of(config).name)
    if not table:
        raise ValueError(f"No lists are published for {config.dataset}; its splits are generated.")
    folder, brought = data_root(config) / "splits", {}
    for file, official in table.items():
        lines = [line.strip() for line in read(official.source).splitlines() if line.strip()]
        if lines_sha256(lines) != official.sha256:
            raise DataError(
                f"{official.source} is not the published list ({len(lines)} lines, expected "
                f"{official.count}). Take it from https://github.com/{origin()[0]} at commit "
                f"{origin()[1]}; nothing was written."
            )
        brought[file] = lines
    for file, lines in brought.items():
        _write(folder / file, lines)
    return list(brought)


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    temporary.replace(path)


def _validation_ids(config: DataConfig) -> list[str]:
    """From `splits/val.txt`, else from VOC's own list, else Cityscapes' folder `val`."""
    spec, root = spec_of(config), data_root(config)
    if (root / "splits/val.txt").is_file():
        path = root / "splits/val.txt"
        return parse_lines(spec, read_lines(path), where=str(path))
    if (root / "ImageSets/Segmentation/val.txt").is_file():
        return read_lines(root / "ImageSets/Segmentation/val.txt")
    ids = [name for name in _masked_ids(spec, root) if name.startswith("val/")]
    if not ids:
        raise DataError(
            f"{root} has no validation list. Put one at {root / 'splits/val.txt'} (lines like "
            f"{line_of(spec, 'ID')!r}), or bring the published one with `splits fetch`."
        )
    return ids


def _training_ids(config: DataConfig, validation: list[str]) -> list[str]:
    kept_out = set(validation)
    return [
        name
        for name in _masked_ids(spec_of(config), data_root(config))
        if name not in kept_out and not name.startswith(("val/", "test/"))
    ]


def _masked_ids(spec: DatasetSpec, root: Path) -> list[str]:
    """Ids that have a mask on disk, sorted."""
    before, after = spec.mask_pattern.split("{id}")
    start = root / before
    found = sorted(
        path.relative_to(start).as_posix().removesuffix(after) for path in start.rglob(f"*{after}")
    )
    if not found:
        raise DataError(
            f"{root} has no mask {spec.mask_pattern.format(id='*')}. Put the dataset there first; "
            f"`python -m datasets prepare {spec.name}` says which files go where."
        )
    return found


def _count_of(part: str, total: int) -> int:
    match = _PART.fullmatch(part)
    if match is None or not int(match[1] or match[2]):
        raise ValueError(f"labelled={part!r} is no part; write 1of16 and the like, or n100.")
    return -(-total // int(match[1])) if match[1] else min(int(match[2]), total)
