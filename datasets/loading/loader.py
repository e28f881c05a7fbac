"""What one rank loads, prepared ahead by worker processes if wanted.

The batches of training, from any step to any step, and the whole images of validation.
"""

import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from datasets.config import DataConfig
from datasets.dataset import Dataset
from datasets.images.decoded_cache import DecodedCache
from datasets.images.lazy import LazyTree
from datasets.images.pixels import ImageSource, whole_of
from datasets.images.predicted import WithPredicted
from datasets.loading.batches import (
    LabelledBatch,
    LabelledWindows,
    UnlabelledBatch,
    UnlabelledWindows,
    ViewPlan,
)
from datasets.loading.hint import Hint
from datasets.loading.samples import LabelledSource, UnlabelledSource

Step: TypeAlias = tuple[LabelledBatch | LabelledWindows, UnlabelledBatch | UnlabelledWindows | None]
_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Which steps and which rank's part of them to load, and how.

    Attributes:
        batch: images per step over all ranks; as many unlabelled ones.
        rank: of this process.
        world_size: number of ranks; where it does not divide the batch, parts are unequal.
        start: first step.
        stop: step to end before.
        workers: processes that prepare batches; 0 prepares them here.
        num_channel_bits: channel-dropout bits per image.
        unlabelled: whether unlabelled images are wanted.
        views: which views of the images are made.
        hint: of the epoch in which all these steps lie, where the views need one.
        on_device: whether the device that trains resizes and augments; the host then hands over
            windows and drawn parameters (`datasets/loading/device.py` makes the same bits).
        cache: folder for decoded images, perhaps of an earlier run; None decodes every time.
    """

    batch: int
    stop: int
    rank: int = 0
    world_size: int = 1
    start: int = 0
    workers: int = 0
    num_channel_bits: int = 0
    unlabelled: bool = True
    views: ViewPlan = field(default_factory=ViewPlan)
    hint: Hint | None = None
    on_device: bool = False
    cache: Path | None = None

    def positions(self, step: int) -> range:
        """Global positions of this rank's images of one step."""
        first = step * self.batch
        low = self.rank * self.batch // self.world_size
        high = (self.rank + 1) * self.batch // self.world_size
        return range(first + low, first + high)


def batches(dataset: Dataset, config: DataConfig, *, seed: int, plan: BatchPlan) -> Iterator[Step]:
    """The batches of steps `plan.start` to `plan.stop`.

    They depend on the data, the configuration, the seed and the step only: not on the number of
    workers, the first step, or any random state; ranks share them out by slot.

    Args:
        dataset: opened; its split names the images.
        config: how crops are cut.
        seed: of the run.
        plan: which steps, which rank.

    Returns:
        An iterator; closing it early ends its workers.

    Raises:
        ValueError: the crop cannot be cut, the plan has no image for some rank, or it wants
            unlabelled images of a split that has none.
    """
    _check_crop(config)
    _check(dataset, plan)
    steps = _Steps(dataset, config, seed, plan)
    wanted = range(plan.start, plan.stop)
    if plan.workers == 0:
        return (steps[step] for step in wanted)
    return _from_workers(steps, wanted, plan.workers)


def validation_images(
    dataset: Dataset, names: Sequence[str], *, workers: int = 0, cache: Path | None = None
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Images (3, H, W) and masks (H, W), uint8, whole and in the order of `names`.

    Args:
        dataset: opened.
        names: ids of the images.
        workers: processes that read ahead; with 0 a thread of this process reads the next image.
        cache: folder for decoded images, as `BatchPlan.cache`.

    Returns:
        An iterator; closing it early ends its workers.

    Raises:
        DataError: an image is missing, cannot be decoded, or does not fit its mask.
    """
    images = _WholeImages(_image_source(dataset, cache), names, ahead=max(workers, 1))
    wanted = range(len(names))
    return _from_workers(images, wanted, workers) if workers else _from_thread(images, wanted)


def whole_images(
    dataset: Dataset, names: Sequence[str], *, workers: int = 0, cache: Path | None = None
) -> Generator[Tensor, None, None]:
    """Images alone, uint8 (3, H, W); else as `validation_images`."""
    images = _ImagesAlone(_image_source(dataset, cache), names, ahead=max(workers, 1))
    wanted = range(len(names))
    return _from_workers(images, wanted, workers) if workers else _from_thread(images, wanted)


class _WholeImages(TorchDataset[tuple[Tensor, Tensor]]):
    """Item `index` is the image and the mask of name `index`."""

    def __init__(self, source: ImageSource, names: Sequence[str], *, ahead: int) -> None:
        self._source, self._names, self._ahead = source, names, ahead

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        coming = self._names[index + self._ahead : index + self._ahead + 1]
        self._source.prefetch(coming, coming)
        image, mask = (whole_of(pixels) for pixels in self._source.pair(self._names[index]))
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)


class _ImagesAlone(TorchDataset[Tensor]):
    """Item `index` is the image of name `index`; no mask is opened."""

    def __init__(self, source: ImageSource, names: Sequence[str], *, ahead: int) -> None:
        self._source, self._names, self._ahead = source, names, ahead

    def __getitem__(self, index: int) -> Tensor:
        self._source.prefetch(self._names[index + self._ahead : index + self._ahead + 1])
        return torch.from_numpy(whole_of(self._source.image(self._names[index]))).permute(2, 0, 1)


class _Steps(TorchDataset[Step]):
    """Item `step` is the whole batch of that step, so that workers share nothing."""

    def __init__(self, dataset: Dataset, config: DataConfig, seed: int, plan: BatchPlan) -> None:
        split, source = dataset.split, _image_source(dataset, plan.cache)
        self._plan = plan
        ids, predicted = split.labelled, dataset.predicted
        if predicted is not None:
            ids, source = predicted.training_list(ids), WithPredicted(source, predicted)
        views, hint = plan.views, plan.hint
        self._labelled = LabelledSource(source, ids, config, seed, plan=views, hint=hint)
        self._unlabelled = (
            UnlabelledSource(source, split.unlabelled, config, seed, plan=views, hint=hint)
            if plan.unlabelled
            else None
        )

    def __getitem__(self, step: int) -> Step:
        plan, positions = self._plan, self._plan.positions(step)
        bits, first, second = plan.num_channel_bits, self._labelled, self._unlabelled
        # torch deals steps to the workers in turn, so this is the next one of this process.
        self._announce(step + max(plan.workers, 1))
        if plan.on_device:
            windows = first.windows(positions, bits)
            if second is None:
                return windows, None
            return windows, second.windows(positions, bits, batch=plan.batch)
        labelled = first.batch(positions, bits)
        if second is None:
            return labelled, None
        return labelled, second.batch(positions, bits, batch=plan.batch)

    def _announce(self, step: int) -> None:
        plan, positions = self._plan, self._plan.positions(step)
        if step < plan.stop:
            self._labelled.announce(positions)
            if self._unlabelled is not None:
                self._unlabelled.announce(positions, batch=plan.batch)


def _image_source(dataset: Dataset, cache: Path | None) -> ImageSource:
    if cache is None:
        return LazyTree(dataset.tree)
    return DecodedCache(dataset.tree, cache, fingerprint=dataset.fingerprint)


def _from_thread(items: TorchDataset[_Item], wanted: range) -> Generator[_Item, None, None]:
    """The wanted items in order; a thread prepares the next one while this one is used."""
    ahead: deque[Future[_Item]] = deque()
    with ThreadPoolExecutor(1) as reader:
        for index in wanted:
            ahead.append(reader.submit(items.__getitem__, index))
            if len(ahead) == 2:
                yield ahead.popleft().result()
        for last in ahead:
            yield last.result()


def _from_workers(
    items: TorchDataset[_Item], wanted: range, workers: int
) -> Generator[_Item, None, None]:
    """The wanted items in order, prepared by processes (torch gives each of them one thread)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer cores than workers, fork with threads: as asked for
        loader = DataLoader(
            items,
            batch_size=None,  # an item of training is already the batch of a step
            sampler=wanted,
            num_workers=workers,
            collate_fn=_as_it_is,
            # Without it, DataLoader draws the workers' seeds from torch's global random state.
            generator=torch.Generator(),
        )
        iterator = iter(loader)
    try:
        yield from iterator
    finally:
        # Otherwise the workers live on until the iterator is garbage-collected.
        shutdown = getattr(iterator, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()


def _as_it_is(step: Any) -> Any:  # Any: torch types it for lists of samples
    return step


def _check_crop(config: DataConfig) -> None:
    if config.crop < 1 or not 0 < config.scale_min <= config.scale_max:
        raise ValueError(
            f"A crop of {config.crop} pixels from images scaled by {config.scale_min} to "
            f"{config.scale_max} cannot be cut; data.crop is at least 1, and data.scale_min is "
            "positive and at most data.scale_max."
        )


def _check(dataset: Dataset, plan: BatchPlan) -> None:
    if not 0 <= plan.rank < plan.world_size:
        raise ValueError(f"Rank {plan.rank} is not in a world of {plan.world_size}.")
    if plan.batch < plan.world_size:
        raise ValueError(
            f"A batch of {plan.batch} leaves some of the {plan.world_size} ranks without an image. "
            "Raise optim.batch, or start fewer ranks."
        )
    if plan.views.needs_hint and plan.hint is None:
        raise ValueError(
            "The views name partners or classes that a hint chooses, and there is none; "
            "`Method.hint` of the method must return one."
        )
    if plan.unlabelled and not dataset.split.unlabelled:
        raise ValueError(
            f"Split {dataset.split.name!r} of {dataset.spec.name} has no unlabelled images. "
            "Use method=supervised, or a split that leaves some images without label."
        )
