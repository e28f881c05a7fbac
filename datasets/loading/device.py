"""The augmentation on a device: batched whole-number arithmetic that gives Pillow's bytes.

A loader worker sends the parts of images that crops show and the parameters drawn for them
(`datasets/loading/batches.py`); resizing, colour jitter, grayscale and blur are computed here. No
operation makes the host wait for the device, and CUDA's deterministic mode allows all of them.

Legend: V views, N strong views, S x S pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from datasets.augment import hue
from datasets.augment.device_inputs import BLUR_BITS, AugmentSchedule, CropInputs
from datasets.loading.batches import (
    LabelledBatch,
    LabelledWindows,
    UnlabelledBatch,
    UnlabelledWindows,
    nothing,
)

WEIGHT_BITS = 22  # Pillow's precision for 8-bit images


@dataclass(frozen=True)
class ResampleWeights:
    """One axis of V crops.

    Attributes:
        first: first source pixel of each output pixel, int64 (V, S); 0 on padding.
        weights: of the source pixels from there on, in units of 2^-22, int32 (V, K, S); all zero
            exactly on padding.
    """

    first: Tensor
    weights: Tensor


def resample_weights(axes: Tensor, *, crop: int, depth: int) -> ResampleWeights:
    """Weights of Pillow's bilinear filter, which gets wider when an image shrinks.

    Computed in double precision like Pillow's, then rounded to whole numbers.

    Args:
        axes: fields of `datasets.augment.device_inputs.Axis` of each crop, int64 (6, V).
        crop: output pixels.
        depth: source pixels for each output pixel; enough for all crops.
    """
    source, resized, start, _, skipped, _ = axes[..., None].unbind()  # (V, 1) each
    pixel, shown = _unmirrored(axes, crop)
    scale = source.double() / resized.double()
    support = scale.clamp(min=1.0)
    centre = (pixel + start + 0.5) * scale  # (V, S)
    first = (centre - support + 0.5).long().clamp_(min=0)
    beyond = torch.minimum((centre + support + 0.5).long(), source)
    steps = torch.arange(depth, device=axes.device)[:, None]  # (K, 1)
    distance = (steps + first[:, None]) - centre[:, None] + 0.5
    distance = (distance * (1.0 / support)[:, None]).abs_()
    inside = (steps < (beyond - first)[:, None]) & shown[:, None]
    height = torch.where(inside, (1.0 - distance).clamp_(min=0.0), 0.0)  # (V, K, S)
    total = height[:, 0].clone()
    for step in range(1, depth):  # in Pillow's order, so that the sum has its bits
        total += height[:, step]
    share = height / torch.where(shown, total, 1.0)[:, None]
    weights = (share * (1 << WEIGHT_BITS) + 0.5).int()
    return ResampleWeights(torch.where(shown, (first - skipped).clamp_(min=0), 0), weights)


def is_padding(axes: Tensor, crop: int) -> Tensor:
    """Where crops show nothing along an axis, bool (V, S)."""
    return ~_unmirrored(axes, crop)[1]


def _unmirrored(axes: Tensor, crop: int) -> tuple[Tensor, Tensor]:
    """Which pixel of the crop each one is before mirroring, and whether it shows any, (V, S)."""
    _, _, _, shown, _, is_mirrored = axes[..., None].unbind()
    pixel = torch.arange(crop, device=axes.device).expand(axes.shape[1], -1)
    pixel = torch.where(is_mirrored > 0, crop - 1 - pixel, pixel)
    return pixel, pixel < shown


_BLUR_PASSES = 3


def labelled_batch(given: LabelledBatch | LabelledWindows) -> LabelledBatch:
    """Images with masks on the device of `given`; a finished batch is returned as it is."""
    if isinstance(given, LabelledBatch):
        return given
    images = weak_views(given.windows)
    if given.pasted is not None:
        others = weak_views(given.pasted.windows).index_select(0, given.pasted.which)
        images = torch.where(given.pasted.inside[:, None], others, images)
    batch = LabelledBatch(
        images,
        given.masks.to(torch.int64),
        given.keep,
        given.ids,
        strong=nothing() if given.stages is None else strong_views(images, given.stages),
        numbers=given.numbers,
    )
    return batch.with_cutout(given.cutout)


def unlabelled_batch(given: UnlabelledBatch | UnlabelledWindows) -> UnlabelledBatch:
    """All views of unlabelled images; a finished batch is returned as it is."""
    if isinstance(given, UnlabelledBatch):
        return given
    counts = given.draws.plan.strong_of_groups
    weak = weak_views(given.windows).chunk(len(counts))
    strong: tuple[Tensor, ...] = ()
    if given.stages is not None:
        before = [images for images, count in zip(weak, counts, strict=True) for _ in range(count)]
        strong = strong_views(torch.cat(before), given.stages).chunk(sum(counts))
    return given.draws.batch(weak, strong, padding(given.windows).chunk(len(counts)))


def weak_views(windows: CropInputs) -> Tensor:
    """Resized, cropped and flipped, padded with black: uint8 (V, 3, S, S)."""
    pixels = windows.pixels[..., :3].permute(0, 3, 1, 2)  # (V, 3, h, w)
    columns, rows = (
        resample_weights(axes, crop=windows.crop, depth=windows.depth)
        for axes in (windows.columns, windows.rows)
    )
    down = _resampled(_resampled(pixels, columns).transpose(2, 3), rows)
    return down.transpose(2, 3).contiguous()


def padding(windows: CropInputs) -> Tensor:
    """True where a crop shows no image, bool (V, S, S)."""
    columns = is_padding(windows.columns, windows.crop)
    rows = is_padding(windows.rows, windows.crop)
    return rows[:, :, None] | columns[:, None, :]


def strong_views(images: Tensor, stages: AugmentSchedule) -> Tensor:
    """Colour jitter, grayscale and blur on uint8 (N, 3, S, S), each view in its own order."""
    for order, inverse, sizes in zip(stages.order, stages.inverse, stages.sizes, strict=True):
        parts = []
        for operation, views in zip(_OPERATIONS, order.split(sizes), strict=True):
            if len(views):
                parts.append(operation(images.index_select(0, views), stages, views))
        images = torch.cat(parts).index_select(0, inverse)
    return images


def _resampled(pixels: Tensor, table: ResampleWeights) -> Tensor:
    """Weighted sums along the last axis: uint8 (V, 3, h, w) to (V, 3, h, S)."""
    last = pixels.shape[-1] - 1
    shape = (*pixels.shape[:-1], table.first.shape[1])
    total = torch.full(shape, 1 << (WEIGHT_BITS - 1), dtype=torch.int32, device=pixels.device)
    for step, weights in enumerate(table.weights.unbind(dim=1)):
        source = (table.first + step).clamp_(max=last)[:, None, None, :].expand(shape)
        total += pixels.gather(3, source).to(torch.int32).mul_(weights[:, None, None, :])
    return (total >> WEIGHT_BITS).clamp_(0, 255).to(torch.uint8)


def _brightness(images: Tensor, stages: AugmentSchedule, views: Tensor) -> Tensor:
    return _blended(torch.zeros_like(images), images, stages.factors[:, 0].index_select(0, views))


def _contrast(images: Tensor, stages: AugmentSchedule, views: Tensor) -> Tensor:
    grey = _luma(images)
    num_pixels = grey.shape[1] * grey.shape[2]
    total = grey.sum(dim=(1, 2), dtype=torch.int64)
    mean = torch.div(2 * total + num_pixels, 2 * num_pixels, rounding_mode="floor")
    return _blended(mean[:, None, None, None], images, stages.factors[:, 1].index_select(0, views))


def _saturation(images: Tensor, stages: AugmentSchedule, views: Tensor) -> Tensor:
    return _blended(_luma(images)[:, None], images, stages.factors[:, 2].index_select(0, views))


def _hue(images: Tensor, stages: AugmentSchedule, views: Tensor) -> Tensor:
    """Shift the hue: to HSV by tables, add modulo 256, and back to RGB."""
    tables = _hue_tables(images.device)
    red, green, blue = images.to(torch.int32).unbind(dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    spread = value - torch.minimum(torch.minimum(red, green), blue)
    sector = torch.where(green == value, 511 + blue - red, 2 * 511 + red - green)
    sector = torch.where(red == value, green - blue, sector) + hue.EDGE
    angle = _looked_up(tables[0], (sector << 8) | spread)
    saturation = _looked_up(tables[1], (value << 8) | spread)
    angle = (angle + stages.shifts.index_select(0, views)[:, None, None]) & 255
    weights = _looked_up(tables[2], (angle << 8) | saturation)  # (n, S, S, 3)
    turned = weights.mul_(value[..., None]).add_(1 << (hue.WHEEL_BITS - 1))
    # Sums reach past 2^31, where int32 wraps; its bits are those of uint32.
    return ((turned >> hue.WHEEL_BITS) & 255).to(torch.uint8).permute(0, 3, 1, 2)


def _grey(images: Tensor, stages: AugmentSchedule, views: Tensor) -> Tensor:
    return _luma(images)[:, None].expand_as(images).to(torch.uint8)


def _blur(images: Tensor, stages: AugmentSchedule, views: Tensor) -> Tensor:
    """Three box blurs along the rows, three down the columns."""
    weights = stages.blurs.index_select(0, views)[..., None, None, None]  # (n, 3, 1, 1, 1)
    for _ in range(2):
        for _ in range(_BLUR_PASSES):
            images = _box_blurred(images, weights)
        images = images.transpose(2, 3)
    return images


def _nothing(images: Tensor, stages: AugmentSchedule, views: Tensor) -> Tensor:
    return images


def _luma(images: Tensor) -> Tensor:
    """ITU-R 601 in 16 bits, int32: (n, 3, S, S) to (n, S, S)."""
    red, green, blue = images.to(torch.int32).unbind(dim=1)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def _blended(start: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """Blend: start + factor * (image - start), clipped to [0, 255], truncated as in Image.blend."""
    start = start.to(torch.float32)
    step = images.to(torch.float32).sub_(start)
    # Two operations on purpose: a fused multiply-add rounds once, Pillow rounds twice.
    blended = step.mul_(factors[:, None, None, None]).add_(start)
    return blended.clamp_(0.0, 255.0).to(torch.uint8)


def _box_blurred(images: Tensor, weights: Tensor) -> Tensor:
    """One pass along the last axis; edge pixels are repeated beyond the edge."""
    left, right = images[..., :1], images[..., -1:]
    wide = torch.cat([left, left, images, right, right], dim=-1).to(torch.int32)
    size = images.shape[-1]
    at = [wide[..., offset : offset + size] for offset in range(5)]
    total = at[2] * weights[:, 0]
    total += (at[1] + at[3]).mul_(weights[:, 1])
    total += (at[0] + at[4]).mul_(weights[:, 2])
    # As in `_hue`: the bits of uint32.
    total += 1 << (BLUR_BITS - 1)
    return ((total >> BLUR_BITS) & 255).to(torch.uint8)


def _looked_up(table: Tensor, indices: Tensor) -> Tensor:
    """Rows of a table, int32."""
    flat = table.index_select(0, indices.reshape(-1))
    return flat.view(*indices.shape, *table.shape[1:])


@cache
def _hue_tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The tables of `datasets/augment/hue.py` as int32, sent to a device once."""
    return (
        torch.from_numpy(hue.hues()).to(torch.int32).to(device),
        torch.from_numpy(hue.saturations()).to(torch.int32).to(device),
        torch.from_numpy(hue.hsv_to_rgb_table().astype("int32")).to(device),
    )


_OPERATIONS: tuple[Callable[[Tensor, AugmentSchedule, Tensor], Tensor], ...] = (
    _brightness,
    _contrast,
    _saturation,
    _hue,
    _grey,
    _blur,
    _nothing,
)
