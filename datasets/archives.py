"""Unpacking the archives that datasets are published in: only what is needed, resumable."""

import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from datasets.errors import DataError

FOLDER = ".unpacked"  # below the root
_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".zip")
_NEEDED = re.compile(
    r"(^|/)(JPEGImages/[^/]+\.jpg|SegmentationClass[A-Za-z]*/[^/]+\.png"
    r"|ImageSets/Segmentation/[^/]+\.txt|(cls/[^/]+\.mat|img/[^/]+\.jpg)"
    r"|leftImg8bit/(train|val)/.+_leftImg8bit\.png"
    r"|gtFine/(train|val)/.+_gtFine_label(Train)?Ids\.png)$"
)
_DONE = ".complete"


def is_archive(path: Path) -> bool:
    """Whether a path names an archive that can be unpacked."""
    return path.name.lower().endswith(_SUFFIXES) and path.is_file()


def unpacked(archive: Path, root: Path, say: Callable[[str], None]) -> Path:
    """The folder with what an archive holds of a dataset; unpacks what is not there yet.

    Args:
        archive: .tar, .tgz, .tar.gz or .zip.
        root: of the dataset; the folder lies below it.
        say: told that it begins, since this takes minutes.

    Raises:
        DataError: the archive is broken, or holds nothing of a dataset.
    """
    folder = root / FOLDER / archive.name
    if (folder / _DONE).is_file():
        return folder
    say(f"unpacking {archive}")
    count = 0
    try:
        for name, size, file in _members(archive):
            count += 1
            _extract(folder / name, size, file)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"The archive {archive} is broken ({error}); perhaps its download was cut short. "
            "Download it again."
        ) from error
    if not count:
        raise DataError(f"The archive {archive} holds nothing of VOC, SBD or Cityscapes.")
    (folder / _DONE).touch()
    return folder


def remove_unpacked(root: Path) -> None:
    """Drop what was unpacked, once it is in place."""
    shutil.rmtree(root / FOLDER, ignore_errors=True)


def _members(archive: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes] | None]]]:
    """Needed files: name, size, and how to open them."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if _is_needed(info.filename):
                    yield info.filename, info.file_size, lambda info=info: zipped.open(info)  # type: ignore[misc]
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and _is_needed(member.name):
                yield member.name, member.size, lambda member=member: tar.extractfile(member)  # type: ignore[misc]


def _is_needed(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(_NEEDED.search(name)) and not path.is_absolute() and ".." not in path.parts


def _extract(target: Path, size: int, opened: Callable[[], IO[bytes] | None]) -> None:
    if target.is_file() and target.stat().st_size == size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    source = opened()
    assert source is not None  # only regular files come here
    with source, part.open("wb") as file:
        shutil.copyfileobj(source, file)
    part.replace(target)
