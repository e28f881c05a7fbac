"""Mean intersection over union from one confusion matrix of the whole validation set."""

import torch
from torch import Tensor
from torchmetrics import Metric


class ConfusionMatrix(Metric):
    """Counts of (truth, prediction); exact integers, so the number of ranks cannot matter.

    torchmetrics gives the state and its reduction; the counting is one `bincount`, its own matrix
    takes minutes in deterministic mode.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__(sync_on_compute=False)
        self.num_classes = num_classes
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Add pixels: class ids of one shape; truth 255 is left out, as all from `num_classes`."""
        # A row for each value of a byte: the ignored pixels land in the last one, so no boolean
        # index waits for the host. Narrow keys are counted several times faster than int64.
        # CUDA keeps the number of bins in the type of the keys, so it must fit, too.
        kind = torch.int16 if 256 * self.num_classes < 2**15 else torch.int32
        key = truth.to(kind) * self.num_classes + predicted.to(kind)
        counted = torch.bincount(key.flatten(), minlength=256 * self.num_classes)
        self.counts += counted.view(256, self.num_classes)[: self.num_classes]

    def compute(self) -> Tensor:
        """IoU per class in percent, (C,); NaN where a class neither occurs nor is predicted."""
        return iou_percent(self.counts)


def iou_percent(counts: Tensor) -> Tensor:
    """IoU per class in percent from a confusion matrix (truth, prediction)."""
    counts = counts.to(torch.float64)
    intersection = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - intersection
    return 100.0 * intersection / union


def mean_iou_percent(per_class: Tensor) -> float:
    """Mean over classes; one that never occurs counts zero, as in UniMatch (I / (U + 1e-10))."""
    return float(per_class.nan_to_num(0.0).mean())
