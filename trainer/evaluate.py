"""Validation: predictions, the confusion matrix, IoU and mIoU.

Every image is scored once, at its own size: whole (VOC) or in sliding windows (Cityscapes), as the
UniMatch code of 2023 does after every epoch, or as the code of another method does.
Legend: B images, C classes, H x W pixels.
"""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric

from datasets.dataset import Dataset
from datasets.loading.loader import validation_images
from trainer.config.schema import Absent, EvaluationMode, TrainConfig
from trainer.distributed import Ranks
from trainer.feed import decoded_cache, to_device
from trainer.network.deeplab import normalise, upsample
from trainer.run_log import Counts


class ConfusionMatrix(Metric):
    """Pixel counts (truth, prediction), int64 (C, C).

    Whole numbers, so the sum over ranks is exact in any order. torchmetrics gives the state and its
    reduction; the counting is one `bincount`, because the matrix of torchmetrics takes minutes in
    deterministic mode.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__(sync_on_compute=False)
        self.num_classes = num_classes
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Add the pixels of one or more images.

        Args:
            predicted: class ids below C, of any shape.
            truth: class ids of the same shape; 255, like every value from C on, is not counted.
        """
        # One row for each value of a byte, so that ignored pixels get rows of their own, which are
        # cut off below; selecting pixels with a mask would make the host wait for the device.
        # Narrow keys are counted several times faster than int64. CUDA holds the number of bins in
        # the type of the keys, so that number must fit as well.
        kind = torch.int16 if 256 * self.num_classes < 2**15 else torch.int32
        key = truth.to(kind) * self.num_classes + predicted.to(kind)
        counted = torch.bincount(key.flatten(), minlength=256 * self.num_classes)
        self.counts += counted.view(256, self.num_classes)[: self.num_classes]

    def compute(self) -> Tensor:
        """IoU per class in percent, (C,); NaN where a class neither occurs nor is predicted."""
        return iou_percent(self.counts)


def iou_percent(counts: Tensor) -> Tensor:
    """IoU per class in percent, float64 (C,), of a confusion matrix (truth, prediction) (C, C)."""
    counts = counts.to(torch.float64)
    intersection = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - intersection
    return 100.0 * intersection / union


def mean_iou_percent(counts: Tensor, absent: Absent = Absent.zero) -> float:
    """Mean over the classes of IoU in percent.

    A class that neither occurs nor is predicted counts zero, as in the UniMatch code, which divides
    by U + 1e-10; one that is predicted but does not occur has an IoU of zero in any case.

    Args:
        counts: confusion matrix (truth, prediction) (C, C).
        absent: `skip` leaves out the classes that do not occur, predicted or not.
    """
    per_class = iou_percent(counts).nan_to_num(0.0)
    if absent is Absent.skip:
        per_class = per_class[counts.sum(1) > 0]
    return float(per_class.mean())


def absent_classes(confusion: Counts) -> tuple[int, ...]:
    """Classes without a pixel in the truth of a confusion matrix; none of an empty matrix."""
    return tuple(label for label, line in enumerate(confusion) if not any(line))


# On a CPU one by one: several at once are not faster there. The number is fixed because another
# one moves the last digits, see `slide`.
WINDOWS_AT_ONCE = {"cpu": 1, "cuda": 4}


@dataclass(frozen=True)
class Score:
    """The result of one evaluation.

    Attributes:
        miou_percent: mean IoU over the classes that `evaluation.absent` counts.
        iou_percent: per class; None where a class neither occurs nor is predicted.
        confusion: pixels by truth, then by prediction; empty where it was dropped to save space.
    """

    miou_percent: float
    iou_percent: tuple[float | None, ...]
    confusion: Counts = ()


@torch.no_grad()
def evaluate(network: nn.Module, dataset: Dataset, config: TrainConfig, ranks: Ranks) -> Score:
    """Score a network on the validation set; the result is the same on every rank.

    Each rank takes every world_size-th image, none twice: padding the list, as DistributedSampler
    does, counts some images twice and moves the mIoU with the number of ranks.
    """
    was_training = network.training
    network.eval()
    matrix = ConfusionMatrix(dataset.num_classes).to(ranks.device)
    names = dataset.split.validation[ranks.rank :: ranks.world_size]
    workers = config.loader_workers(ranks.device.type)
    images = validation_images(dataset, names, workers=workers, cache=decoded_cache(config))
    with closing(images):  # an error here must not leave the workers to the garbage collector
        for image, truth in images:
            predicted = predict(network, to_device(image[None], ranks.device), config)[0]
            matrix.update(predicted, to_device(truth, ranks.device))
    network.train(was_training)
    matrix.counts = ranks.sum(matrix.counts)  # before any ratio: the mIoU is of the whole set
    total = matrix.counts.cpu()
    # Only NaN differs from itself; it becomes None, which JSON and Parquet can hold.
    values = tuple(None if value != value else value for value in iou_percent(total).tolist())
    counts = tuple(tuple(line) for line in total.tolist())
    return Score(mean_iou_percent(total, config.evaluation.absent), values, counts)


def predict(network: nn.Module, images: Tensor, config: TrainConfig) -> Tensor:
    """Class ids (B, H, W) of uint8 images (B, 3, H, W)."""
    pixels, mode = normalise(images), config.evaluation.mode
    crop, at_once = config.data.crop, WINDOWS_AT_ONCE[images.device.type]
    if mode is EvaluationMode.slide:
        scores = slide(network, pixels, crop, at_once=at_once)
    elif mode is EvaluationMode.slide_inside:
        scores = slide_inside(network, pixels, crop, at_once=at_once)
    elif mode is EvaluationMode.whole:
        scores = network(pixels)
    else:
        scores = whole_by_eight(network, pixels, mode)
    return scores.max(1).indices


def whole_by_eight(network: nn.Module, pixels: Tensor, mode: EvaluationMode) -> Tensor:
    """Logits (B, C, H, W) of images whose sides are brought to multiples of 8.

    Args:
        network: in evaluation mode.
        pixels: normalised images (B, 3, H, W).
        mode: `whole_resized` enlarges the images, `whole_reflected` their borders on the right and
            below.
    """
    height, width = pixels.shape[-2:]
    size = (-(-height // 8) * 8, -(-width // 8) * 8)
    if mode is EvaluationMode.whole_resized:
        logits = network(upsample(pixels, size, "bilinear"))
        return upsample(logits, (height, width), "bilinear")
    missing = (0, size[1] - width, 0, size[0] - height)
    logits = network(functional.pad(pixels, missing, mode="reflect"))
    return logits[..., :height, :width]  # type: ignore[no-any-return]


def slide_inside(network: nn.Module, pixels: Tensor, window: int, *, at_once: int) -> Tensor:
    """Logits summed over windows of one size, stride two thirds rounded up; none leaves the image.

    The last window of a row or column is shifted back to the border. Images smaller than a window
    have half of what is missing on each side, of the mean colour.

    Args:
        network: in evaluation mode.
        pixels: normalised images (B, 3, H, W).
        window: edge of a window, in pixels.
        at_once: see `slide`.

    Returns:
        Sums (B, C, H, W), which differ from means by a factor of each pixel.
    """
    height, width = pixels.shape[-2:]
    below, right = max(window - height, 0), max(window - width, 0)
    top, left = below // 2, right // 2
    padded = functional.pad(pixels, (left, right - left, top, below - top))
    total: Tensor | None = None
    for row in _starts(padded.shape[-2], window):
        columns = _starts(padded.shape[-1], window)
        for first in range(0, len(columns), at_once):
            group = columns[first : first + at_once]
            rows = padded[..., row : row + window, :]
            logits = network(torch.cat([rows[..., x : x + window] for x in group])).float()
            if total is None:
                total = logits.new_zeros(len(pixels), logits.shape[1], *padded.shape[-2:])
            for x, part in zip(group, logits.chunk(len(group)), strict=True):
                total[..., row : row + window, x : x + window] += part
    assert total is not None
    return total[..., top : top + height, left : left + width]


def _starts(side: int, window: int) -> list[int]:
    """First pixels of the windows along a side that is at least as long as one."""
    stride = math.ceil(window * 2 / 3)
    return [*range(0, side - window, stride), side - window]


def slide(network: nn.Module, pixels: Tensor, window: int, *, at_once: int) -> Tensor:
    """Softmax summed over windows of one size, stride two thirds; border windows are smaller.

    Args:
        network: in evaluation mode.
        pixels: normalised images (B, 3, H, W).
        window: edge of a window, in pixels.
        at_once: windows of one row and one width that pass the network together. Another number
            moves the last digits, because convolutions choose their kernels by batch.

    Returns:
        Sums (B, C, H, W); the order of addition does not depend on `at_once`.
    """
    height, width = pixels.shape[-2:]
    stride = int(window * 2 / 3)
    total: Tensor | None = None
    for top in range(0, height, stride):
        rows = pixels[..., top : top + window, :]
        for lefts in _alike(width, window, stride, at_once):
            parts = [rows[..., left : left + window] for left in lefts]
            joined = parts[0] if len(parts) == 1 else torch.cat(parts)
            probability = functional.softmax(network(joined).float(), 1)
            if total is None:
                total = pixels.new_zeros(len(pixels), probability.shape[1], height, width)
            for left, part in zip(lefts, probability.chunk(len(lefts)), strict=True):
                total[..., top : top + window, left : left + window] += part
    assert total is not None
    return total


def _alike(width: int, window: int, stride: int, at_once: int) -> Iterator[list[int]]:
    """Left edges of the windows of one row, in groups of one width and at most `at_once`."""
    lefts = range(0, width, stride)
    whole = [left for left in lefts if left + window <= width]
    for first in range(0, len(whole), at_once):
        yield whole[first : first + at_once]
    for left in lefts[len(whole) :]:  # each cut by the border, each of its own width
        yield [left]
