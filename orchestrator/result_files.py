"""Where result files lie: a folder that publishes by rename, or an object store by a single PUT."""

import errno
import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Literal, Protocol

from orchestrator.places import Places
from orchestrator.store import store_of

Kind = Literal["rows", "history"]

_THREADS = 8


class RowFolder(Protocol):
    """A flat folder of small files, each of which appears whole or not at all."""

    @property
    def place(self) -> str:
        """Its path or URL."""

    def names(self) -> set[str]:
        """Names of all files; none where the folder does not exist yet."""

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Contents by name; FileNotFoundError when one is gone."""

    def put(self, name: str, content: bytes) -> None:
        """Write a file atomically and durably."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are gone already are fine."""

    def alone(self) -> AbstractContextManager[bool]:
        """Hold the folder's compaction; says False where another process does."""


def open_folder(root: str, kind: Kind = "rows") -> RowFolder:
    """A folder of results under a root.

    Args:
        root: folder or fsspec URL.
        kind: one file per attempt with its "rows", or with the "history" of its epochs.
    """
    if root.startswith("s3://"):
        return _Stored(root, kind)
    path = root.removeprefix("file://")
    return _Remote(root, kind) if "://" in path else _Local(Path(path), kind)


class _Local:
    """A folder of results on a file system."""

    def __init__(self, root: Path, kind: Kind) -> None:
        self._path = root / "results" / kind
        self.place = str(self._path)

    def names(self) -> set[str]:
        try:
            return {entry.name for entry in os.scandir(self._path)}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        wanted = list(names)
        with ThreadPoolExecutor(_THREADS) as pool:  # a network file system answers slowly
            contents = pool.map(lambda name: (self._path / name).read_bytes(), wanted)
            return dict(zip(wanted, contents, strict=True))

    def put(self, name: str, content: bytes) -> None:
        # A leading dot keeps a half-written file out of every dataset reader.
        temporary = self._path / f".{name}.{uuid.uuid4().hex}"
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path / name)
            _sync_folder(self._path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            cause = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror)
            raise OSError(
                error.errno,
                f"Could not publish {name} in {self.place}: {cause}. Nothing was written; make "
                "room there (or choose another root) and launch again, the run itself is kept",
            ) from error

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self._path / name).unlink(missing_ok=True)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        # Beside the folder: a dataset reader must not meet the lock.
        lock = self._path.with_name(f".{self._path.name}.compaction")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True  # the kernel drops the lock with the process, however it ends


class _Stored:
    """A folder of results in a bucket, with the patience of all that lies there."""

    def __init__(self, root: str, kind: Kind) -> None:
        self._storage = store_of(Places.at(root).url)
        self._prefix = f"results/{kind}/"
        self.place = f"{self._storage.url}/results/{kind}"

    def names(self) -> set[str]:
        entries = self._storage.entries(self._prefix)
        return {entry.name.removeprefix(self._prefix) for entry in entries}

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        wanted = list(names)
        with ThreadPoolExecutor(_THREADS) as pool:
            contents = pool.map(lambda name: self._storage.read(self._prefix + name), wanted)
            return dict(zip(wanted, contents, strict=True))

    def put(self, name: str, content: bytes) -> None:
        self._storage.write(self._prefix + name, content)

    def remove(self, names: Iterable[str]) -> None:
        self._storage.remove(self._prefix + name for name in names)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        # Two at once leave rows twice until the next compaction; readers count them once.
        yield True


class _Remote:
    """A folder of results in another store of fsspec's, for tools; a launch takes only S3."""

    def __init__(self, root: str, kind: Kind) -> None:
        import fsspec  # brings asyncio: for those who need it

        self.place = f"{root.rstrip('/')}/results/{kind}"
        self._fs, self._path = fsspec.core.url_to_fs(self.place)

    def names(self) -> set[str]:
        self._fs.invalidate_cache()
        try:
            return {path.rsplit("/", 1)[-1] for path in self._fs.ls(self._path, detail=False)}
        except FileNotFoundError:
            return set()

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        paths = [f"{self._path}/{name}" for name in names]
        contents = self._fs.cat(paths) if paths else {}
        return {path.rsplit("/", 1)[-1]: content for path, content in contents.items()}

    def put(self, name: str, content: bytes) -> None:
        self._fs.pipe_file(f"{self._path}/{name}", content)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            with suppress(FileNotFoundError):
                self._fs.rm_file(f"{self._path}/{name}")

    @contextmanager
    def alone(self) -> Iterator[bool]:
        # Two at once leave rows twice until the next compaction; readers count them once.
        yield True


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
