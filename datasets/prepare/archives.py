"""Archives that datasets are published in: downloaded, and unpacked as far as is needed."""

import hashlib
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from datasets.errors import DataError
from datasets.files import atomic_path
from datasets.known.interface import Archive
from datasets.progress import Say
from datasets.storage.download import download

_UNPACKED = ".unpacked"  # below the root
_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".zip")
_DONE = ".complete"


def download_archive(archive: Archive, folder: Path, *, mirror: str, say: Say) -> Path:
    """Download an archive into a folder; a part left by an earlier call is continued.

    Args:
        archive: which.
        folder: where to; the file appears there once it is proved.
        mirror: address of another copy; empty means that of the authors.
        say: given lines for people.

    Raises:
        Unreachable: the server does not answer, or not with the file.
        DataError: what came is not the published archive; it was removed.
    """
    target = folder / archive.file
    if target.is_file():
        if _md5(target) == archive.md5:
            say(f"{target} is there and is the published archive")
            return target
        raise DataError(
            f"{target} is not the published archive (md5 {_md5(target)}, expected {archive.md5}). "
            "Remove it to download it again, or give another folder with to=DIR."
        )
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    address = mirror or archive.address
    say(f"downloading {archive.about} from {address}")
    cure = (
        "What has come is kept, and the same command goes on from there. Another copy: "
        f"{archive.key}=URL. Where there is no network: put {archive.file} (md5 {archive.md5}) "
        f"into {folder} by hand."
    )
    download(address, part, cure=cure, say=say)
    if _md5(part) != archive.md5:
        size = part.stat().st_size
        part.unlink()
        raise DataError(
            f"What {address} sends is not {archive.file} ({size} bytes of another md5 than "
            f"{archive.md5}); it was removed. Give another copy with {archive.key}=URL."
        )
    part.replace(target)
    return target


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def is_archive(path: Path) -> bool:
    """Whether a path names an archive that can be unpacked."""
    return path.name.lower().endswith(_SUFFIXES) and path.is_file()


def unpacked(archive: Path, root: Path, members: str, say: Say) -> Path:
    """The folder with the files of a dataset from an archive, unpacked unless they are there.

    Args:
        archive: .tar, .tgz, .tar.gz or .zip.
        root: of the dataset; the folder lies below it.
        members: pattern of the paths that are needed, in whatever folder of the archive.
        say: told that it begins, since this takes minutes.

    Raises:
        DataError: the archive is broken, or holds nothing of a dataset.
    """
    folder, needed = root / _UNPACKED / archive.name, re.compile(f"(^|/)({members})$")
    if (folder / _DONE).is_file():
        return folder
    say(f"unpacking {archive}")
    count = 0
    try:
        for name, size, file in _members(archive, needed):
            count += 1
            _extract(folder / name, size, file)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"The archive {archive} is broken ({error}); perhaps its download was cut short. "
            "Download it again."
        ) from error
    if not count:
        raise DataError(f"The archive {archive} holds no file of this dataset.")
    (folder / _DONE).touch()
    return folder


def remove_unpacked(root: Path) -> None:
    """Drop what was unpacked, once it is in place."""
    shutil.rmtree(root / _UNPACKED, ignore_errors=True)


def _members(
    archive: Path, needed: re.Pattern[str]
) -> Iterator[tuple[str, int, Callable[[], IO[bytes] | None]]]:
    """Needed files: name, size, and how to open them."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if _is_needed(info.filename, needed):
                    yield info.filename, info.file_size, lambda info=info: zipped.open(info)  # type: ignore[misc]
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and _is_needed(member.name, needed):
                yield member.name, member.size, lambda member=member: tar.extractfile(member)  # type: ignore[misc]


def _is_needed(name: str, needed: re.Pattern[str]) -> bool:
    path = PurePosixPath(name)
    return bool(needed.search(name)) and not path.is_absolute() and ".." not in path.parts


def _extract(target: Path, size: int, opened: Callable[[], IO[bytes] | None]) -> None:
    # Files appear by rename, so one of the right size is whole.
    if target.is_file() and target.stat().st_size == size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = opened()
    assert source is not None  # only regular files come here
    with source, atomic_path(target) as part, part.open("wb") as file:
        shutil.copyfileobj(source, file)
