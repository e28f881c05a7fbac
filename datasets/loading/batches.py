"""The batches of a step: finished views, or the inputs from which a device makes them.

Legend: B images, S x S pixels, K channel bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.augment.boxes import box_maps, fill_holes
from datasets.augment.device_inputs import AugmentSchedule, CropInputs
from datasets.augment.host import BoxRule, Geometry, weak_mask
from datasets.images.pixels import ImageLike
from datasets.loading.cutout import LabelledCutout
from datasets.loading.pasting import PastedWindows
from datasets.randomness import KeyedRandom, Stream


@dataclass(frozen=True)
class ViewPlan:
    """What a method wants to see of its images; what it does not name is not drawn.

    The default is what UniMatch takes.

    Attributes:
        strong: strong views of each unlabelled image, at most two.
        boxes: maps of CutMix boxes of each unlabelled image, at most two; box i is for view i.
        box_rule: how they are drawn.
        has_partner: whether each unlabelled image has a partner, whose pixels are pasted;
            `data.mix` says which.
        chosen_partner: whether the hint of the epoch says which instead.
        has_holes: whether the strong views have holes (cutout), but those of true masks.
        has_overlap: whether each unlabelled image is cropped a second time, overlapping the first.
        labelled_strong: whether labelled images have a strong view too. In self-training it is the
            weak one where the mask is a true one.
        pasted_classes: drawn by the hint of the epoch for each labelled image; their pixels of
            another labelled image replace its own (`datasets/loading/pasting.py`).
        channel_bits: whether features are dropped.
        numbers: further random numbers in [0, 1) of each image, labelled and unlabelled.
    """

    strong: int = 2
    boxes: int = 2
    box_rule: BoxRule = BoxRule.one
    has_partner: bool = True
    chosen_partner: bool = False
    has_holes: bool = False
    has_overlap: bool = False
    labelled_strong: bool = False
    pasted_classes: int = 0
    channel_bits: bool = True
    numbers: int = 0

    @property
    def needs_hint(self) -> bool:
        """Whether the loader must be told the hint of the epoch."""
        return self.chosen_partner or self.pasted_classes > 0

    @property
    def strong_of_groups(self) -> tuple[int, ...]:
        """Strong views in each group of crops: images, then partners, then second crops."""
        return (
            self.strong,
            *((self.strong,) if self.has_partner else ()),
            *((1,) if self.has_overlap else ()),
        )


def nothing() -> Tensor:
    """What stands for views that the plan does not name."""
    return torch.zeros(0)


@dataclass(frozen=True)
class LabelledBatch:
    """Images with masks.

    Attributes:
        images: weak views, uint8 (B, 3, S, S).
        masks: classes, int64 (B, S, S); 255 is ignored or padding.
        keep: fair channel-dropout bits, bool (B, K).
        ids: of the images.
        strong: a strong view of `images`, uint8 (B, 3, S, S); empty unless the plan names it.
        numbers: in [0, 1), float64 (B, N).
        is_predicted: whether a network predicted the mask, bool (B,); then holes of `strong` are
            255 in it. Empty where all masks are true ones.
    """

    images: Tensor
    masks: Tensor
    keep: Tensor
    ids: tuple[str, ...]
    strong: Tensor = field(default_factory=nothing)
    numbers: Tensor = field(default_factory=nothing)
    is_predicted: Tensor = field(default_factory=nothing)

    def with_cutout(self, cutout: LabelledCutout | None) -> "LabelledBatch":
        """The batch with holes in its strong views; unchanged without any."""
        if cutout is None:
            return self
        strong, masks = cutout.cut(self.strong, self.masks)
        return replace(self, strong=strong, masks=masks, is_predicted=cutout.is_predicted)


@dataclass(frozen=True)
class SecondCrop:
    """Other crops of the same resized images, which overlap the first ones.

    Attributes:
        weak: uint8 (B, 3, S, S).
        strong: a strong view of `weak`, uint8 (B, 3, S, S).
        padded: True where `weak` shows padding, bool (B, S, S).
        shift: pixels to the right and down from the first crop to this one, both before
            mirroring; multiples of 8, int64 (B, 2).
        mirrored: whether the first and the second crop are mirrored, bool (B, 2).
    """

    weak: Tensor
    strong: Tensor
    padded: Tensor
    shift: Tensor
    mirrored: Tensor


@dataclass(frozen=True)
class ChosenPartners:
    """Why partners were chosen, and the places of all images in the unlabelled list.

    Attributes:
        classes: the class that was wanted of each partner, int64 (B,).
        places: of the images, int64 (B,).
        mix_places: of the partners, int64 (B,).
    """

    classes: Tensor
    places: Tensor
    mix_places: Tensor


@dataclass(frozen=True)
class UnlabelledBatch:
    """Images without masks, and their CutMix partners; `ViewPlan` says what there is of it.

    Attributes:
        weak: uint8 (B, 3, S, S).
        strong: strong views of `weak`, before pasting, uint8 (B, 3, S, S) each.
        padded: True where `weak` shows padding, bool (B, S, S).
        boxes: True where the partner is pasted, bool (B, S, S) each.
        keep: fair channel-dropout bits, bool (B, K).
        mix_weak: weak views of the partners, uint8 (B, 3, S, S); empty without partners.
        mix_strong: strong views of the partners. Where a box is empty nothing is pasted, and the
            entry is the partner's weak view, which spares its augmentation.
        mix_padded: True where `mix_weak` shows padding, bool (B, S, S); empty without partners.
        ids: of the images.
        mix_ids: of the partners.
        holes: per strong view, True where noise replaces it, bool (B, S, S) each.
        second: other crops of the images; None unless the plan names them.
        numbers: in [0, 1), float64 (B, N).
        chosen: of the partners; None unless the hint of the epoch chooses them.
    """

    weak: Tensor
    strong: tuple[Tensor, ...]
    padded: Tensor
    boxes: tuple[Tensor, ...]
    keep: Tensor
    mix_weak: Tensor
    mix_strong: tuple[Tensor, ...]
    mix_padded: Tensor
    ids: tuple[str, ...]
    mix_ids: tuple[str, ...]
    holes: tuple[Tensor, ...] = ()
    second: SecondCrop | None = None
    numbers: Tensor = field(default_factory=nothing)
    chosen: ChosenPartners | None = None


@dataclass(frozen=True)
class LabelledWindows:
    """The inputs from which a device makes a `LabelledBatch`.

    Attributes:
        windows: of the images.
        masks: classes, uint8 (B, S, S), cropped already; 255 is ignored or padding.
        keep: fair channel-dropout bits, bool (B, K).
        ids: of the images.
        stages: of B strong views; None unless the plan names them.
        numbers: in [0, 1), float64 (B, N).
        pasted: other images whose pixels go into these, as `masks` has it already; None without.
        cutout: of the strong views; None without holes.
    """

    windows: CropInputs
    masks: Tensor
    keep: Tensor
    ids: tuple[str, ...]
    stages: AugmentSchedule | None
    numbers: Tensor
    pasted: PastedWindows | None = None
    cutout: LabelledCutout | None = None


@dataclass(frozen=True)
class UnlabelledDraws:
    """What an `UnlabelledBatch` holds besides its images.

    Attributes:
        plan: which views there are.
        boxes: left, top, right, bottom of the R boxes of each map, int64 (maps, B, R, 4).
        keep: fair channel-dropout bits, bool (B, K).
        ids: of the images.
        mix_ids: of the partners.
        holes: left, top, right, bottom in each strong view, int64 (views, B, 1, 4).
        hole_keys: of the noise in them, int64 (views, B).
        shift: of the second crop, int64 (B, 2); empty without one.
        mirrored: of the first and the second crop, bool (B, 2); empty without one.
        numbers: in [0, 1), float64 (B, N).
        chosen: of the partners; None unless the hint of the epoch chooses them.
    """

    plan: ViewPlan
    boxes: Tensor
    keep: Tensor
    ids: tuple[str, ...]
    mix_ids: tuple[str, ...]
    holes: Tensor
    hole_keys: Tensor
    shift: Tensor
    mirrored: Tensor
    numbers: Tensor
    chosen: ChosenPartners | None = None

    def batch(
        self, weak: Sequence[Tensor], strong: Sequence[Tensor], padded: Sequence[Tensor]
    ) -> UnlabelledBatch:
        """The batch, from its images on whatever device they are.

        Args:
            weak: uint8 (B, 3, S, S) of each group of `ViewPlan.strong_of_groups`.
            strong: of each group in turn, view by view, the same shape.
            padded: bool (B, S, S) of each group.
        """
        plan, crop = self.plan, weak[0].shape[-1]
        own, rest = strong[: plan.strong], strong[plan.strong :]
        holes = tuple(box_maps(edges, crop) for edges in self.holes)
        if holes:
            own = [fill_holes(*view) for view in zip(own, holes, self.hole_keys, strict=True)]
        second = None
        if plan.has_overlap:
            second = SecondCrop(weak[-1], strong[-1], padded[-1], self.shift, self.mirrored)
        return UnlabelledBatch(
            weak=weak[0],
            strong=tuple(own),
            padded=padded[0],
            boxes=tuple(box_maps(edges, crop) for edges in self.boxes),
            keep=self.keep,
            mix_weak=weak[1] if plan.has_partner else nothing(),
            mix_strong=tuple(rest[: plan.strong]) if plan.has_partner else (),
            mix_padded=padded[1] if plan.has_partner else nothing(),
            ids=self.ids,
            mix_ids=self.mix_ids,
            holes=holes,
            second=second,
            numbers=self.numbers,
            chosen=self.chosen,
        )


@dataclass(frozen=True)
class UnlabelledWindows:
    """The inputs from which a device makes an `UnlabelledBatch`.

    Attributes:
        windows: of the groups of `ViewPlan.strong_of_groups`, B crops each.
        stages: of the strong views of each group in turn, view by view; None without any.
        draws: all that is not an image.
    """

    windows: CropInputs
    stages: AugmentSchedule | None
    draws: UnlabelledDraws


def stack_images(images: Sequence[Image.Image]) -> Tensor:
    """RGB images of one size as a tensor, uint8 (B, 3, S, S); `nothing` without any."""
    if not images:
        return nothing()
    return torch.from_numpy(
        np.stack([[np.asarray(band) for band in image.split()] for image in images])
    )


def stack_masks(pairs: list[tuple[ImageLike, ImageLike]], geometries: list[Geometry]) -> Tensor:
    """The masks of (image, mask) pairs, cropped: uint8 (B, S, S)."""
    masks = [
        weak_mask(mask, geometry) for (_, mask), geometry in zip(pairs, geometries, strict=True)
    ]
    return torch.from_numpy(np.stack(masks))


def channel_bits(seed: int, kind: int, positions: Sequence[int], num_bits: int) -> Tensor:
    """Fair channel-dropout bits for the images at some global positions, bool (B, K)."""
    rows = [
        KeyedRandom(seed, Stream.DROPOUT, kind, position).bits(num_bits) for position in positions
    ]
    return torch.from_numpy(np.stack(rows))


def random_numbers(seed: int, kind: int, positions: Sequence[int], count: int) -> Tensor:
    """Numbers in [0, 1) for the images at some global positions, float64 (B, count)."""
    rows = [
        KeyedRandom(seed, Stream.NUMBERS, kind, position).words(count) for position in positions
    ]
    # The upper 53 bits: as many as a float64 holds.
    return torch.from_numpy((np.stack(rows) >> np.uint64(11)) * 2.0**-53)
