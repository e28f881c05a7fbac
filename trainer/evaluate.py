"""Validation: every image once, whole or in sliding windows (part_a 1.6)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from datasets.opening import Dataset
from trainer.choices import EvaluationMode
from trainer.config import TrainConfig
from trainer.confusion import ConfusionMatrix, mean_iou_percent
from trainer.deeplab import DeepLabV3Plus
from trainer.pixels import normalise
from trainer.ranks import Ranks
from trainer.summary import Counts


@dataclass(frozen=True)
class Score:
    """One evaluation.

    Attributes:
        iou_percent: per class; None where a class neither occurs nor is predicted.
        confusion: pixels by truth and prediction; empty where it was not kept.
    """

    miou_percent: float
    iou_percent: tuple[float | None, ...]
    confusion: Counts = ()


@torch.no_grad()
def evaluate(network: DeepLabV3Plus, dataset: Dataset, config: TrainConfig, ranks: Ranks) -> Score:
    """Score of the validation set on every rank.

    Each rank takes every world_size-th image, none twice: padding the list, as DistributedSampler
    does, counts some images twice and moves the mIoU with the number of ranks.
    """
    was_training = network.training
    network.eval()
    matrix = ConfusionMatrix(dataset.num_classes).to(ranks.device)
    for name in dataset.split.validation[ranks.rank :: ranks.world_size]:
        image = _tensor(dataset.tree.image(name)).permute(2, 0, 1)[None]
        truth = _tensor(dataset.tree.mask(name)).to(ranks.device)
        predicted = predict(network, image.to(ranks.device), config)[0]
        matrix.update(predicted, truth)
    network.train(was_training)
    matrix.counts = ranks.sum(matrix.counts)
    per_class = matrix.compute().cpu()
    values = tuple(None if value != value else value for value in per_class.tolist())
    counts = tuple(tuple(line) for line in matrix.counts.tolist())
    return Score(mean_iou_percent(per_class), values, counts)


def predict(network: DeepLabV3Plus, images: Tensor, config: TrainConfig) -> Tensor:
    """Class ids (B, H, W) of uint8 images (B, 3, H, W)."""
    pixels = normalise(images)
    if config.evaluation.mode is EvaluationMode.whole:
        return network(pixels).max(1).indices  # type: ignore[no-any-return]
    return _slide(network, pixels, config.data.crop).max(1).indices


def _slide(network: DeepLabV3Plus, pixels: Tensor, window: int) -> Tensor:
    """Softmax summed over windows of one size, stride two thirds; border windows are smaller."""
    height, width = pixels.shape[-2:]
    stride = int(window * 2 / 3)
    total: Tensor | None = None
    for top in range(0, height, stride):
        for left in range(0, width, stride):
            part = pixels[..., top : top + window, left : left + window]
            probability = functional.softmax(network(part).float(), 1)
            if total is None:
                total = pixels.new_zeros(len(pixels), probability.shape[1], height, width)
            total[..., top : top + window, left : left + window] += probability
    assert total is not None
    return total


def _tensor(image: object) -> Tensor:
    """A Pillow image as uint8 (H, W) or (H, W, 3)."""
    return torch.from_numpy(np.array(image, dtype=np.uint8))
