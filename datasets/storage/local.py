"""Objects as files of a folder: written beside their place, synced, renamed."""

import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from datasets.storage.base import Entry, Held

_LOCK = ".replace.lock"


@dataclass(frozen=True)
class FolderStorage:
    """A `Storage` in a folder, which need not exist yet.

    Attributes:
        root: the folder.
    """

    root: Path

    @property
    def url(self) -> str:
        """The folder."""
        return str(self.root)

    def read(self, name: str, *, start: int = 0, size: int | None = None) -> bytes:
        """See `Storage.read`."""
        with (self.root / name).open("rb") as file:
            file.seek(start)
            return file.read(-1 if size is None else size)

    def hold(self, name: str) -> Held:
        """See `Storage.hold`."""
        content = self.read(name)
        age = time.time() - (self.root / name).stat().st_mtime
        return Held(content, _tag(content), age)

    def write(self, name: str, content: bytes) -> None:
        """See `Storage.write`."""
        with self._part(name) as part:
            _put(part, content)
            part.replace(self.root / name)
        _sync_folder((self.root / name).parent)

    def create(self, name: str, content: bytes) -> bool:
        """See `Storage.create`."""
        with self._part(name) as part:
            _put(part, content)
            try:
                (self.root / name).hardlink_to(part)  # unlike a rename it refuses to replace
            except FileExistsError:
                return False
        _sync_folder((self.root / name).parent)
        return True

    def replace(self, name: str, content: bytes, tag: str) -> bool:
        """See `Storage.replace`."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                is_same = self.hold(name).tag == tag
            except FileNotFoundError:
                is_same = False
            if is_same:
                self.write(name, content)
            return is_same

    def entries(self, prefix: str = "") -> list[Entry]:
        """See `Storage.entries`."""
        start = self.root / prefix.rpartition("/")[0]
        found = []
        for path in start.rglob("*"):
            name = path.relative_to(self.root).as_posix()
            if not name.startswith(prefix) or path.name.startswith("."):
                continue
            with suppress(FileNotFoundError):
                state = path.stat()
                if path.is_file():
                    found.append(Entry(name, state.st_size, state.st_mtime))
        return sorted(found, key=lambda entry: entry.name)

    def remove(self, names: Iterable[str]) -> None:
        """See `Storage.remove`."""
        for name in names:
            (self.root / name).unlink(missing_ok=True)

    def copy(self, name: str, target: str) -> None:
        """See `Storage.copy`."""
        self.upload(self.root / name, target)

    def upload(self, path: Path, name: str) -> None:
        """See `Storage.upload`."""
        with self._part(name) as part:
            _copy(path, part)
            part.replace(self.root / name)
        _sync_folder((self.root / name).parent)

    def download(self, name: str, path: Path) -> None:
        """See `Storage.download`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            _copy(self.root / name, part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def _part(self, name: str) -> Iterator[Path]:
        """A file beside the place of an object; a leading dot keeps it out of listings."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)


def _tag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _put(part: Path, content: bytes) -> None:
    with part.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _copy(source: Path, part: Path) -> None:
    shutil.copyfile(source, part)
    with part.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
