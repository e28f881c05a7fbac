"""Unpacking the archives that datasets are published in: only what is needed, resumable."""

import hashlib
import http.client
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from datasets.errors import DataError, Unreachable
from datasets.files import atomic_path
from datasets.progress import Progress

Say = Callable[[str], None]
_BLOCK = 2**20
_TIMEOUT_SECONDS = 30.0
_TRIES = 6  # in a row without a new byte
_FIRST_WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class Archive:
    """A published archive.

    Attributes:
        key: names it on the command line, to give a mirror.
        file: name of the file.
        address: where its authors publish it.
        md5: as torchvision states it; its authors publish none.
        about: for people.
    """

    key: str
    file: str
    address: str
    md5: str
    about: str


def download(archive: Archive, folder: Path, *, mirror: str, say: Say) -> Path:
    """An archive in a folder; what an earlier call left there is gone on with.

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
    _fetch(address, part, archive, say)
    if _md5(part) != archive.md5:
        size = part.stat().st_size
        part.unlink()
        raise DataError(
            f"What {address} sends is not {archive.file} ({size} bytes of another md5 than "
            f"{archive.md5}); it was removed. Give another copy with {archive.key}=URL."
        )
    part.replace(target)
    return target


def _fetch(address: str, part: Path, archive: Archive, say: Say) -> None:
    """Bring all bytes, from where the part ends, as often as it takes."""
    failures, wait = 0, _FIRST_WAIT_SECONDS
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _is_continued(address, part, archive.file, say):
                return
            reason = "the connection was cut"
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            reason = str(getattr(error, "reason", "") or error)
            code = getattr(error, "code", 0)
            if 400 <= code < 500 and code not in (408, 416, 429):
                raise _unreachable(address, archive, part, f"{code} {reason}") from error
        grown = part.exists() and part.stat().st_size > before
        failures, wait = (1, _FIRST_WAIT_SECONDS) if grown else (failures + 1, 2 * wait)
        if failures >= _TRIES:
            raise _unreachable(address, archive, part, reason)
        time.sleep(wait)


def _is_continued(address: str, part: Path, name: str, say: Say) -> bool:
    """Append what is missing; whether the file is whole now."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing is left to send, or the part is of another file
            return True
        raise
    with answer:
        if start and answer.status != 206:
            start = 0  # this server knows no ranges
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            for count in _copied(answer, file.write, start, total, name, say):
                start = count
        return total is None or start == total


def _copied(
    answer: http.client.HTTPResponse,
    write: Callable[[bytes], int],
    start: int,
    total: int | None,
    name: str,
    say: Say,
) -> Iterator[int]:
    """Bytes of the file so far, after each block."""
    progress = Progress(-(-(total or start) // _BLOCK), f"{name} (MiB)", say)
    progress.skip(start // _BLOCK)
    while True:
        try:
            block = answer.read(_BLOCK)
        except http.client.IncompleteRead as error:
            block = error.partial
            if not block:
                return
        if not block:
            return
        write(block)
        start += len(block)
        progress.step()
        yield start


def _unreachable(address: str, archive: Archive, part: Path, reason: str) -> Unreachable:
    kept = part.stat().st_size if part.exists() else 0
    return Unreachable(
        f"{address} cannot be had ({reason}); {kept} bytes are kept, and the same command goes on "
        f"from there. Another copy: {archive.key}=URL. Where there is no network: put "
        f"{archive.file} (md5 {archive.md5}) into {part.parent} by hand."
    )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "voc": (
        Archive(
            "voc",
            "VOCtrainval_11-May-2012.tar",
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            "6cd6e144f989b92b3379bac3b3de84fd",
            "PASCAL VOC 2012 (2.0 GB)",
        ),
        Archive(
            "sbd",
            "benchmark.tgz",
            "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
            "semantic_contours/benchmark.tgz",
            "82b4d87ceb2ed10f6038a1cba92111cb",
            "the masks of SBD (1.4 GB)",
        ),
    ),
}


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
    source = opened()
    assert source is not None  # only regular files come here
    with source, atomic_path(target) as part, part.open("wb") as file:
        shutil.copyfileobj(source, file)
