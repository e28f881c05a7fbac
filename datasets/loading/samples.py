"""The samples of one step; every pixel depends on (seed, global position) alone.

A source first draws the parameters of every view. Then it either makes the views here, or returns
the inputs from which a device makes them, to the same bytes.
Legend: B images of this rank, S x S pixels, K channel bits. Position = step * batch + slot, with
`batch` counted over all ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datasets.augment.boxes import edges_of
from datasets.augment.device_inputs import stages_of, windows_of
from datasets.augment.host import (
    Box,
    Geometry,
    Photometry,
    ScaleRule,
    draw_boxes,
    draw_geometry,
    draw_overlap,
    draw_photometry,
    padded_map,
    strong_image,
    weak_image,
)
from datasets.augment.resize import span
from datasets.config import DataConfig, MixSource
from datasets.images.pixels import ImageLike, ImageSource, LazyImage, size_of
from datasets.images.predicted import WithPredicted
from datasets.loading.batches import (
    ChosenPartners,
    LabelledBatch,
    LabelledWindows,
    UnlabelledBatch,
    UnlabelledDraws,
    UnlabelledWindows,
    ViewPlan,
    channel_bits,
    nothing,
    random_numbers,
    stack_images,
    stack_masks,
)
from datasets.loading.cutout import LabelledCutout, draw_hole
from datasets.loading.hint import Hint, PasteChoice, draw_partner, draw_paste
from datasets.loading.pasting import (
    Paste,
    paste_masks,
    pasted_windows,
)
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
        return self._ids[self.place(position)]

    def place(self, position: int) -> int:
        """Where in the list that id stands."""
        epoch, index = divmod(position, len(self._ids))
        if epoch not in self._passes:
            if len(self._passes) > 8:  # a bounded cache; a batch spans few passes
                self._passes.clear()
            order = epoch_permutation(self._seed, self._stream, epoch, len(self._ids))
            self._passes[epoch] = order
        return int(self._passes[epoch][index])


_LABELLED, _UNLABELLED = 0, 1  # numbers in the streams DROPOUT and NUMBERS
_UNIMATCH = ViewPlan()


class LabelledSource:
    """Makes labelled batches."""

    def __init__(
        self,
        source: ImageSource,
        ids: Sequence[str],
        config: DataConfig,
        seed: int,
        *,
        plan: ViewPlan = _UNIMATCH,
        hint: Hint | None = None,
    ) -> None:
        """Take from `source` the images `ids`, cropped as `config` says, seen as `plan` says.

        `hint` is that of the epoch, if the plan needs one.
        """
        self._source = source
        self._ids = ids
        self._config = config
        self._seed = seed
        self._plan = plan
        self._hint = hint
        self._predicted = source.predicted if isinstance(source, WithPredicted) else None
        self._order = EpochOrder(ids, seed=seed, stream=Stream.LABELLED_ORDER)

    def batch(self, positions: Sequence[int], num_bits: int) -> LabelledBatch:
        """The labelled images at some global positions, with `num_bits` channel bits each."""
        ids, pairs, geometries = self._drawn(positions)
        pastes = self._pastes(positions)
        images = [
            weak_image(image, geometry)
            for (image, _), geometry in zip(pairs, geometries, strict=True)
        ]
        images = [
            image if paste is None else paste.onto_image(image)
            for image, paste in zip(images, pastes, strict=True)
        ]
        strong = [
            image if drawn is None else strong_image(image, drawn)
            for image, drawn in zip(images, self._strong(positions), strict=False)
        ]
        batch = LabelledBatch(
            images=stack_images(images),
            masks=paste_masks(stack_masks(pairs, geometries), pastes).to(torch.int64),
            keep=channel_bits(self._seed, _LABELLED, positions, num_bits),
            ids=ids,
            strong=stack_images(strong),
            numbers=random_numbers(self._seed, _LABELLED, positions, self._plan.numbers),
        )
        return batch.with_cutout(self._cutout(positions))

    def windows(self, positions: Sequence[int], num_bits: int) -> LabelledWindows:
        """The same, for a device to make the images."""
        ids, pairs, geometries = self._drawn(positions)
        pastes = self._pastes(positions)
        return LabelledWindows(
            windows=windows_of([image for image, _ in pairs], geometries),
            masks=paste_masks(stack_masks(pairs, geometries), pastes),
            keep=channel_bits(self._seed, _LABELLED, positions, num_bits),
            ids=ids,
            stages=stages_of(self._strong(positions)),
            numbers=random_numbers(self._seed, _LABELLED, positions, self._plan.numbers),
            pasted=pasted_windows(pastes),
            cutout=self._cutout(positions),
        )

    def announce(self, positions: Sequence[int]) -> None:
        """Announce a batch that is needed soon, so that its images can be fetched ahead."""
        ids = [self._order.at(position) for position in positions]
        ids += [self._ids[choice.place] for choice in map(self._choice, positions) if choice]
        self._source.prefetch(ids, ids)

    def _drawn(
        self, positions: Sequence[int]
    ) -> tuple[tuple[str, ...], list[tuple[ImageLike, ImageLike]], list[Geometry]]:
        """Ids, decoded pairs and crops."""
        ids = tuple(self._order.at(position) for position in positions)
        pairs = [self._source.pair(name) for name in ids]
        geometries = [
            _geometry(
                KeyedRandom(self._seed, Stream.LABELLED_CROP, position),
                pair,
                self._config.crop,
                _rule(self._config, scale_min=self._config.scale_min),
            )
            for position, pair in zip(positions, pairs, strict=True)
        ]
        return ids, pairs, geometries

    def _choice(self, position: int) -> PasteChoice | None:
        count = self._plan.pasted_classes
        if not count:
            return None
        assert self._hint is not None
        images = len(self._ids)
        return draw_paste(self._hint, self._seed, position, num_images=images, num_classes=count)

    def _pastes(self, positions: Sequence[int]) -> list[Paste | None]:
        """What is pasted into each image."""
        return [
            self._paste(position, choice) if choice else None
            for position, choice in zip(positions, map(self._choice, positions), strict=True)
        ]

    def _paste(self, position: int, choice: PasteChoice) -> Paste:
        pair = self._source.pair(self._ids[choice.place])
        low, high = choice.scales
        draws = KeyedRandom(self._seed, Stream.PASTE_CROP, position)
        geometry = _geometry(draws, pair, self._config.crop, ScaleRule(low, high))
        return Paste.of(pair, geometry, choice.classes)

    def _strong(self, positions: Sequence[int]) -> list[Photometry | None]:
        """Of the strong view of each image; none unless the plan names it."""
        return [
            draw_photometry(
                KeyedRandom(self._seed, Stream.LABELLED_STRONG, position), self._config.strong
            )
            if self._predicted is None or self._order.at(position) in self._predicted
            else None
            for position in (positions if self._plan.labelled_strong else ())
        ]

    def _cutout(self, positions: Sequence[int]) -> LabelledCutout | None:
        """The holes of images with predicted masks; None where there are no such images."""
        if not self._predicted or not self._plan.has_holes:
            return None
        is_predicted = [self._order.at(position) in self._predicted for position in positions]
        return LabelledCutout.drawn(self._seed, positions, is_predicted, self._config.crop)


@dataclass(frozen=True, eq=False)
class _View:
    """The parameters of a weak view and its strong ones; None for a strong view not needed."""

    name: str
    image: ImageLike
    geometry: Geometry
    strong: tuple[Photometry | None, ...]


_Groups: TypeAlias = list[list[_View]]  # images, then partners, then second crops
_Boxes: TypeAlias = list[tuple[Box, ...]]  # the boxes of one map for each image


class UnlabelledSource:
    """Makes unlabelled batches; never opens a mask."""

    def __init__(
        self,
        source: ImageSource,
        ids: Sequence[str],
        config: DataConfig,
        seed: int,
        *,
        plan: ViewPlan = _UNIMATCH,
        hint: Hint | None = None,
    ) -> None:
        """Take from `source` the images `ids`, cropped and mixed as `config` says.

        `plan` names the views, and `hint` is that of the epoch, if the plan needs one.
        """
        self._source = source
        self._ids = ids
        self._hint = hint
        self._config = config
        self._seed = seed
        self._plan = plan
        self._order = EpochOrder(ids, seed=seed, stream=Stream.UNLABELLED_ORDER)
        self._mix_order = EpochOrder(ids, seed=seed, stream=Stream.MIX_ORDER)

    def batch(self, positions: Sequence[int], num_bits: int, *, batch: int) -> UnlabelledBatch:
        """The unlabelled images at some global positions.

        Args:
            positions: this rank's positions of one step.
            num_bits: channel-dropout bits per image.
            batch: images of the step over all ranks, for the partner that is the next one.
        """
        groups, draws = self._drawn(positions, num_bits, batch)
        made: dict[_View, _Made] = {}  # under batch_roll a partner is often a view of this rank
        for view in (view for group in groups for view in group):
            if view not in made:
                made[view] = _made(view)
        weak, strong, padded = [], [], []
        for group in groups:
            views = [made[view] for view in group]
            weak.append(stack_images([view.weak for view in views]))
            strong += [
                stack_images(of) for of in zip(*(view.strong for view in views), strict=True)
            ]
            padded.append(torch.from_numpy(np.stack([view.padded for view in views])))
        return draws.batch(weak, strong, padded)

    def windows(self, positions: Sequence[int], num_bits: int, *, batch: int) -> UnlabelledWindows:
        """The same, for a device to make the views."""
        groups, draws = self._drawn(positions, num_bits, batch)
        views = [view for group in groups for view in group]
        strong = [
            photometry
            for group in groups
            for of in zip(*(view.strong for view in group), strict=True)
            for photometry in of
        ]
        return UnlabelledWindows(
            windows=windows_of([view.image for view in views], [view.geometry for view in views]),
            stages=stages_of(strong),
            draws=draws,
        )

    def announce(self, positions: Sequence[int], *, batch: int) -> None:
        """Announce a batch that is needed soon, so that its images can be fetched ahead."""
        names = {self._order.at(position) for position in positions}
        if self._plan.has_partner and self._rolls:
            names |= {self._order.at(_next_in_batch(position, batch)) for position in positions}
        elif self._plan.has_partner:
            names |= {self._partner_name(position) for position in positions}
        self._source.prefetch(sorted(names))

    def _drawn(
        self, positions: Sequence[int], num_bits: int, batch: int
    ) -> tuple[_Groups, UnlabelledDraws]:
        """The views at some positions, and all else that the plan names."""
        images: dict[str, ImageLike] = {}  # a partner is often the same image
        plan, seed = self._plan, self._seed
        boxes = [
            [self._boxes(stream, position) for position in positions]
            for stream in (Stream.BOX_1, Stream.BOX_2)[: plan.boxes]
        ]
        groups = [[self._view(position, images) for position in positions]]
        if plan.has_partner:
            groups.append(self._partners(positions, batch, images, groups[0], boxes))
        if plan.has_overlap:
            groups.append(list(map(self._second, positions, groups[0])))
        holes = [
            [draw_hole(seed, stream, position, self._config.crop) for position in positions]
            for stream in (Stream.HOLE_1, Stream.HOLE_2)[: plan.strong if plan.has_holes else 0]
        ]
        shift, mirrored = _offsets(groups) if plan.has_overlap else (nothing(), nothing())
        return groups, UnlabelledDraws(
            plan=plan,
            boxes=edges_of(boxes),
            keep=channel_bits(seed, _UNLABELLED, positions, num_bits),
            ids=tuple(view.name for view in groups[0]),
            mix_ids=tuple(view.name for view in groups[1]) if plan.has_partner else (),
            chosen=self._chosen(positions) if plan.chosen_partner else None,
            holes=edges_of([[(box,) for box, _ in of_view] for of_view in holes]),
            hole_keys=torch.tensor([[key for _, key in of_view] for of_view in holes]),
            shift=shift,
            mirrored=mirrored,
            numbers=random_numbers(seed, _UNLABELLED, positions, plan.numbers),
        )

    def _boxes(self, stream: Stream, position: int) -> tuple[Box, ...]:
        draws = KeyedRandom(self._seed, stream, position)
        probability = self._config.strong.cutmix
        return draw_boxes(draws, self._config.crop, self._plan.box_rule, probability=probability)

    def _view(self, position: int, images: dict[str, ImageLike]) -> _View:
        """The image at a position, weak and strong."""
        draws = KeyedRandom(self._seed, Stream.UNLABELLED_CROP, position)
        image, geometry = self._weak(self._order.at(position), draws, images)
        streams = (Stream.STRONG_1, Stream.STRONG_2)[: self._plan.strong]
        strong = (self._photometry(stream, position) for stream in streams)
        return _View(self._order.at(position), image, geometry, tuple(strong))

    def _partners(
        self,
        positions: Sequence[int],
        batch: int,
        images: dict[str, ImageLike],
        views: list[_View],
        boxes: list[_Boxes],
    ) -> list[_View]:
        """The partner of each image, by the rule `data.mix`."""
        if self._rolls:
            own = dict(zip(positions, views, strict=True))
            rolled = [_next_in_batch(position, batch) for position in positions]
            return [own.get(spot) or self._view(spot, images) for spot in rolled]
        return [
            self._partner(position, images, [of_map[index] for of_map in boxes])
            for index, position in enumerate(positions)
        ]

    def _partner(
        self, position: int, images: dict[str, ImageLike], boxes: Sequence[tuple[Box, ...]]
    ) -> _View:
        """The image pasted at a position: the same image drawn again, or another one."""
        name = self._partner_name(position)
        draws = KeyedRandom(self._seed, Stream.MIX_CROP, position)
        image, geometry = self._weak(name, draws, images)
        streams = (Stream.MIX_STRONG_1, Stream.MIX_STRONG_2)[: self._plan.strong]
        strong = (
            self._photometry(stream, position)
            if view >= len(boxes) or any(box.width for box in boxes[view])
            else None  # nothing of it is pasted
            for view, stream in enumerate(streams)
        )
        return _View(name, image, geometry, tuple(strong))

    @property
    def _rolls(self) -> bool:
        """Whether the partner is a view of the same step."""
        return self._config.mix is MixSource.batch_roll and not self._plan.chosen_partner

    def _partner_name(self, position: int) -> str:
        """Id of the partner that is cropped on its own."""
        if self._plan.chosen_partner:
            return self._ids[self._choice(position)[1]]
        order = self._order if self._config.mix is MixSource.same else self._mix_order
        return order.at(position)

    def _choice(self, position: int) -> tuple[int, int]:
        """The class that is wanted of a partner, and the place of the partner in the list."""
        assert self._hint is not None
        draws = KeyedRandom(self._seed, Stream.MIX_CHOICE, position)
        return draw_partner(draws, self._hint, len(self._ids))

    def _chosen(self, positions: Sequence[int]) -> ChosenPartners:
        classes, mix_places = zip(*map(self._choice, positions), strict=True)
        places = [self._order.place(position) for position in positions]
        return ChosenPartners(torch.tensor(classes), torch.tensor(places), torch.tensor(mix_places))

    def _second(self, position: int, first: _View) -> _View:
        """Another crop of the same resized image."""
        draws = KeyedRandom(self._seed, Stream.OVERLAP_CROP, position)
        geometry = draw_overlap(draws, first.geometry)
        _ask(first.image, geometry)
        photometry = self._photometry(Stream.OVERLAP_STRONG, position)
        return _View(first.name, first.image, geometry, (photometry,))

    def _photometry(self, stream: Stream, position: int) -> Photometry:
        """Of a strong view at a position."""
        return draw_photometry(KeyedRandom(self._seed, stream, position), self._config.strong)

    def _weak(
        self, name: str, draws: KeyedRandom, images: dict[str, ImageLike]
    ) -> tuple[ImageLike, Geometry]:
        if name not in images:
            images[name] = self._source.image(name)
        scale_min = self._config.unlabelled_scale_min or self._config.scale_min
        rule = _rule(self._config, scale_min=scale_min)
        return images[name], _geometry(draws, [images[name]], self._config.crop, rule)


@dataclass(frozen=True)
class _Made:
    """One weak view and its strong ones, made by Pillow."""

    weak: Image.Image
    strong: tuple[Image.Image, ...]
    padded: NDArray[np.bool_]


def _made(view: _View) -> _Made:
    weak = weak_image(view.image, view.geometry)
    strong = (weak if drawn is None else strong_image(weak, drawn) for drawn in view.strong)
    return _Made(weak, tuple(strong), padded_map(view.geometry))


def _offsets(groups: _Groups) -> tuple[Tensor, Tensor]:
    """Shift of the second crops from the first, and which of both are mirrored."""
    pairs = [
        (first.geometry, second.geometry)
        for first, second in zip(groups[0], groups[-1], strict=True)
    ]
    shift = [(second.left - first.left, second.top - first.top) for first, second in pairs]
    mirrored = [(first.is_flipped, second.is_flipped) for first, second in pairs]
    return torch.tensor(shift), torch.tensor(mirrored)


def _rule(config: DataConfig, *, scale_min: float) -> ScaleRule:
    """How images are resized; `scale_min` differs where they have no labels."""
    return ScaleRule(
        scale_min, config.scale_max, config.scales, config.scale_base, config.scale_halves
    )


def _geometry(
    draws: KeyedRandom, images: Sequence[ImageLike], crop: int, rule: ScaleRule
) -> Geometry:
    """Draw a crop of some images of one size."""
    drawn = draw_geometry(draws, size_of(images[0]), crop=crop, rule=rule)
    for image in images:
        _ask(image, drawn)
    return drawn


def _ask(image: ImageLike, geometry: Geometry) -> None:
    """Tell a lazy image how many rows a crop needs, so that it decodes no more."""
    if isinstance(image, LazyImage):
        _, height = size_of(image)
        _, top, _, bottom = geometry.box
        image.ask(span(height, geometry.height, start=top, stop=bottom)[1])


def _next_in_batch(position: int, batch: int) -> int:
    """Position of the next slot of the same step; the first slot follows the last."""
    step, slot = divmod(position, batch)
    return step * batch + (slot + 1) % batch
