"""Many strong views as a few stages, in each of which equal operations stand together.

Every view has its own order of operations. So that a device can do them in batches without asking
the host, the host sorts the views of each stage by operation and sends the order along.

Legend: N views, T = 6 stages: four of colour jitter, then grayscale, then blur.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets.augment import Photometry
from datasets.hue import hue_shift
from datasets.movable import Movable

OPERATIONS = ("brightness", "contrast", "saturation", "hue", "grey", "blur", "nothing")
BLUR_BITS = 24  # one in the weights of a box blur
_GREY, _BLUR, _NOTHING = 4, 5, 6


@dataclass(frozen=True)
class Stages(Movable):
    """What is done to N views.

    Attributes:
        order: views sorted by operation, int64 (T, N).
        inverse: where each view stands in `order`, int64 (T, N).
        sizes: per stage, views under each of OPERATIONS.
        factors: of brightness, contrast and saturation, float32 (N, 3).
        shifts: of the hue modulo 256, int64 (N,).
        blurs: weights of a box blur's middle, first and second neighbours in units of 2^-24,
            int32 (N, 3).
    """

    order: Tensor
    inverse: Tensor
    sizes: tuple[tuple[int, ...], ...]
    factors: Tensor
    shifts: Tensor
    blurs: Tensor


def stages_of(drawn: Sequence[Photometry | None]) -> Stages:
    """The stages of some views; None leaves a view as it is."""
    table = np.array([_operations(entry) for entry in drawn]).T  # (T, N)
    order = np.argsort(table, axis=1, kind="stable")
    sizes = tuple(tuple(np.bincount(row, minlength=len(OPERATIONS)).tolist()) for row in table)
    factors = [
        (entry.brightness, entry.contrast, entry.saturation) if entry else (1.0, 1.0, 1.0)
        for entry in drawn
    ]
    return Stages(
        order=torch.from_numpy(order),
        inverse=torch.from_numpy(np.argsort(order, axis=1)),
        sizes=sizes,
        factors=torch.tensor(factors, dtype=torch.float32),
        shifts=torch.tensor([hue_shift(entry.hue) if entry else 0 for entry in drawn]),
        blurs=torch.tensor(
            [blur_weights(entry.blur) if entry else (0, 0, 0) for entry in drawn],
            dtype=torch.int32,
        ),
    )


def blur_weights(sigma: float) -> tuple[int, int, int]:
    """Weights of the middle, first and second neighbours in one pass of Pillow's GaussianBlur.

    Three box blurs of one radius, in single precision where Pillow's is; the fraction of the
    radius goes to the outermost neighbours.

    Args:
        sigma: standard deviation, pixels, at most 2: UniMatch's largest.
    """
    assert 0.0 < sigma <= 2.0, "a larger blur needs more neighbours"
    radius = _box_radius(np.float32(sigma))
    whole = int(radius)
    full = int(np.float32(1 << BLUR_BITS) / (radius * np.float32(2) + np.float32(1)))
    rest = ((1 << BLUR_BITS) - (2 * whole + 1) * full) // 2
    return (full, rest, 0) if whole == 0 else (full, full, rest)


def _box_radius(sigma: np.float32) -> np.float32:
    """Radius of the box whose three-fold blur has a variance of sigma squared."""
    variance = np.float32(sigma * sigma / np.float32(3))
    length = np.float32(math.sqrt(12.0 * float(variance) + 1.0))
    whole = np.float32(math.floor((float(length) - 1.0) / 2.0))
    one, two, three = np.float32(1), np.float32(2), np.float32(3)
    excess = (two * whole + one) * (whole * (whole + one) - three * variance)
    excess = np.float32(
        float(excess) / float(np.float32(6) * (variance - (whole + one) * (whole + one)))
    )
    return np.float32(whole + excess)


def _operations(drawn: Photometry | None) -> tuple[int, ...]:
    """Index into OPERATIONS for each stage."""
    if drawn is None:
        return (_NOTHING,) * 6
    jitter = drawn.order if drawn.is_jittered else (_NOTHING,) * 4
    return (
        *jitter,
        _GREY if drawn.is_grey else _NOTHING,
        _BLUR if drawn.is_blurred else _NOTHING,
    )
