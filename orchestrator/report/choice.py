"""Which images a qualitative figure shows, and where its boxes lie: rules, not taste."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.catalog import IGNORED

RULE = (
    "Chosen by rule, not by eye: of the first {candidates} validation images, half of those shown "
    "gain most correct pixels and half lose most. Boxes: the windows of a third of each side with "
    "the most pixels where exactly one of the two is right; at most two, apart from each other, "
    "the second only with half as many such pixels."
)

Mask = NDArray[np.uint8]  # class indices, (H, W)


@dataclass(frozen=True)
class Box:
    """A window of an image, pixels."""

    left: int
    top: int
    width: int
    height: int


def gain(truth: Mask, base: Mask, new: Mask) -> float:
    """Part of the counted pixels that `new` gets right and `base` wrong, less the reverse."""
    counted = truth != IGNORED
    total = int(counted.sum())
    right = ((new == truth) & counted).sum() - ((base == truth) & counted).sum()
    return float(right) / total if total else 0.0


def accuracy(truth: Mask, predicted: Mask) -> float:
    """Part of the counted pixels that is right."""
    counted = truth != IGNORED
    return float((predicted == truth)[counted].mean()) if counted.any() else 0.0


def chosen(gains: Sequence[float], count: int) -> list[int]:
    """Indices of the images to show: those that gain most, then those that lose most."""
    order = sorted(range(len(gains)), key=lambda index: (-gains[index], index))
    winners = [index for index in order if gains[index] > 0][: (count + 1) // 2]
    losers = [index for index in reversed(order) if gains[index] < 0][: count // 2]
    return winners + losers


def boxes(truth: Mask, base: Mask, new: Mask) -> list[Box]:
    """Where the two differ most, see `RULE`."""
    differs = ((base == truth) != (new == truth)) & (truth != IGNORED)
    height, width = differs.shape
    size = (max(1, round(height / 3)), max(1, round(width / 3)))
    found: list[Box] = []
    left = differs.copy()
    most = 0
    for _ in range(2):
        box, count = _fullest(left, size, found)
        if box is None or count == 0 or count < most / 2:
            break
        found.append(box)
        most = max(most, count)
    return found


def _fullest(
    marked: NDArray[np.bool_], size: tuple[int, int], taken: Sequence[Box]
) -> tuple[Box | None, int]:
    """The window with the most marked pixels that touches none of the taken ones."""
    height, width = size
    sums = np.pad(marked.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    counts = (
        sums[height:, width:]
        - sums[:-height, width:]
        - sums[height:, :-width]
        + sums[:-height, :-width]
    )
    for box in taken:
        top, left = max(0, box.top - height + 1), max(0, box.left - width + 1)
        counts[top : box.top + box.height, left : box.left + box.width] = -1
    top, left = divmod(int(counts.argmax()), counts.shape[1])
    count = int(counts[top, left])
    return (None, 0) if count < 0 else (Box(left, top, width, height), count)
