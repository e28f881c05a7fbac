"""Bringing published list files into place: fetched or imported, and proved.

The published lists are those of the UniMatch repository (MIT licence). They are not part of this
project; `checksums.json` is, and proves them.
"""

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from datasets.config import DataConfig
from datasets.errors import DataError
from datasets.errors import Unreachable as Unreachable
from datasets.files import atomic_write
from datasets.location import data_root, spec_of
from datasets.splits.lists import lines_sha256, list_files, origin, published, read_lines

_TIMEOUT_SECONDS = 30.0


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
        write_list(folder / file, lines)
    return list(brought)


def write_list(path: Path, lines: list[str]) -> None:
    """Put a list file in place in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, "".join(f"{line}\n" for line in lines))
