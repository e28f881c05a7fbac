"""CPU time of the input pipeline against UniMatch's: ``python -m benchmarks.input [rounds=N]``.

One pair is one labelled and one unlabelled sample with its CutMix partner. Time is that of this
process on one thread; the variants take turns on the same samples, so that other work on the
machine hits all alike. Ratios are medians of the ratios of single rounds. The first round, which
fills the caches, is thrown away.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from PIL import Image
from torch import Tensor

from benchmarks import baseline_pipeline
from benchmarks.input_files import CITYSCAPES, VOC, Kind, mean_bytes, written
from datasets.augment import Geometry, draw_box, draw_geometry, draw_photometry
from datasets.config import DataConfig
from datasets.decoded import DecodedTree
from datasets.order import Order
from datasets.photo import Photos
from datasets.randomness import Draws, Stream
from datasets.samples import LabelledSource, UnlabelledSource
from datasets.tree import ImageTree
from trainer.pixels import normalise

Pair: TypeAlias = tuple[tuple[Tensor, Tensor], tuple[Tensor, ...], tuple[Tensor, ...]]

SEED, NUM_BITS = 1, 256 + 2048


@dataclass(frozen=True)
class Baseline:
    """UniMatch's pipeline on our draws."""

    tree: ImageTree
    labelled: Order
    unlabelled: Order
    sizes: dict[str, tuple[int, int]]
    crop: int

    def pair(self, position: int) -> Pair:
        """One labelled sample, one unlabelled one, its partner."""
        name, tree = self.labelled.at(position), self.tree
        labelled = baseline_pipeline.labelled_sample(
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
        first, second = (draw_photometry(Draws(SEED, stream, position)) for stream in strong)
        boxes = tuple(
            draw_box(Draws(SEED, stream, position), self.crop)
            for stream in (Stream.BOX_1, Stream.BOX_2)
        )
        return baseline_pipeline.unlabelled_sample(
            self.tree.image_path(name),
            self.tree.mask_path(name),
            self._geometry(crop, position, name),
            (first, second),
            (boxes[0], boxes[1]),
        )

    def _geometry(self, stream: Stream, position: int, name: str) -> Geometry:
        draws = Draws(SEED, stream, position)
        return draw_geometry(draws, self.sizes[name], crop=self.crop, scale_min=0.5, scale_max=2.0)


@dataclass(frozen=True)
class Ours:
    """Our sources: views made on the host, or windows for a device."""

    labelled: LabelledSource
    unlabelled: UnlabelledSource

    @classmethod
    def of(cls, photos: Photos, names: list[str], crop: int) -> "Ours":
        """The sources of one crop size."""
        config = DataConfig(crop=crop)
        return cls(
            LabelledSource(photos, names, config, SEED),
            UnlabelledSource(photos, names, config, SEED),
        )

    def views(self, position: int) -> None:
        """Everything on the host, as bytes."""
        self.labelled.batch([position], NUM_BITS)
        self.unlabelled.batch([position], NUM_BITS, batch=1)

    def normalised_views(self, position: int) -> None:
        """The same, and what a trainer on this CPU would do to the bytes."""
        labelled = self.labelled.batch([position], NUM_BITS)
        batch = self.unlabelled.batch([position], NUM_BITS, batch=1)
        for images in (labelled.images, batch.weak, batch.mix_weak, *batch.strong):
            normalise(images)

    def windows(self, position: int) -> None:
        """Decoded and copied; the device does the rest."""
        self.labelled.windows([position], NUM_BITS)
        self.unlabelled.windows([position], NUM_BITS, batch=1)


@dataclass(frozen=True)
class Decoding:
    """What no pipeline that reads the original files through Pillow can go below."""

    tree: ImageTree
    labelled: Order
    unlabelled: Order

    def pair(self, position: int) -> None:
        """Both images and the one mask that is needed."""
        for path in (
            self.tree.image_path(self.labelled.at(position)),
            self.tree.mask_path(self.labelled.at(position)),
            self.tree.image_path(self.unlabelled.at(position)),
        ):
            with Image.open(path) as image:
                image.load()


def variants(kind: Kind, folder: Path) -> dict[str, Callable[[int], object]]:
    """What is measured, the yardstick first."""
    tree, names = written(kind, folder / "files")
    print(f"{kind.name}: {kind.count} images, {mean_bytes(tree, names) / 1e3:.0f} kB each")
    decoded = DecodedTree(tree, folder / "cache", fingerprint="", reserve_bytes=0)
    files, cached = Ours.of(tree, names, kind.crop), Ours.of(decoded, names, kind.crop)
    orders = (
        Order(names, seed=SEED, stream=Stream.LABELLED_ORDER),
        Order(names, seed=SEED, stream=Stream.UNLABELLED_ORDER),
    )
    sizes = {name: tree.image(name).size for name in names}
    baseline = Baseline(tree, *orders, sizes, kind.crop)
    return {
        "UniMatch, plain": baseline.pair,
        "host": files.views,
        "host, normalised too": files.normalised_views,
        "device": files.windows,
        "(decoding alone)": Decoding(tree, *orders).pair,
        "host, decoded cache": cached.views,
        "device, decoded cache": cached.windows,
    }


def measured(
    todo: dict[str, Callable[[int], object]], rounds: int, pairs: int
) -> dict[str, list[float]]:
    """CPU milliseconds per pair, of each round."""
    times: dict[str, list[float]] = {name: [] for name in todo}
    for turn in range(rounds + 1):
        positions = range(turn * pairs, (turn + 1) * pairs)
        for name, function in todo.items():
            started = time.process_time()
            for position in positions:
                function(position)
            times[name].append(1e3 * (time.process_time() - started) / pairs)
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


def main() -> None:
    """Both kinds of files."""
    torch.set_num_threads(1)
    given = [argument.removeprefix("rounds=") for argument in sys.argv[1:]]
    rounds = int(given[0]) if given else 10
    for kind, pairs in ((VOC, 16), (CITYSCAPES, 2)):
        with tempfile.TemporaryDirectory() as folder:
            todo = variants(kind, Path(folder))
            for photo in range(kind.count):  # every image is in the cache before the clock runs
                todo["device, decoded cache"](photo)
            printed(kind, measured(todo, rounds, pairs))


if __name__ == "__main__":
    main()
