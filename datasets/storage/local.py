"""Object storage in a folder: each object is a file, written atomically and with fsync."""

import fcntl
import hashlib
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from datasets.files import atomic_create, atomic_path, atomic_write
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

    def view(self, name: str, start: int, size: int) -> memoryview:
        """See `Storage.view`."""
        return memoryview(self.read(name, start=start, size=size))

    def hold(self, name: str) -> Held:
        """See `Storage.hold`."""
        content = self.read(name)
        age = time.time() - (self.root / name).stat().st_mtime
        return Held(content, _tag(content), age)

    def write(self, name: str, content: bytes) -> None:
        """See `Storage.write`."""
        atomic_write(self._path(name), content, durable=True)

    def create(self, name: str, content: bytes) -> bool:
        """See `Storage.create`."""
        return atomic_create(self._path(name), content)

    def replace(self, name: str, content: bytes, tag: str) -> bool:
        """See `Storage.replace`."""
        self.root.mkdir(parents=True, exist_ok=True)
        # A file system has no compare-and-swap; the lock makes reading and writing one step for all
        # processes that use it.
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
        entries = []
        for path in start.rglob("*"):
            name = path.relative_to(self.root).as_posix()
            # Hidden files are the lock and temporary files of writes under way, not objects.
            if not name.startswith(prefix) or path.name.startswith("."):
                continue
            with suppress(FileNotFoundError):
                if path.is_file():
                    entries.append(Entry(name, path.stat().st_size))
        return sorted(entries, key=lambda entry: entry.name)

    def remove(self, names: Iterable[str]) -> None:
        """See `Storage.remove`."""
        for name in names:
            (self.root / name).unlink(missing_ok=True)

    def copy(self, name: str, target: str) -> None:
        """See `Storage.copy`."""
        self.upload(self.root / name, target)

    def upload(self, path: Path, name: str) -> None:
        """See `Storage.upload`."""
        with atomic_path(self._path(name), durable=True) as part:
            shutil.copyfile(path, part)

    def download(self, name: str, path: Path) -> None:
        """See `Storage.download`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path, durable=True) as part:
            shutil.copyfile(self.root / name, part)

    def _path(self, name: str) -> Path:
        """The file of an object, whose folder is made."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _tag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
