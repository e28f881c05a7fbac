"""Stages, steps per epoch, learning rate and warm-up, each a function of the step alone.

Nothing is accumulated from step to step, so a run may resume at any step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from trainer.config.schema import LossConfig, OptimConfig, RampUnit, TrainConfig


@dataclass(frozen=True)
class Stage:
    """One training of a run; rate, ramp and order of images begin anew in each.

    Attributes:
        name: empty where a run is a single training.
        epoch_steps: optimiser steps per epoch.
        epochs: of this stage.
        start: optimiser steps of the run before it.
        first_epoch: epochs of the run before it.
    """

    name: str
    epoch_steps: int
    epochs: int
    start: int = 0
    first_epoch: int = 0

    @property
    def steps(self) -> int:
        """Optimiser steps of this stage."""
        return self.epoch_steps * self.epochs

    @property
    def end(self) -> int:
        """Optimiser steps of the run at its end."""
        return self.start + self.steps


@dataclass(frozen=True)
class Schedule:
    """The stages of a run, one after another; most methods have one."""

    stages: tuple[Stage, ...]

    @classmethod
    def of(cls, config: TrainConfig, *, num_labelled: int, num_unlabelled: int) -> "Schedule":
        """The schedule of a run on a split of so many images.

        Raises:
            ValueError: a list that a stage passes over is empty.
        """
        sizes = {"num_labelled": num_labelled, "num_unlabelled": num_unlabelled}
        path = config.method.facts.stages
        if not path:
            steps = steps_per_epoch(config, **sizes)
            return cls((Stage("", steps, num_epochs(config.optim, steps)),))
        module, _, name = path.rpartition(".")
        images_of: Callable[..., dict[str, int]] = getattr(import_module(module), name)
        stages, start, epoch = [], 0, 0
        for stage_name, images in images_of(config, **sizes).items():
            steps = _whole_batches(config, images, config.batch)
            if steps == 0:
                raise ValueError(
                    f"Stage {stage_name} of method={config.method.name} has no image on split "
                    f"{config.data.split}; choose a split with unlabelled images."
                )
            epochs = num_epochs(config.optim, steps)
            stages.append(Stage(stage_name, steps, epochs, start, epoch))
            start, epoch = stages[-1].end, epoch + stages[-1].epochs
        return cls(tuple(stages))

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.stages[-1].end

    @property
    def epochs(self) -> int:
        """Epochs of the whole run."""
        return sum(stage.epochs for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """The stage that takes a step; after the last step the last one."""
        return next((stage for stage in self.stages if step < stage.end), self.stages[-1])

    def epochs_done(self, step: int) -> int:
        """Whole epochs of the run before a step."""
        stage = self.stage_at(step)
        return stage.first_epoch + (step - stage.start) // stage.epoch_steps


def steps_per_epoch(config: TrainConfig, *, num_labelled: int, num_unlabelled: int) -> int:
    """Optimiser steps in one epoch.

    An epoch is a pass over the unlabelled list; for a method that needs none, over the labelled
    list, unless `method.match_iters` gives it the steps of a semi-supervised run. It does not
    depend on the number of ranks that run it.

    The UniMatch code counts on each of its 4 GPUs: torch's DistributedSampler pads the list to a
    multiple of 4, and the loader of every GPU drops an incomplete last batch. So a list of 15 has
    two steps of 8 there, and one by whole batches. `optim.sampler_ranks=4` counts in that way.

    Raises:
        ValueError: the list is empty.
    """
    batch, images, cure = config.batch, num_unlabelled, "a method that needs none"
    if not config.method.facts.needs_unlabelled:
        if config.method.match_iters:
            batch, cure = config.optim.batch, "method.match_iters=false"
        else:
            images = num_labelled
    steps = _whole_batches(config, images, batch)
    if steps == 0:
        raise ValueError(
            f"Split {config.data.split} has no unlabelled images for an epoch to pass over; choose "
            f"a split with some, or {cure}."
        )
    return steps


def _whole_batches(config: TrainConfig, images: int, batch: int) -> int:
    """Steps of one pass over a list; an incomplete last batch is not counted.

    A list that is shorter than one batch gives one step, filled by further passes over it. Such
    lists occur in small folders of one's own alone; the UniMatch code would take no step.
    """
    ranks = config.optim.sampler_ranks
    return max(math.ceil(images / ranks) * ranks // batch, min(images, 1))


def num_epochs(optim: OptimConfig, epoch_steps: int) -> int:
    """Epochs of a run: `optim.epochs`, or as many as come nearest to `optim.steps`.

    CPS, for instance, has about 39,680 steps whatever the split: 32, 34, 40 and 60 epochs.
    """
    return optim.epochs or max(round(optim.steps / epoch_steps), 1)


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
