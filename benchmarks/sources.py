"""What a pair of image and mask costs one core from each source, and that memory stays flat.

    nice python -m benchmarks.sources [s3=no|s3://bucket/prefix] [samples=10000] [rounds=5]
        [images=112]

Scenes of 500 x 375 as JPEG and PNG (VOC's size) are drawn, packed and read in a shuffled order by
one process that decodes with one thread. Without s3= a server is started on loopback where Ceph is
installed (tests/support/s3). Figures are CPU time of this process with all its threads: the server
shares the cores, so seconds on the clock say nothing.

Nothing is kept of what comes from S3 unless the line says so. The last two lines are bounds: the
same ranges by s3fs as it is, and by a bare socket, each with the reading of local shards added.
"""

import os
import resource
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import s3fs  # type: ignore[import-untyped]

from benchmarks.table import in_turn, print_table, settings
from datasets.config import DataConfig, SyntheticConfig
from datasets.dataset import Dataset, open_dataset
from datasets.location import locate
from datasets.prepare.pack import Packing, pack
from datasets.randomness import Stream, epoch_permutation
from datasets.shards.format import read_index, shard_name
from datasets.shards.reader import INDEX_FILE, download_index
from datasets.storage.open import open_storage
from datasets.storage.s3 import Calls
from tests.support.s3.ceph import missing, shared_box, surroundings

DEFAULTS = {"s3": "", "samples": "10000", "rounds": "5", "images": "112"}
DRAWN = SyntheticConfig(num_val=16, width=500, height=375, num_classes=9)
AHEAD = 16


def main(line: list[str]) -> None:
    """Print a table of files as they are and one of decoded pixels, then the memory."""
    given = settings(line, DEFAULTS)
    samples, rounds = int(given["samples"]), int(given["rounds"])
    with tempfile.TemporaryDirectory() as name, bucket_of(given["s3"]) as url:
        folder = Path(name)
        drawn = replace(DRAWN, num_train=int(given["images"]))
        files = DataConfig(root=str(folder / "files"), split="full", drawn=drawn)
        open_dataset(files)
        for kind in ("encoded", "decoded"):
            packing = Packing(is_decoded=kind == "decoded", shard_bytes=16 * 2**20)
            near = replace(files, root=str(folder / kind))
            pack(locate(files), open_storage(near.root), packing, lambda line: None)
            calls: dict[str, Callable[[], object]] = {
                "local shards": reads(near),
                "files": reads(files),
            }
            if url:
                far = replace(files, root=f"{url}/{kind}", cache=str(folder / f"cache-{kind}"))
                pack(locate(files), open_storage(far.root), packing, lambda line: None)
                calls |= far_calls(near, far)
            columns = in_turn(calls, rounds=rounds)
            for column in columns:
                column.values[:] = [value / drawn.num_train for value in column.values]
            print_table(f"CPU time of a pair, {kind}", columns, digits=2)
        show_memory(samples, files)
        show_memory(samples, replace(files, root=str(folder / "encoded")))
        if url:
            far = replace(files, root=f"{url}/encoded", cache=str(folder / "small"))
            show_memory(samples // 5, replace(far, cache_gib=0.002))


def far_calls(near: DataConfig, far: DataConfig) -> dict[str, Callable[[], object]]:
    """Calls that read all pairs of a bucket in several ways."""
    nothing = replace(far, cache_gib=0.0)
    emptied, kept = (replace(far, cache=f"{far.cache}/{name}") for name in ("emptied", "kept"))
    into_cache, local = reads(emptied, ahead=AHEAD), reads(near)
    bare = Bare(far.root, ranges_of(near))

    def fill() -> None:
        for path in Path(emptied.cache, "items").glob("??/*"):
            path.unlink()
        into_cache()

    return {
        f"S3, {AHEAD} ahead": reads(nothing, ahead=AHEAD),
        "S3, one by one": reads(nothing),
        f"S3, {AHEAD} ahead, into an empty cache": fill,
        "S3, all in the cache": reads(kept),
        "the same ranges by s3fs": after(local, bare.by_s3fs),
        "the same ranges by a socket": after(local, bare.by_socket),
    }


def after(one: Callable[[], None], other: Callable[[], None]) -> Callable[[], None]:
    """Both, one after the other."""

    def call() -> None:
        one()
        other()

    return call


def reads(config: DataConfig, *, ahead: int = 0) -> Callable[[], None]:
    """A call that reads every pair once, each time in another order."""
    download_index.cache_clear()
    dataset = open_dataset(config)
    stream = pairs(dataset, ahead)

    def call() -> None:
        for _ in dataset.split.labelled:
            next(stream)

    return call


def ranges_of(near: DataConfig) -> list[tuple[str, int, int]]:
    """Shard, first byte and number of bytes of each pair."""
    path = Path(near.root) / INDEX_FILE
    index = read_index(path.read_bytes(), str(path))
    rows = zip(*(index[name] for name in ("kind", "id", "shard", "offset", "size")), strict=True)
    items = {(kind, name): where for kind, name, *where in rows}
    ranges = []
    for name in open_dataset(near).split.labelled:
        (shard, start, _), (_, offset, size) = items["image", name], items["mask", name]
        ranges.append((shard_name(shard), start, offset + size - start))
    return ranges


class Bare:
    """Ranges of a bucket, fetched without any of our code."""

    def __init__(self, url: str, ranges: list[tuple[str, int, int]]) -> None:
        self._files, self._url, self._ranges = s3fs.S3FileSystem(), url, ranges
        names = {name for name, _, _ in ranges}
        self._signed = {name: urlsplit(self._files.url(f"{url}/{name}")) for name in names}
        self._buffer = memoryview(bytearray(4096 + max(size for _, _, size in ranges)))

    def by_s3fs(self) -> None:
        """One call of the library for each range."""
        for name, start, size in self._ranges:
            data = self._files.cat_file(f"{self._url}/{name}", start=start, end=start + size)
            assert len(data) == size

    def by_socket(self) -> None:
        """Nothing between this loop and the kernel, and nothing kept of what arrives."""
        at = next(iter(self._signed.values()))
        with socket.create_connection((at.hostname, at.port)) as server:
            for name, start, size in self._ranges:
                url = f"{self._signed[name].path}?{self._signed[name].query}"
                wanted = f"Host: {at.netloc}\r\nRange: bytes={start}-{start + size - 1}"
                server.sendall(f"GET {url} HTTP/1.1\r\n{wanted}\r\n\r\n".encode())
                end = got = 0
                while not end or got < end:
                    got += server.recv_into(self._buffer[got:])
                    head = bytes(self._buffer[:4096]).find(b"\r\n\r\n") if not end else 0
                    end = end or (head + 4 + size if head > 0 else 0)
                assert bytes(self._buffer[:12]) == b"HTTP/1.1 206"


def show_memory(samples: int, config: DataConfig) -> None:
    """Resident memory after a tenth of so many samples, and after all."""
    stream = pairs(open_dataset(config), 0)
    for _ in range(samples // 10):
        next(stream)
    before = resident()
    for _ in range(samples - samples // 10):
        next(stream)
    place = config.root if "://" in config.root else Path(config.root).name
    print(
        f"memory, {place}: {before:.1f} MiB after {samples // 10} pairs, {resident():.1f} after "
        f"{samples}",
        flush=True,
    )


def pairs(dataset: Dataset, ahead: int) -> Iterator[object]:
    """Pairs in a shuffled order, without end."""
    names = dataset.split.labelled
    epoch = 0
    while True:
        order = epoch_permutation(0, Stream.LABELLED_ORDER, epoch, len(names))
        shuffled = [names[index] for index in order]
        for place, name in enumerate(shuffled):
            if ahead and place % (ahead // 2) == 0:
                coming = shuffled[place : place + ahead]
                dataset.tree.prefetch(coming, coming)
            yield dataset.tree.pair(name)
        epoch += 1


def resident() -> float:
    """MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@contextmanager
def bucket_of(url: str) -> Iterator[str]:
    """The given place, or a bucket of a server started here; empty without one."""
    if url == "no":
        yield ""
        return
    if url or missing():
        if not url:
            print(f"left out: S3, since {missing()[0]} is not installed")
        yield url
        return
    with surroundings(shared_box().port):
        Calls("benchmark", 30.0, 10.0).ask("create_bucket")
        yield "s3://benchmark"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(sys.argv[1:])
