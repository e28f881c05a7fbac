"""Who says what the unlabelled images show: the passes without a gradient."""

import torch
from torch import Tensor

from trainer.choices import PseudoLabels, Teacher, TeacherMode
from trainer.config import MethodConfig
from trainer.deeplab import DeepLabV3Plus
from trainer.methods.step import Networks


@torch.no_grad()
def calm_logits(network: DeepLabV3Plus, images: Tensor) -> Tensor:
    """Logits in evaluation mode, leaving the mode as it was."""
    was_training = network.training
    network.eval()
    logits = network(images).float()
    network.train(was_training)
    return logits  # type: ignore[no-any-return]


def weak_logits(method: MethodConfig, networks: Networks, weak: Tensor, trained: Tensor) -> Tensor:
    """The student's opinion on the weak view, for pixel-wise pseudo-labels.

    Args:
        method: says in which mode the opinion is formed (A2).
        networks: the student gives it.
        weak: normalised images.
        trained: the student's logits of the same images in the training forward.
    """
    if method.teacher_mode is TeacherMode.train:
        return trained.detach()
    return calm_logits(networks.student, weak)


def ema_speaks(method: MethodConfig, networks: Networks) -> DeepLabV3Plus | None:
    """The moving average, when the run has one (A1)."""
    return networks.ema if method.teacher is Teacher.ema else None


def ema_labels(method: MethodConfig) -> bool:
    """Whether the moving average also gives the pixel-wise pseudo-labels (A1)."""
    return method.teacher is Teacher.ema and method.pseudo_labels is PseudoLabels.teacher
