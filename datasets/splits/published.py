"""Fetching or importing the published list files, and checking them.

The published lists are those of the UniMatch repository (MIT licence). They are not part of this
project; `checksums.json` is, and proves them.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from datasets.errors import DataError
from datasets.known.list_file import lines_sha256, read_lines, write_list
from datasets.location import DatasetLocation
from datasets.splits.lists import list_files, origin, published
from datasets.storage.download import download
from datasets.wording import quantity


def import_lists(location: DatasetLocation, folder: Path) -> list[str]:
    """Copy the published lists of a dataset from a checkout's `splits` folder.

    Args:
        location: of the dataset.
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

    return _bring(location, read)


def fetch_lists(location: DatasetLocation, address: str = "") -> list[str]:
    """Download the published lists of a dataset.

    Args:
        location: of the dataset.
        address: of a copy of the `splits` folder; empty means the repository, at the commit.

    Returns:
        Paths written below `<root>/splits`.

    Raises:
        DataError: a list is not the published one; nothing was written.
        Unreachable: no answer.
    """
    repository, commit = origin()
    base = address or f"https://raw.githubusercontent.com/{repository}/{commit}/splits"
    cure = (
        f"Where there is a network: git clone https://github.com/{repository}, git checkout "
        f"{commit}; carry its folder `splits` here and run `python -m datasets splits import DIR "
        f"{location.words}`."
    )

    def read(source: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "list.txt"
            download(f"{base.rstrip('/')}/{source}", path, cure=cure, tries=1)
            return path.read_text(encoding="utf-8")

    return _bring(location, read)


def list_defects(location: DatasetLocation, split: str = "") -> list[str]:
    """Defects of the published lists at the root; of one split, or of all."""
    table, folder, texts = published(location.spec.name), location.lists, []
    for file in list_files(split) if split else table:
        official = table.get(file)
        if official is None:
            texts.append(f"{file}: no list is published under this name")
        elif not (folder / file).is_file():
            texts.append(
                f"{folder / file}: missing; `splits fetch` or `splits import DIR` bring it"
            )
        elif lines_sha256(read_lines(folder / file)) != official.sha256:
            texts.append(f"{folder / file}: not the published list; bring it again")
    return texts


def _bring(location: DatasetLocation, read: Callable[[str], str]) -> list[str]:
    """Read all published lists, prove them, then write them."""
    name = location.spec.name
    if not published(name):
        raise ValueError(f"No lists are published for {name}; its splits are generated.")
    lists = {}
    for file, official in published(name).items():
        lines = [line.strip() for line in read(official.source).splitlines() if line.strip()]
        if lines_sha256(lines) != official.sha256:
            raise DataError(
                f"{official.source} is not the published list ({quantity(len(lines), 'line')}, "
                f"expected {official.count}). Take it from https://github.com/{origin()[0]} at "
                "commit "
                f"{origin()[1]}; nothing was written."
            )
        lists[file] = lines
    for file, lines in lists.items():
        write_list(location.lists / file, lines)
    return list(lists)
