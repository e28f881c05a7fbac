"""CPU time of the input pipeline against UniMatch's: `python -m benchmarks.input [key=value ...]`.

One pair is one labelled and one unlabelled sample with its CutMix partner; a step makes four of
them, the paper's batch (UniMatch* on one device). Time is that of this process on one thread; the
variants take turns on the same samples, so that other work on the machine hits all alike. Ratios
are medians of the ratios of single rounds. The first round, which fills the caches, is thrown away.
Settings: rounds, kinds (voc,cityscapes).
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from PIL import Image
from torch import Tensor

from benchmarks.input import official
from benchmarks.input.files import CITYSCAPES, VOC, Kind, mean_bytes, written
from benchmarks.table import settings
from datasets.augment.host import Geometry, ScaleRule, draw_box, draw_geometry, draw_photometry
from datasets.config import DataConfig
from datasets.images import png
from datasets.images.decoded_cache import DecodedCache
from datasets.images.lazy import LazyTree
from datasets.images.pixels import ImageSource
from datasets.images.tree import ImageTree
from datasets.loading.batches import LabelledWindows, UnlabelledWindows
from datasets.loading.samples import EpochOrder, LabelledSource, UnlabelledSource
from datasets.randomness import KeyedRandom, Stream
from trainer.network.deeplab import normalise

Pair: TypeAlias = tuple[tuple[Tensor, Tensor], tuple[Tensor, ...], tuple[Tensor, ...]]

Todo: TypeAlias = Callable[[range], object]  # given the positions of a step

SEED, NUM_BITS, BATCH = 1, 256 + 2048, 4


@dataclass(frozen=True)
class Baseline:
    """UniMatch's pipeline on our draws."""

    tree: ImageTree
    labelled: EpochOrder
    unlabelled: EpochOrder
    sizes: dict[str, tuple[int, int]]
    crop: int

    def pair(self, position: int) -> Pair:
        """One labelled sample, one unlabelled one, its partner."""
        name, tree = self.labelled.at(position), self.tree
        labelled = official.labelled_sample(
            tree.image_path(name),
            tree.mask_path(name),
            self._geometry(Stream.LABELLED_CROP, position, name),
        )
        strong, mixed = (
            (Stream.STRONG_1, Stream.STRONG_2),
            (Stream.MIX_STRONG_1, Stream.MIX_STRONG_2),
        )
        view = self._unlabelled(position, Stream.UNLABELLED_CROP, strong)
        return labelled, view, self._unlabelled(position, Stream.MIX_CROP, mixed)

    def _unlabelled(
        self, position: int, crop: Stream, strong: tuple[Stream, Stream]
    ) -> tuple[Tensor, ...]:
        name = self.unlabelled.at(position)
        first, second = (draw_photometry(KeyedRandom(SEED, stream, position)) for stream in strong)
        boxes = tuple(
            draw_box(KeyedRandom(SEED, stream, position), self.crop)
            for stream in (Stream.BOX_1, Stream.BOX_2)
        )
        return official.unlabelled_sample(
            self.tree.image_path(name),
            self.tree.mask_path(name),
            self._geometry(crop, position, name),
            (first, second),
            (boxes[0], boxes[1]),
        )

    def _geometry(self, stream: Stream, position: int, name: str) -> Geometry:
        draws = KeyedRandom(SEED, stream, position)
        return draw_geometry(draws, self.sizes[name], crop=self.crop, rule=ScaleRule())


@dataclass(frozen=True)
class Ours:
    """Our sources: views made on the host, or windows for a device."""

    labelled: LabelledSource
    unlabelled: UnlabelledSource

    @classmethod
    def of(cls, source: ImageSource, names: list[str], crop: int) -> "Ours":
        """The sources of one crop size."""
        config = DataConfig(crop=crop)
        return cls(
            LabelledSource(source, names, config, SEED),
            UnlabelledSource(source, names, config, SEED),
        )

    def views(self, positions: range) -> None:
        """Everything on the host, as bytes."""
        self.labelled.batch(positions, NUM_BITS)
        self.unlabelled.batch(positions, NUM_BITS, batch=len(positions))

    def normalised_views(self, positions: range) -> None:
        """The same, and what a trainer on this CPU would do to the bytes."""
        labelled = self.labelled.batch(positions, NUM_BITS)
        batch = self.unlabelled.batch(positions, NUM_BITS, batch=len(positions))
        for images in (labelled.images, batch.weak, batch.mix_weak, *batch.strong):
            normalise(images)

    def windows(self, positions: range) -> tuple[LabelledWindows, UnlabelledWindows]:
        """Decoded and copied; the device does the rest."""
        return (
            self.labelled.windows(positions, NUM_BITS),
            self.unlabelled.windows(positions, NUM_BITS, batch=len(positions)),
        )


@dataclass(frozen=True)
class Decoding:
    """What no pipeline that reads the original files through Pillow can go below."""

    tree: ImageTree
    labelled: EpochOrder
    unlabelled: EpochOrder

    def pair(self, position: int) -> None:
        """Both images and the one mask that is needed."""
        for path in (
            self.tree.image_path(self.labelled.at(position)),
            self.tree.mask_path(self.labelled.at(position)),
            self.tree.image_path(self.unlabelled.at(position)),
        ):
            with Image.open(path) as image:
                image.load()


def with_pillow_alone(function: Todo) -> Todo:
    """The same where the extra `fast` is not installed."""

    def alone(positions: range) -> None:
        installed, png.decoder = png.decoder, lambda: None
        try:
            function(positions)
        finally:
            png.decoder = installed

    return alone


def one_by_one(function: Callable[[int], object]) -> Todo:
    """The positions in turn."""

    def each(positions: range) -> None:
        for position in positions:
            function(position)

    return each


def variants(kind: Kind, folder: Path) -> dict[str, Todo]:
    """What is measured, the yardstick first."""
    tree, names = written(kind, folder / "files")
    print(f"{kind.name}: {kind.count} images, {mean_bytes(tree, names) / 1e3:.0f} kB each")
    decoded = DecodedCache(tree, folder / "cache", fingerprint="", reserve_bytes=0)
    files = Ours.of(LazyTree(tree), names, kind.crop)
    cached = Ours.of(decoded, names, kind.crop)
    orders = (
        EpochOrder(names, seed=SEED, stream=Stream.LABELLED_ORDER),
        EpochOrder(names, seed=SEED, stream=Stream.UNLABELLED_ORDER),
    )
    sizes = {name: tree.image(name).size for name in names}
    baseline = Baseline(tree, *orders, sizes, kind.crop)
    steps = [range(4 * step, 4 * step + 4) for step in range(5)]
    theirs, ours = (
        sum(num_bytes(made) for made in handed) / 20e6
        for handed in (
            [baseline.pair(position) for step in steps for position in step],
            [files.windows(step) for step in steps],
        )
    )
    print(f"MB a pair that workers hand over: {theirs:.2f} by UniMatch, {ours:.2f} for a device")
    return {
        "UniMatch, plain": one_by_one(baseline.pair),
        "host, Pillow alone": with_pillow_alone(files.views),
        "host": files.views,
        "host, normalised too": files.normalised_views,
        "device, Pillow alone": with_pillow_alone(files.windows),
        "device": files.windows,
        "device, steps of one pair": one_by_one(lambda spot: files.windows(range(spot, spot + 1))),
        "(decoding all with Pillow, no more)": one_by_one(Decoding(tree, *orders).pair),
        "host, decoded cache": cached.views,
        "device, decoded cache": cached.windows,
    }


def num_bytes(value: object) -> int:
    """Of all tensors in a batch."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, tuple):
        return sum(num_bytes(entry) for entry in value)
    return sum(num_bytes(entry) for entry in vars(value).values()) if is_dataclass(value) else 0


def measured(todo: dict[str, Todo], rounds: int, steps: int) -> dict[str, list[float]]:
    """CPU milliseconds per pair, of each round."""
    times: dict[str, list[float]] = {name: [] for name in todo}
    for turn in range(rounds + 1):
        for name, function in todo.items():
            started = time.process_time()
            for step in range(turn * steps, (turn + 1) * steps):
                function(range(step * BATCH, (step + 1) * BATCH))
            times[name].append(1e3 * (time.process_time() - started) / (steps * BATCH))
    return {name: values[1:] for name, values in times.items()}


def printed(kind: Kind, times: dict[str, list[float]]) -> None:
    """A Markdown table."""
    first = next(iter(times.values()))
    print(f"\n| {kind.name}, per pair | CPU ms | ratio | 10 to 90 % |\n|---|---|---|---|")
    for name, values in times.items():
        ratios = [one / other for one, other in zip(first, values, strict=True)]
        tenths = statistics.quantiles(ratios, n=10)
        print(
            f"| {name} | {statistics.median(values):.2f} | {statistics.median(ratios):.1f} "
            f"| {tenths[0]:.1f} to {tenths[-1]:.1f} |"
        )
    print(flush=True)


def main(words: list[str]) -> None:
    """Both kinds of files."""
    given = settings(words, {"rounds": "10", "kinds": "voc,cityscapes"})
    torch.set_num_threads(1)
    kinds = {"voc": (VOC, 4), "cityscapes": (CITYSCAPES, 1)}
    for kind, steps in (kinds[name] for name in given["kinds"].split(",")):
        with tempfile.TemporaryDirectory() as folder:
            todo = variants(kind, Path(folder))
            # Every image is in the cache before the clock runs.
            todo["device, decoded cache"](range(kind.count))
            printed(kind, measured(todo, int(given["rounds"]), steps))


if __name__ == "__main__":
    main(sys.argv[1:])
