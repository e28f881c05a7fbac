"""A bounded folder of items fetched from an object store, shared by all processes of a machine.

A file's name is the sha256 of its bytes, so it cannot be out of date and every reader can check it.
Above the limit, the files that were used longest ago are removed first.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from datasets.files import atomic_write


@dataclass
class ItemCache:
    """Files by sha256.

    Attributes:
        folder: of the cache.
        limit: bytes; each process checks the size after writing at most an eighth of it.
        unseen: bytes written by this process since its last check; -1 before the first one.
    """

    folder: Path
    limit: int
    unseen: int = -1

    def get(self, sha256: str) -> bytes | None:
        """The bytes of that name, if they are kept."""
        path = self._path(sha256)
        try:
            data = path.read_bytes()
            os.utime(path)  # marks the last use: `_make_room` sorts by modification time
        except OSError:
            return None
        return data

    def put(self, sha256: str, data: bytes) -> None:
        """Keep bytes; a disk that refuses them is no error, they are fetched again."""
        if len(data) > self.limit // 8:
            return
        if self.unseen < 0 or self.unseen + len(data) > self.limit // 8:
            self._make_room()
            self.unseen = 0
        self.unseen += len(data)
        path = self._path(sha256)
        with suppress(OSError):
            try:
                atomic_write(path, data)
            except FileNotFoundError:  # the first one of this folder
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(path, data)

    def size(self) -> int:
        """Bytes kept now."""
        return sum(size for _, size, _ in self._files())

    def _path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def _make_room(self) -> None:
        """Drop the oldest until three quarters are left for what comes; one process at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
            files = sorted(self._files())
            total = sum(size for _, size, _ in files)
            for _, size, path in files:
                if total <= self.limit * 3 // 4:
                    break
                path.unlink(missing_ok=True)
                total -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Time of the last use, size and path."""
        for path in self.folder.glob("??/*"):
            with suppress(OSError):
                state = path.stat()
                yield state.st_mtime, state.st_size, path
