"""One step's batch, every pixel of it a function of (seed, global position) alone.

Legend: B images of this rank, S x S pixels, K channel bits. Position = step * batch + slot, with
`batch` counted over all ranks. Images travel as bytes; whoever trains normalises them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datasets.augment import (
    Box,
    Geometry,
    box_map,
    draw_box,
    draw_geometry,
    draw_photometry,
    padded_map,
    strong_image,
    weak_image,
    weak_mask,
)
from datasets.config import DataConfig, MixSource
from datasets.randomness import Draws, Stream, epoch_permutation
from datasets.tree import ImageTree

_LABELLED_BITS, _UNLABELLED_BITS = 0, 1  # places in the stream DROPOUT


class _Movable:
    """A dataclass of tensors, tuples of tensors and ids."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same batch on another device."""
        moved = {}
        for entry in fields(self):  # type: ignore[arg-type]  # only dataclasses inherit
            value = getattr(self, entry.name)
            if isinstance(value, Tensor):
                value = value.to(device, non_blocking=non_blocking)
            elif value and isinstance(value[0], Tensor):
                value = tuple(part.to(device, non_blocking=non_blocking) for part in value)
            moved[entry.name] = value
        return type(self)(**moved)


@dataclass(frozen=True)
class LabelledBatch(_Movable):
    """Images with masks.

    Attributes:
        images: weak views, uint8 (B, 3, S, S).
        masks: classes, int64 (B, S, S); 255 is ignored or padding.
        keep: fair channel-dropout bits, bool (B, K).
        ids: of the images.
    """

    images: Tensor
    masks: Tensor
    keep: Tensor
    ids: tuple[str, ...]


@dataclass(frozen=True)
class UnlabelledBatch(_Movable):
    """Images without masks, and their CutMix partners.

    Attributes:
        weak: uint8 (B, 3, S, S).
        strong: two strong views of `weak`, before pasting, uint8 (B, 3, S, S) each.
        padded: True where `weak` shows padding, bool (B, S, S).
        boxes: per strong view, True where the partner is pasted, bool (B, S, S) each.
        keep: fair channel-dropout bits, bool (B, K).
        mix_weak: weak views of the partners, uint8 (B, 3, S, S).
        mix_strong: strong views of the partners. Where a box is empty nothing is pasted, and the
            entry is the partner's weak view, which spares its augmentation.
        mix_padded: True where `mix_weak` shows padding, bool (B, S, S).
        ids: of the images.
        mix_ids: of the partners.
    """

    weak: Tensor
    strong: tuple[Tensor, Tensor]
    padded: Tensor
    boxes: tuple[Tensor, Tensor]
    keep: Tensor
    mix_weak: Tensor
    mix_strong: tuple[Tensor, Tensor]
    mix_padded: Tensor
    ids: tuple[str, ...]
    mix_ids: tuple[str, ...]


class Order:
    """Which image stands at a position: the list, shuffled anew in every pass, without end."""

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
        epoch, place = divmod(position, len(self._ids))
        if epoch not in self._passes:
            if len(self._passes) > 8:  # a cache: one batch touches few passes
                self._passes.clear()
            order = epoch_permutation(self._seed, self._stream, epoch, len(self._ids))
            self._passes[epoch] = order
        return self._ids[int(self._passes[epoch][place])]


@dataclass(frozen=True)
class _View:
    """One weak view and up to two strong ones."""

    name: str
    weak: Image.Image
    strong: tuple[Image.Image, Image.Image]
    padded: NDArray[np.bool_]


class LabelledSource:
    """Makes labelled batches."""

    def __init__(self, tree: ImageTree, ids: Sequence[str], config: DataConfig, seed: int) -> None:
        """Read from `tree` the images `ids`, cropped as `config` says."""
        self._tree = tree
        self._config = config
        self._seed = seed
        self._order = Order(ids, seed=seed, stream=Stream.LABELLED_ORDER)

    def batch(self, positions: Sequence[int], num_bits: int) -> LabelledBatch:
        """The labelled images at some global positions, with so many channel bits."""
        ids = tuple(self._order.at(position) for position in positions)
        images, masks = [], []
        for position, name in zip(positions, ids, strict=True):
            image, mask = self._tree.pair(name)
            draws = Draws(self._seed, Stream.LABELLED_CROP, position)
            geometry = _geometry(draws, image, self._config)
            images.append(weak_image(image, geometry))
            masks.append(np.asarray(weak_mask(mask, geometry)))
        return LabelledBatch(
            images=_stack_images(images),
            masks=torch.from_numpy(np.stack(masks).astype(np.int64)),
            keep=_keep(self._seed, _LABELLED_BITS, positions, num_bits),
            ids=ids,
        )


class UnlabelledSource:
    """Makes unlabelled batches; never opens a mask."""

    def __init__(self, tree: ImageTree, ids: Sequence[str], config: DataConfig, seed: int) -> None:
        """Read from `tree` the images `ids`, cropped and mixed as `config` says."""
        self._tree = tree
        self._config = config
        self._seed = seed
        self._order = Order(ids, seed=seed, stream=Stream.UNLABELLED_ORDER)
        self._mix_order = Order(ids, seed=seed, stream=Stream.MIX_ORDER)

    def batch(self, positions: Sequence[int], num_bits: int, *, batch: int) -> UnlabelledBatch:
        """The unlabelled images at some global positions.

        Args:
            positions: this rank's positions of one step.
            num_bits: channel-dropout bits per image.
            batch: images of the step over all ranks, for the partner that is the next one.
        """
        boxes = [
            tuple(self._box(stream, position) for stream in (Stream.BOX_1, Stream.BOX_2))
            for position in positions
        ]
        photos: dict[str, Image.Image] = {}  # a partner is often the same photograph
        views = [self._view(position, photos) for position in positions]
        if self._config.mix is MixSource.batch_roll:
            rolled = [_next_in_batch(position, batch) for position in positions]
            own = dict(zip(positions, views, strict=True))
            mixed = [own[spot] if spot in own else self._view(spot, photos) for spot in rolled]
        else:
            mixed = [
                self._partner(position, photos, pair)
                for position, pair in zip(positions, boxes, strict=True)
            ]
        crop = self._config.crop
        maps = [
            torch.from_numpy(np.stack([box_map(pair[view], crop) for pair in boxes]))
            for view in (0, 1)
        ]
        return UnlabelledBatch(
            weak=_stack_images([view.weak for view in views]),
            strong=_stack_strong(views),
            padded=torch.from_numpy(np.stack([view.padded for view in views])),
            boxes=(maps[0], maps[1]),
            keep=_keep(self._seed, _UNLABELLED_BITS, positions, num_bits),
            mix_weak=_stack_images([view.weak for view in mixed]),
            mix_strong=_stack_strong(mixed),
            mix_padded=torch.from_numpy(np.stack([view.padded for view in mixed])),
            ids=tuple(view.name for view in views),
            mix_ids=tuple(view.name for view in mixed),
        )

    def _box(self, stream: Stream, position: int) -> Box:
        return draw_box(Draws(self._seed, stream, position), self._config.crop)

    def _view(self, position: int, photos: dict[str, Image.Image]) -> _View:
        """The image at a position, weak and strong."""
        name = self._order.at(position)
        weak, padded = self._weak(name, Draws(self._seed, Stream.UNLABELLED_CROP, position), photos)
        first, second = (
            strong_image(weak, draw_photometry(Draws(self._seed, stream, position)))
            for stream in (Stream.STRONG_1, Stream.STRONG_2)
        )
        return _View(name, weak, (first, second), padded)

    def _partner(
        self, position: int, photos: dict[str, Image.Image], boxes: tuple[Box, ...]
    ) -> _View:
        """The image pasted at a position: the same photograph drawn again, or another one."""
        order = self._order if self._config.mix is MixSource.same else self._mix_order
        name = order.at(position)
        weak, padded = self._weak(name, Draws(self._seed, Stream.MIX_CROP, position), photos)
        first, second = (
            strong_image(weak, draw_photometry(Draws(self._seed, stream, position)))
            if box.width
            else weak
            for stream, box in zip((Stream.MIX_STRONG_1, Stream.MIX_STRONG_2), boxes, strict=True)
        )
        return _View(name, weak, (first, second), padded)

    def _weak(
        self, name: str, draws: Draws, photos: dict[str, Image.Image]
    ) -> tuple[Image.Image, NDArray[np.bool_]]:
        if name not in photos:
            photos[name] = self._tree.image(name)
        geometry = _geometry(draws, photos[name], self._config)
        return weak_image(photos[name], geometry), padded_map(geometry)


def _geometry(draws: Draws, image: Image.Image, config: DataConfig) -> Geometry:
    return draw_geometry(
        draws,
        image.size,
        crop=config.crop,
        scale_min=config.scale_min,
        scale_max=config.scale_max,
    )


def _next_in_batch(position: int, batch: int) -> int:
    """The next slot of the same step; after the last one comes the first."""
    step, slot = divmod(position, batch)
    return step * batch + (slot + 1) % batch


def _stack_images(images: Sequence[Image.Image]) -> Tensor:
    """(B, 3, S, S) uint8."""
    pixels = np.stack([np.asarray(image) for image in images])  # (B, S, S, 3)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def _stack_strong(views: Sequence[_View]) -> tuple[Tensor, Tensor]:
    first = _stack_images([view.strong[0] for view in views])
    return first, _stack_images([view.strong[1] for view in views])


def _keep(seed: int, kind: int, positions: Sequence[int], num_bits: int) -> Tensor:
    """(B, K) bool."""
    rows = [Draws(seed, Stream.DROPOUT, kind, position).bits(num_bits) for position in positions]
    return torch.from_numpy(np.stack(rows))
