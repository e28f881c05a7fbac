"""The trainings of ST++ and the lengths of their lists.

Needs no torch, because a plan counts the steps of many cells.
"""

import math

from trainer.config.schema import TrainConfig

SUPERVISED = "supervised"  # labelled images alone
RELIABLE = "reliable"  # and the half of the others whose predictions changed least
ALL = "all"  # and all others

_FEW = 200  # labelled images below which the code lists each twice in the first training


def stage_images(config: TrainConfig, *, num_labelled: int, num_unlabelled: int) -> dict[str, int]:
    """Images in an epoch of each training.

    Raises:
        ValueError: the split has too few unlabelled images.
    """
    if num_unlabelled < 2:
        raise ValueError(
            f"method={config.method.name} learns from predictions of unlabelled images, and split "
            f"{config.data.split} has {num_unlabelled}; choose another split."
        )
    others = {SUPERVISED: 0, RELIABLE: num_unlabelled // 2, ALL: num_unlabelled}
    if not config.method.st_plusplus.plus:
        del others[RELIABLE]
    return {
        stage: labelled_repeats(num_labelled, count) * num_labelled + count
        for stage, count in others.items()
    }


def labelled_repeats(num_labelled: int, num_others: int) -> int:
    """How often labelled images stand in the list of an epoch, besides so many others."""
    if num_others == 0:
        return 2 if num_labelled < _FEW else 1
    return math.ceil(num_others / num_labelled)
