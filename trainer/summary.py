"""What a run says when it ends."""

from dataclasses import dataclass
from typing import Literal

Counts = tuple[tuple[int, ...], ...]  # pixels by truth, then by prediction; 255 is left out


@dataclass(frozen=True)
class Summary:
    """The numbers of a run, complete or stopped; percentages are of mean intersection over union.

    Attributes:
        status: "done", or "stopped" at a step from which it can go on.
        steps: optimiser steps done since step 0, over all attempts.
        best_iou_percent: per class at the best epoch; None where a class never occurs.
        best_confusion: pixels of the validation set at the best epoch, (truth, prediction); empty
            when that epoch was scored before this was kept.
        seconds: time in the training loop and evaluation, over all attempts.
        weights_sha256: of the final weights and buffers; None while the run is stopped.
    """

    status: Literal["done", "stopped"]
    epochs: int
    steps: int
    best_miou_percent: float | None
    best_epoch: int | None
    last_miou_percent: float | None
    last_epoch: int | None
    best_iou_percent: tuple[float | None, ...]
    last_iou_percent: tuple[float | None, ...]
    best_confusion: Counts
    last_confusion: Counts
    seconds: float
    peak_memory_bytes: int
    weights_sha256: str | None
    best_weights_sha256: str | None
    data_fingerprint: str
    split_checksum: str
    pretrained_sha256: str | None
    world_size: int
    device: str
