"""A teacher as the exponential moving average (EMA) of a student (Tarvainen & Valpola 2017)."""

import torch
from torch import Tensor

from trainer.config.schema import Buffers
from trainer.network.deeplab import DeepLabV3Plus


def growing_decay(steps: int, limit: float) -> float:
    """min(1 - 1 / (steps + 1), limit).

    It grows with the steps done, so that the first weights, which are random, are forgotten
    quickly; at 0 steps the average becomes a copy.
    """
    return min(1.0 - 1.0 / (steps + 1), limit)


@torch.no_grad()
def move_average(
    mean: DeepLabV3Plus,
    student: DeepLabV3Plus,
    *,
    share: float | Tensor,
    buffers: Buffers | None,
) -> None:
    """Move the weights of `mean` towards those of `student`.

    Args:
        mean: the teacher, changed in place.
        student: of the same shape.
        share: of the student in the new average, in [0, 1]: one minus the decay. A tensor is a
            scalar of the type of the weights.
        buffers: how the batch-norm statistics follow; None where the teacher makes its own.
    """
    for kept, value in zip(mean.parameters(), student.parameters(), strict=True):
        kept.lerp_(value, share)
    if buffers is None:
        return
    for old, new in zip(mean.buffers(), student.buffers(), strict=True):
        # Batch-norm counters are whole numbers, of which there is no average.
        if buffers is Buffers.copy or not old.is_floating_point():
            old.copy_(new)
        else:
            old.lerp_(new, share)
