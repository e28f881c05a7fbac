"""Reading a packed dataset: a local index, and items in shards, checked by their sha256."""

import hashlib
import json
import os
import shlex
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from datasets.errors import DataError
from datasets.images.tree import Item, Kind
from datasets.shards.download_cache import ItemCache
from datasets.shards.format import read_index, shard_name
from datasets.storage.base import Storage
from datasets.storage.open import open_storage

FORMAT = "ipixmatch shards 1"
PACKED_FILE = "packed.json"  # written last, so its presence says that the rest is complete
INDEX_FILE = "index.parquet"
_AHEAD = 64  # items being fetched or waiting to be read, at most
_THREADS = 8
_TRIES = 3  # a bit may flip on the way, but not again and again
_GAP = 64 * 2**10  # bytes between two items of one request, at most
_SPAN = 4 * 2**20  # bytes of a request for several items, at most

Key: TypeAlias = tuple[Kind, str]


@dataclass(frozen=True)
class _Range:
    """The bytes of an item within a shard."""

    shard: int
    offset: int
    size: int
    sha256: str
    encoding: Any
    width: int
    height: int

    @property
    def end(self) -> int:
        """Offset of the byte after the last one."""
        return self.offset + self.size


class Shards:
    """A `Store` of items in shards; may be used after a fork and sent to another process."""

    def __init__(self, root: Path, storage: Storage, cache: ItemCache | None) -> None:
        """Open a packed dataset.

        Args:
            root: folder with the index.
            storage: holds the shards.
            cache: keeps what was fetched; None where reading is as near as a cache.
        """
        self._root, self._storage, self._cache = root, storage, cache
        self._ranges = _read_ranges(root / INDEX_FILE)
        self._ahead = _Ahead(self._fetched)

    def __getstate__(self) -> tuple[Path, Storage, ItemCache | None]:
        return self._root, self._storage, self._cache

    def __setstate__(self, state: tuple[Path, Storage, ItemCache | None]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def item(self, kind: Kind, name: str) -> Item:
        """One image or mask.

        Raises:
            DataError: it was not packed, or its bytes are damaged.
            Unreachable: the store fails for longer than its patience.
        """
        part = self._ranges.get((kind, name))
        if part is None:
            raise DataError(
                f"{self._storage.url} was packed without the {kind} of {name}. Prove the tree of "
                "files with the lists at hand, then pack it again."
            )
        data = self._ahead.take((kind, name)) or self._fetched([(kind, name)])[kind, name]
        where = f"{self._storage.url}/{shard_name(part.shard)} ({kind} {name})"
        return Item(data, part.encoding, (part.width, part.height), where)

    def has(self, kind: Kind, name: str) -> bool:
        """Whether it was packed."""
        return (kind, name) in self._ranges

    def prefetch(self, wanted: Sequence[Key]) -> None:
        """Fetch items by threads; nothing where there is no cache to spare."""
        if self._cache is not None:
            known = [key for key in wanted if key in self._ranges]
            self._ahead.want(self._grouped(known[:_AHEAD]))

    def _grouped(self, keys: Sequence[Key]) -> list[list[Key]]:
        """Keys whose items lie beside each other in a shard, such as an image and its mask.

        One request brings a group; requests are most of what small items cost.
        """
        groups: list[list[Key]] = []
        for key in sorted(set(keys), key=self._place):
            part = self._ranges[key]
            first, last = (self._ranges[groups[-1][end]] if groups else part for end in (0, -1))
            is_near = 0 < part.offset - last.end <= _GAP and part.end - first.offset <= _SPAN
            if part.shard == last.shard and is_near:
                groups[-1].append(key)
            else:
                groups.append([key])
        order = {key: place for place, key in reversed(list(enumerate(keys)))}
        return sorted(groups, key=lambda group: min(order[key] for key in group))

    def _place(self, key: Key) -> tuple[int, int]:
        return self._ranges[key].shard, self._ranges[key].offset

    def _fetched(self, keys: Sequence[Key]) -> dict[Key, bytes]:
        """The items of a group, from the cache or by one request for all that it lacks."""
        data = {key: kept for key in keys if (kept := self._kept(key))}
        for _ in range(_TRIES):
            lacking = [key for key in keys if key not in data]
            if lacking:
                data |= self._read(lacking)
        for key in keys:
            if key not in data:
                name = shard_name(self._ranges[key].shard)
                raise DataError(
                    f"{self._storage.url}/{name} is damaged at the {key[0]} of {key[1]}. Pack the "
                    "dataset again, or bring a fresh copy of the shard."
                )
        return data

    def _kept(self, key: Key) -> bytes | None:
        part = self._ranges[key]
        kept = self._cache.get(part.sha256) if self._cache else None
        return kept if kept is not None and _is_sound(kept, part) else None

    def _read(self, keys: Sequence[Key]) -> dict[Key, bytes]:
        """The items of a group whose bytes arrive whole, which the cache then has, too."""
        parts = [self._ranges[key] for key in keys]
        start, name = parts[0].offset, shard_name(parts[0].shard)
        try:
            span = self._storage.view(name, start, parts[-1].end - start)
        except FileNotFoundError:
            raise DataError(
                f"{self._storage.url}/{name} is missing. Pack the dataset again, or bring a fresh "
                "copy of the shard."
            ) from None
        whole = {}
        for key, part in zip(keys, parts, strict=True):
            data = bytes(span[part.offset - start : part.end - start])
            if _is_sound(data, part):
                whole[key] = data
                if self._cache is not None:
                    self._cache.put(part.sha256, data)
        return whole


def is_packed(root: Path) -> bool:
    """Whether a folder holds a packed dataset, or the small files of one that lies elsewhere."""
    return (root / PACKED_FILE).is_file()


@lru_cache(maxsize=16)
def download_index(url: str, folder: Path) -> Path:
    """The small files of a packed dataset in an object store, brought into a folder.

    Raises:
        DataError: nothing is packed there.
        Unreachable: the store fails for longer than its patience.
    """
    storage = open_storage(url)
    try:
        about = storage.read(PACKED_FILE)
    except FileNotFoundError as error:
        raise DataError(
            f"{url} holds no packed dataset ({PACKED_FILE} is missing there: {error}). Pack one: "
            f"python -m datasets pack dataset=D root=DIR {shlex.quote(f'to={url}')}"
        ) from error
    mark = folder / PACKED_FILE
    if mark.is_file() and mark.read_bytes() == about:
        return folder
    for name in _about(about, f"{url}/{PACKED_FILE}")["files"]:
        storage.download(name, folder / name)
    storage.download(PACKED_FILE, mark)
    return folder


def _about(content: bytes, path: str) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(content)
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} was not written by this version ({error}). Pack the dataset again."
        ) from error
    return about


def _read_ranges(index: Path) -> dict[Key, _Range]:
    if not index.is_file():
        raise DataError(f"{index} is missing. Pack the dataset again, or bring the file.")
    columns = read_index(index.read_bytes(), str(index))
    keys = zip(columns["kind"], columns["id"], strict=True)
    fields = ("shard", "offset", "size", "sha256", "encoding", "width", "height")
    rows = zip(*(columns[name] for name in fields), strict=True)
    return {key: _Range(*row) for key, row in zip(keys, rows, strict=True)}


def packed_hashes(root: Path) -> dict[Key, str]:
    """sha256 of the items of a packed dataset that are files; none of decoded pixels."""
    ranges = _read_ranges(root / INDEX_FILE)
    return {key: part.sha256 for key, part in ranges.items() if part.encoding == "file"}


def _is_sound(data: bytes, part: _Range) -> bool:
    return len(data) == part.size and hashlib.sha256(data).hexdigest() == part.sha256


@dataclass
class _Ahead:
    """Items that threads fetch before they are read; a forked process starts its own threads."""

    fetch: Callable[[Sequence[Key]], dict[Key, bytes]]
    waiting: "OrderedDict[Key, Future[dict[Key, bytes]]]" = field(default_factory=OrderedDict)
    pool: ThreadPoolExecutor | None = None
    pid: int = 0

    def want(self, groups: Sequence[Sequence[Key]]) -> None:
        """Begin to fetch; beyond the limit those wanted first give way."""
        if self.pool is None or self.pid != os.getpid():
            self.pool, self.pid = ThreadPoolExecutor(_THREADS), os.getpid()
            self.waiting = OrderedDict()
        for group in groups:
            lacking = [key for key in group if key not in self.waiting]
            if lacking:
                coming = self.pool.submit(self.fetch, lacking)
                self.waiting.update(dict.fromkeys(lacking, coming))
        while len(self.waiting) > _AHEAD:
            self.waiting.popitem(last=False)[1].cancel()

    def take(self, key: Key) -> bytes | None:
        """An item that was wanted; None when it was not, or could not be had."""
        if self.pid != os.getpid():
            return None
        coming = self.waiting.pop(key, None)
        if coming is None or coming.cancelled() or coming.exception() is not None:
            return None
        return coming.result().pop(key)
