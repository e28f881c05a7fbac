"""The folders of results, on a disk and in a bucket: many small files, each whole or not there."""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from datasets.files import atomic_write
from datasets.storage.base import Storage
from orchestrator.storage.file_lock import Busy, file_lock

_THREADS = 8


class LocalResults:
    """See `ResultFolder`.

    Args:
        folder: of the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address = str(folder)

    def names(self, starts: Sequence[str] = ("",)) -> set[str]:
        """See `ResultFolder`."""
        try:
            names = (entry.name for entry in os.scandir(self._folder))
            return {name for name in names if name.startswith(tuple(starts))}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def present(self, names: Iterable[str]) -> set[str]:
        """See `ResultFolder`."""
        return {name for name in names if (self._folder / name).exists()}

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """See `ResultFolder`."""
        wanted = list(names)
        with ThreadPoolExecutor(_THREADS) as pool:  # a network file system answers slowly
            contents = pool.map(lambda name: (self._folder / name).read_bytes(), wanted)
            return dict(zip(wanted, contents, strict=True))

    def put(self, name: str, content: bytes) -> None:
        """See `ResultFolder`."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            atomic_write(self._folder / name, content, durable=True)
        except OSError as error:
            cause = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror)
            raise OSError(
                error.errno,
                f"Could not publish {name} in {self.address}: {cause}. Nothing was written; make "
                "room there (or choose another root) and launch again, the run itself is kept",
            ) from error

    def remove(self, names: Iterable[str]) -> None:
        """See `ResultFolder`."""
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    @contextmanager
    def compaction_lock(self) -> Iterator[bool]:
        """See `ResultFolder`."""
        # Beside the folder: readers of Parquet data sets take every file in it for data.
        path = self._folder.with_name(f".{self._folder.name}.compaction")
        with ExitStack() as stack:
            try:
                stack.enter_context(file_lock(path, "a compaction"))
            except Busy:
                yield False
            else:
                yield True


class S3Results:
    """See `ResultFolder`.

    Args:
        storage: of the root.
        name: of the folder below it.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage = storage
        self._prefix = f"{name}/"
        self.address = f"{storage.url}/{name}"

    def names(self, starts: Sequence[str] = ("",)) -> set[str]:
        """See `ResultFolder`."""
        entries = [e for start in starts for e in self._storage.entries(self._prefix + start)]
        return {entry.name.removeprefix(self._prefix) for entry in entries}

    def present(self, names: Iterable[str]) -> set[str]:
        """See `ResultFolder`."""
        wanted = set(names)
        return self.names(sorted(wanted)) & wanted

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """See `ResultFolder`."""
        wanted = list(names)
        with ThreadPoolExecutor(_THREADS) as pool:
            contents = pool.map(lambda name: self._storage.read(self._prefix + name), wanted)
            return dict(zip(wanted, contents, strict=True))

    def put(self, name: str, content: bytes) -> None:
        """See `ResultFolder`."""
        self._storage.write(self._prefix + name, content)

    def remove(self, names: Iterable[str]) -> None:
        """See `ResultFolder`."""
        self._storage.remove(self._prefix + name for name in names)

    @contextmanager
    def compaction_lock(self) -> Iterator[bool]:
        """See `ResultFolder`."""
        # No lock: after two at once some rows exist twice, and readers count them once.
        yield True
