"""The samples of one step; every pixel depends on (seed, global position) alone.

A source first draws the parameters of every view. Then it either makes the views here, or returns
the inputs from which a device makes them, to the same bytes.
Legend: B images of this rank, S x S pixels, K channel bits. Position = step * batch + slot, with
`batch` counted over all ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datasets.augment.device_inputs import stages_of, windows_of
from datasets.augment.host import (
    Box,
    Geometry,
    Photometry,
    box_map,
    draw_box,
    draw_geometry,
    draw_photometry,
    padded_map,
    strong_image,
    weak_image,
)
from datasets.augment.resize import span
from datasets.config import DataConfig, MixSource
from datasets.images.pixels import ImageLike, ImageSource, LazyImage, size_of
from datasets.loading.batches import LabelledBatch as LabelledBatch
from datasets.loading.batches import (
    LabelledWindows,
    UnlabelledWindows,
    channel_bits,
    stack_images,
    stack_masks,
)
from datasets.loading.batches import UnlabelledBatch as UnlabelledBatch
from datasets.randomness import KeyedRandom, Stream, epoch_permutation


class EpochOrder:
    """The id at each global position: the list is shuffled anew for every pass over it."""

    def __init__(self, ids: Sequence[str], *, seed: int, stream: Stream) -> None:
        """Keep the list.

        Args:
            ids: the list, at least one.
            seed: of the run.
            stream: one of the ORDER streams.
        """
        self._ids = ids
        self._seed = seed
        self._stream = stream
        self._passes: dict[int, NDArray[np.int64]] = {}

    def at(self, position: int) -> str:
        """The id at a global position."""
        epoch, index = divmod(position, len(self._ids))
        if epoch not in self._passes:
            if len(self._passes) > 8:  # a bounded cache; a batch spans few passes
                self._passes.clear()
            order = epoch_permutation(self._seed, self._stream, epoch, len(self._ids))
            self._passes[epoch] = order
        return self._ids[int(self._passes[epoch][index])]


_LABELLED_BITS, _UNLABELLED_BITS = 0, 1  # numbers in the stream DROPOUT


class LabelledSource:
    """Makes labelled batches."""

    def __init__(
        self, source: ImageSource, ids: Sequence[str], config: DataConfig, seed: int
    ) -> None:
        """Take from `source` the images `ids`, cropped as `config` says."""
        self._source = source
        self._config = config
        self._seed = seed
        self._order = EpochOrder(ids, seed=seed, stream=Stream.LABELLED_ORDER)

    def batch(self, positions: Sequence[int], num_bits: int) -> LabelledBatch:
        """The labelled images at some global positions, with `num_bits` channel bits each."""
        ids, pairs, geometries = self._drawn(positions)
        images = [
            weak_image(image, geometry)
            for (image, _), geometry in zip(pairs, geometries, strict=True)
        ]
        return LabelledBatch(
            images=stack_images(images),
            masks=stack_masks(pairs, geometries).to(torch.int64),
            keep=channel_bits(self._seed, _LABELLED_BITS, positions, num_bits),
            ids=ids,
        )

    def windows(self, positions: Sequence[int], num_bits: int) -> LabelledWindows:
        """The same, for a device to make the images."""
        ids, pairs, geometries = self._drawn(positions)
        return LabelledWindows(
            windows=windows_of([image for image, _ in pairs], geometries),
            masks=stack_masks(pairs, geometries),
            keep=channel_bits(self._seed, _LABELLED_BITS, positions, num_bits),
            ids=ids,
        )

    def announce(self, positions: Sequence[int]) -> None:
        """Announce a batch that is needed soon, so that its images can be fetched ahead."""
        ids = [self._order.at(position) for position in positions]
        self._source.prefetch(ids, ids)

    def _drawn(
        self, positions: Sequence[int]
    ) -> tuple[tuple[str, ...], list[tuple[ImageLike, ImageLike]], list[Geometry]]:
        """Ids, decoded pairs and crops."""
        ids = tuple(self._order.at(position) for position in positions)
        pairs = [self._source.pair(name) for name in ids]
        geometries = [
            _geometry(KeyedRandom(self._seed, Stream.LABELLED_CROP, position), pair, self._config)
            for position, pair in zip(positions, pairs, strict=True)
        ]
        return ids, pairs, geometries


@dataclass(frozen=True, eq=False)
class _View:
    """The parameters of a weak view and its two strong ones; None for a strong view not needed."""

    name: str
    image: ImageLike
    geometry: Geometry
    strong: tuple[Photometry | None, Photometry | None]


@dataclass(frozen=True)
class _Drawn:
    """All drawn parameters of an unlabelled batch: views, CutMix partners and boxes."""

    views: list[_View]
    partners: list[_View]
    boxes: list[tuple[Box, Box]]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(view.name for view in self.views)

    @property
    def mix_ids(self) -> tuple[str, ...]:
        return tuple(view.name for view in self.partners)


class UnlabelledSource:
    """Makes unlabelled batches; never opens a mask."""

    def __init__(
        self, source: ImageSource, ids: Sequence[str], config: DataConfig, seed: int
    ) -> None:
        """Take from `source` the images `ids`, cropped and mixed as `config` says."""
        self._source = source
        self._config = config
        self._seed = seed
        self._order = EpochOrder(ids, seed=seed, stream=Stream.UNLABELLED_ORDER)
        self._mix_order = EpochOrder(ids, seed=seed, stream=Stream.MIX_ORDER)

    def batch(self, positions: Sequence[int], num_bits: int, *, batch: int) -> UnlabelledBatch:
        """The unlabelled images at some global positions.

        Args:
            positions: this rank's positions of one step.
            num_bits: channel-dropout bits per image.
            batch: images of the step over all ranks, for the partner that is the next one.
        """
        drawn, crop = self._drawn(positions, batch), self._config.crop
        made: dict[_View, _Made] = {}  # under batch_roll a partner is often a view of this rank
        for view in (*drawn.views, *drawn.partners):
            if view not in made:
                made[view] = _made(view)
        views = [made[view] for view in drawn.views]
        mixed = [made[view] for view in drawn.partners]
        maps = [
            torch.from_numpy(np.stack([box_map(pair[view], crop) for pair in drawn.boxes]))
            for view in (0, 1)
        ]
        return UnlabelledBatch(
            weak=stack_images([view.weak for view in views]),
            strong=_stack_strong(views),
            padded=torch.from_numpy(np.stack([view.padded for view in views])),
            boxes=(maps[0], maps[1]),
            keep=channel_bits(self._seed, _UNLABELLED_BITS, positions, num_bits),
            mix_weak=stack_images([view.weak for view in mixed]),
            mix_strong=_stack_strong(mixed),
            mix_padded=torch.from_numpy(np.stack([view.padded for view in mixed])),
            ids=drawn.ids,
            mix_ids=drawn.mix_ids,
        )

    def windows(self, positions: Sequence[int], num_bits: int, *, batch: int) -> UnlabelledWindows:
        """The same, for a device to make the views."""
        drawn = self._drawn(positions, batch)
        both = [*drawn.views, *drawn.partners]
        strong = [
            view.strong[which]
            for half in (drawn.views, drawn.partners)
            for which in (0, 1)
            for view in half
        ]
        boxes = [[pair[which].edges for pair in drawn.boxes] for which in (0, 1)]
        return UnlabelledWindows(
            windows=windows_of([view.image for view in both], [view.geometry for view in both]),
            stages=stages_of(strong),
            boxes=torch.tensor(boxes, dtype=torch.int64),
            keep=channel_bits(self._seed, _UNLABELLED_BITS, positions, num_bits),
            ids=drawn.ids,
            mix_ids=drawn.mix_ids,
        )

    def announce(self, positions: Sequence[int], *, batch: int) -> None:
        """Announce a batch that is needed soon, so that its images can be fetched ahead."""
        names = {self._order.at(position) for position in positions}
        if self._config.mix is MixSource.batch_roll:
            names |= {self._order.at(_next_in_batch(position, batch)) for position in positions}
        elif self._config.mix is MixSource.other:
            names |= {self._mix_order.at(position) for position in positions}
        self._source.prefetch(sorted(names))

    def _drawn(self, positions: Sequence[int], batch: int) -> _Drawn:
        """The views at some positions and their partners."""
        images: dict[str, ImageLike] = {}  # a partner is often the same image
        boxes = [
            (self._box(Stream.BOX_1, position), self._box(Stream.BOX_2, position))
            for position in positions
        ]
        views = [self._view(position, images) for position in positions]
        if self._config.mix is MixSource.batch_roll:
            own = dict(zip(positions, views, strict=True))
            rolled = [_next_in_batch(position, batch) for position in positions]
            partners = [own.get(spot) or self._view(spot, images) for spot in rolled]
        else:
            partners = [
                self._partner(position, images, pair)
                for position, pair in zip(positions, boxes, strict=True)
            ]
        return _Drawn(views, partners, boxes)

    def _box(self, stream: Stream, position: int) -> Box:
        return draw_box(KeyedRandom(self._seed, stream, position), self._config.crop)

    def _view(self, position: int, images: dict[str, ImageLike]) -> _View:
        """The image at a position, weak and strong."""
        draws = KeyedRandom(self._seed, Stream.UNLABELLED_CROP, position)
        image, geometry = self._weak(self._order.at(position), draws, images)
        first, second = (
            draw_photometry(KeyedRandom(self._seed, stream, position))
            for stream in (Stream.STRONG_1, Stream.STRONG_2)
        )
        return _View(self._order.at(position), image, geometry, (first, second))

    def _partner(
        self, position: int, images: dict[str, ImageLike], boxes: tuple[Box, ...]
    ) -> _View:
        """The image pasted at a position: the same image drawn again, or another one."""
        order = self._order if self._config.mix is MixSource.same else self._mix_order
        draws = KeyedRandom(self._seed, Stream.MIX_CROP, position)
        image, geometry = self._weak(order.at(position), draws, images)
        first, second = (
            draw_photometry(KeyedRandom(self._seed, stream, position)) if box.width else None
            for stream, box in zip((Stream.MIX_STRONG_1, Stream.MIX_STRONG_2), boxes, strict=True)
        )
        return _View(order.at(position), image, geometry, (first, second))

    def _weak(
        self, name: str, draws: KeyedRandom, images: dict[str, ImageLike]
    ) -> tuple[ImageLike, Geometry]:
        if name not in images:
            images[name] = self._source.image(name)
        return images[name], _geometry(draws, [images[name]], self._config)


@dataclass(frozen=True)
class _Made:
    """One weak view and its two strong ones, made by Pillow."""

    weak: Image.Image
    strong: tuple[Image.Image, Image.Image]
    padded: NDArray[np.bool_]


def _made(view: _View) -> _Made:
    weak = weak_image(view.image, view.geometry)
    first, second = (weak if drawn is None else strong_image(weak, drawn) for drawn in view.strong)
    return _Made(weak, (first, second), padded_map(view.geometry))


def _geometry(draws: KeyedRandom, images: Sequence[ImageLike], config: DataConfig) -> Geometry:
    """Draw a crop; lazy images are told how many rows it needs, so they decode no more."""
    width, height = size_of(images[0])
    drawn = draw_geometry(
        draws,
        (width, height),
        crop=config.crop,
        scale_min=config.scale_min,
        scale_max=config.scale_max,
    )
    _, top, _, bottom = drawn.box
    for image in images:
        if isinstance(image, LazyImage):
            image.ask(span(height, drawn.height, start=top, stop=bottom)[1])
    return drawn


def _next_in_batch(position: int, batch: int) -> int:
    """Position of the next slot of the same step; the first slot follows the last."""
    step, slot = divmod(position, batch)
    return step * batch + (slot + 1) % batch


def _stack_strong(views: Sequence[_Made]) -> tuple[Tensor, Tensor]:
    first = stack_images([view.strong[0] for view in views])
    return first, stack_images([view.strong[1] for view in views])
