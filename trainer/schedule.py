"""Steps per epoch, learning rate and warm-up, each as a function of the step alone.

Nothing is accumulated from step to step, so a run may resume at any step.
"""

import math

from trainer.config.schema import LossConfig, RampUnit, TrainConfig


def steps_per_epoch(config: TrainConfig, *, num_labelled: int, num_unlabelled: int) -> int:
    """Optimiser steps in one epoch.

    An epoch is a pass over the unlabelled list; for a method that needs none, over the labelled
    list, unless `method.match_iters` gives it the steps of a semi-supervised run. It does not
    depend on the number of ranks that run it.

    The UniMatch code counts on each of its 4 GPUs: torch's DistributedSampler pads the list to a
    multiple of 4, and the loader of every GPU drops an incomplete last batch. So a list of 15 has
    two steps of 8 there, and one by whole batches. `optim.sampler_ranks=4` counts in that way.

    Raises:
        ValueError: the list is shorter than one batch.
    """
    batch, images, kind, cure = config.batch, num_unlabelled, "unlabelled", "a smaller optim.batch"
    if not config.method.facts.needs_unlabelled:
        if config.method.match_iters:
            batch, cure = config.optim.batch, "method.match_iters=false"
        else:
            images, kind = num_labelled, "labelled"
    ranks = config.optim.sampler_ranks
    steps = math.ceil(images / ranks) * ranks // batch  # an incomplete last batch is not counted
    if steps == 0:
        raise ValueError(
            f"Split {config.data.split} has {images} {kind} images, fewer than one batch of "
            f"{batch}; choose a larger split or {cure}."
        )
    return steps


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Rate of the backbone at a step: lr (1 - step / total)^power, per optimiser step.

    With `optim.lag` step k takes the rate of k - 1, as the released UniMatch code does.
    """
    done = max(step - 1, 0) if config.optim.lag else step
    return float(config.lr * (1.0 - done / total_steps) ** config.optim.power)


def gaussian_ramp(step: float, warmup_steps: float) -> float:
    """Weight of the inter-pixel loss while the teacher is still poor.

    exp(-5 (1 - step / warmup_steps)^2), Sec. IV-C; the form is from Laine & Aila (2017).

    Args:
        step: optimiser steps done, counted from 0 over the whole run.
        warmup_steps: steps until full weight; 0 means no warm-up.

    Returns:
        A factor in [exp(-5), 1]; exactly 1 from `warmup_steps` on.
    """
    if step >= warmup_steps:
        return 1.0
    return math.exp(-5.0 * (1.0 - step / warmup_steps) ** 2)


def inter_pixel_weight(loss: LossConfig, step: int, epoch_steps: int) -> float:
    """Alpha of Eq. 6 at a step, ramp included.

    Sec. IV-C counts iterations and gives the length of the warm-up in epochs (A21).

    Args:
        loss: alpha, warm-up and its unit.
        step: optimiser steps done.
        epoch_steps: optimiser steps per epoch.
    """
    if loss.ramp_unit is RampUnit.epoch:
        return loss.alpha * gaussian_ramp(step // epoch_steps, loss.warmup_epochs)
    return loss.alpha * gaussian_ramp(step, loss.warmup_epochs * epoch_steps)
