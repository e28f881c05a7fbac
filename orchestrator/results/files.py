"""All files of a folder of results as one table, whatever writers and compactions do meanwhile.

A file is either one attempt's, ``<key>.a0001.parquet`` (a failed one ends in ``.failed.parquet``),
or a compaction's, ``compacted-<time>-<id>.parquet``. A compaction writes its file before it removes
the files in it, so an attempt may be there twice and is never absent; here each counts once.
"""

import errno
import fcntl
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.results.row import with_schema
from orchestrator.storage.paths import RootPaths
from orchestrator.storage.s3_root import storage_of

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
        self._storage = storage_of(RootPaths.at(root).url)
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


COMPACTED = re.compile(r"compacted-[0-9TZ]+-[0-9a-f]+\.parquet")

_SINGLE = re.compile(r"(?P<key>.+)\.a(?P<attempt>\d+)(?P<failed>\.failed)?\.parquet")
_THREADS_RESULT_SETS = 8
_TRIES = 20  # each one needs another compaction in the very moment of reading

Reducer = Callable[[pa.Table], pa.Table]


class ResultsError(ValueError):
    """A file among the results cannot be read; the text names it and the cure."""


@dataclass(frozen=True)
class Single:
    """What the name of an attempt's file says."""

    key: str
    attempt: int
    is_failed: bool

    @property
    def name(self) -> str:
        """The file name."""
        return f"{self.key}.a{self.attempt:04d}{'.failed' if self.is_failed else ''}.parquet"


def parse_name(name: str) -> Single | None:
    """What a name says; None for any other file."""
    match = None if name.startswith(".") else _SINGLE.fullmatch(name)
    return match and Single(match["key"], int(match["attempt"]), match["failed"] is not None)


def read_set(folder: RowFolder, schema: pa.Schema, unique: Reducer) -> pa.Table:
    """Every row of the folder in today's layout, each once.

    Args:
        folder: of rows or of history.
        schema: the layout.
        unique: drops what is there twice, and sorts.

    Raises:
        ResultsError: a file is broken, foreign or of a newer schema; nothing is skipped silently.
    """
    contents = stable_contents(folder, result_names)
    tables = parse_all(folder, contents, schema)
    return unique(pa.concat_tables(tables) if tables else schema.empty_table())


def result_names(folder: RowFolder, names: Iterable[str]) -> set[str]:
    """The names that hold results.

    Raises:
        ResultsError: another Parquet file lies among them, which dataset readers would take in.
    """
    shown = {name for name in names if name.endswith(".parquet") and not name.startswith(".")}
    for name in sorted(shown):
        if parse_name(name) is None and not COMPACTED.fullmatch(name):
            raise ResultsError(
                f"{folder.place}/{name} is no row: names there read <key>.a0001.parquet. "
                "Move it away."
            )
    return shown


def stable_contents(
    folder: RowFolder, choose: Callable[[RowFolder, Iterable[str]], set[str]]
) -> dict[str, bytes]:
    """Contents of the chosen files, from a moment in which nothing was half compacted.

    A listing that runs while a compaction does may miss both the old file and the new one; then
    the compacted names differ afterwards, and it is done again.

    Raises:
        ResultsError: the folder changes faster than it can be read.
    """
    for _ in range(_TRIES):
        names = choose(folder, folder.names())
        try:
            contents = folder.read(sorted(names))
        except FileNotFoundError:
            continue
        if _compacted(folder.names()) == _compacted(names):
            return contents
    raise ResultsError(
        f"{folder.place} was compacted {_TRIES} times while it was read; stop the other "
        "compactions and try again."
    )


def parse_all(folder: RowFolder, contents: dict[str, bytes], schema: pa.Schema) -> list[pa.Table]:
    """The table of each file, in today's layout."""
    with ThreadPoolExecutor(_THREADS_RESULT_SETS) as pool:
        return list(pool.map(lambda item: _parse(folder, *item, schema=schema), contents.items()))


def first_of(table: pa.Table, order: Sequence[str], num_key: int) -> pa.Table:
    """The table sorted by columns, with the first row of every combination of the leading ones.

    Args:
        table: rows in any order.
        order: columns to sort by, ascending.
        num_key: how many of them name a row.
    """
    if _is_strictly_ascending(table, order[:num_key]):
        return table  # as a compaction left it: nothing to sort and nothing twice
    indices = pc.sort_indices(table.select(order), [(name, "ascending") for name in order])
    places = np.asarray(indices)
    same = np.ones(max(len(table) - 1, 0), dtype=bool)
    for name in order[:num_key]:
        codes = _codes(table[name])[places]
        same &= codes[1:] == codes[:-1]
    return table.take(pa.array(places[np.append(True, ~same)[: len(table)]]))


def _compacted(names: Iterable[str]) -> set[str]:
    return {name for name in names if COMPACTED.fullmatch(name)}


def _is_strictly_ascending(table: pa.Table, names: Sequence[str]) -> bool:
    """Whether every row has a larger key than the one before."""
    # In Arrow throughout: on their way from or to Python, values load pandas where it is installed.
    undecided = None
    for name in names:
        before, after = table[name][:-1], table[name][1:]
        is_less, is_equal = pc.less(after, before), pc.equal(after, before)
        if pc.any(is_less if undecided is None else pc.and_(undecided, is_less)).as_py():
            return False
        undecided = is_equal if undecided is None else pc.and_(undecided, is_equal)
    return not pc.any(undecided).as_py()


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Numbers that are equal where the values are."""
    if pa.types.is_string(column.type):
        column = column.combine_chunks().dictionary_encode().indices
    return np.asarray(column)


def _parse(folder: RowFolder, name: str, content: bytes, *, schema: pa.Schema) -> pa.Table:
    """The table in one file."""
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        table = _columns(file, schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ResultsError(
            f"{folder.place}/{name} is no readable row ({error}). Move it away and launch the "
            "grid again; its cell will then count as missing."
        ) from error
    try:
        return with_schema(table, schema)
    except (pa.ArrowException, ValueError) as error:
        raise ResultsError(f"{folder.place}/{name} {error}") from error


def _columns(file: pq.ParquetFile, schema: pa.Schema) -> pa.Table:
    """The wanted columns, of those that the file has."""
    there = set(file.schema_arrow.names)
    wanted = [name for name in schema.names if name in there]
    # Naming every column costs more than reading them: a small file is read whole.
    return file.read(columns=wanted if len(wanted) < len(there) else None, use_threads=False)
