"""How fast one core reads pairs of image and mask from each source, and that memory stays flat.

    nice python -m benchmarks.sources [s3=no|s3://bucket/prefix] [samples=10000] [seconds=4]
        [images=112]

Scenes of 500 x 375 as JPEG and PNG (VOC's size) are drawn, packed and read in a shuffled order by
one process with one thread. Without s3= a server is started on loopback where Ceph is installed
(tests/boxes); its processes share the cores, so loopback figures are lower bounds. CPU time is that
of this process and all its threads: pairs per CPU-second is what one core gives.
"""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.table import settings
from datasets.config import DataConfig, SyntheticConfig
from datasets.dataset import Dataset, open_dataset
from datasets.location import locate
from datasets.prepare.pack import Packing, pack
from datasets.randomness import Stream, epoch_permutation
from datasets.shards.reader import download_index
from datasets.storage.open import open_storage
from datasets.storage.s3 import Calls
from tests.support.s3.ceph import missing, shared_box, surroundings

DEFAULTS = {"s3": "", "samples": "10000", "seconds": "4", "images": "112"}
DRAWN = SyntheticConfig(num_val=16, width=500, height=375, num_classes=9)
AHEAD = 16


def main(line: list[str]) -> None:
    """Print one line per source."""
    given = settings(line, DEFAULTS)
    samples, seconds = int(given["samples"]), float(given["seconds"])
    with tempfile.TemporaryDirectory() as name, bucket_of(given["s3"]) as url:
        folder = Path(name)
        drawn = replace(DRAWN, num_train=int(given["images"]))
        files = DataConfig(root=str(folder / "files"), split="full", drawn=drawn)
        open_dataset(files)
        print(f"{'source':<34}{'pairs/CPU-s':>15}{'CPU ms/pair':>12}{'pairs/s':>13}")
        show("files", files, seconds)
        for is_decoded in (False, True):
            kind = "decoded" if is_decoded else "encoded"
            packing = Packing(is_decoded=is_decoded, shard_bytes=16 * 2**20)
            near = str(folder / kind)
            pack(locate(files), open_storage(near), packing, lambda line: None)
            show(f"local shards, {kind}", replace(files, root=near), seconds)
            if url:
                far = f"{url}/{kind}"
                pack(locate(files), open_storage(far), packing, lambda line: None)
                show_far(kind, replace(files, root=far), folder / f"cache-{kind}", seconds)
        show_memory(samples, files)
        show_memory(samples, replace(files, root=str(folder / "encoded")))
        if url:
            far = replace(files, root=f"{url}/encoded", cache=str(folder / "small"))
            show_memory(samples // 5, replace(far, cache_gib=0.002))


def show_far(kind: str, config: DataConfig, cache: Path, seconds: float) -> None:
    """From S3: nothing kept, fetched ahead, everything kept."""
    nothing = replace(config, cache=str(cache / "none"), cache_gib=0.0)
    show(f"S3 shards, {kind}, one by one", nothing, seconds)
    show(f"S3 shards, {kind}, {AHEAD} ahead", nothing, seconds, ahead=AHEAD)
    kept = replace(config, cache=str(cache / "kept"))
    opened = open_dataset(kept)
    for name in opened.split.labelled:
        opened.tree.pair(name)
    show(f"S3 shards, {kind}, cache warm", kept, seconds)


def show(label: str, config: DataConfig, least: float, *, ahead: int = 0) -> None:
    """One line, of so many seconds."""
    download_index.cache_clear()
    dataset = open_dataset(config)
    stream, count = pairs(dataset, ahead), 0
    next(stream)  # connections, the index
    start, spent = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < least:
        next(stream)
        count += 1
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    print(
        f"{label:<34}{count / spent:>15.0f}{1000 * spent / count:>12.2f}{count / seconds:>13.0f}",
        flush=True,
    )


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
