"""Virtual adversarial noise on the features of a student, from its teachers (Liu et al. 2022).

Legend: B images of this rank, C classes, S x S pixels of a crop; features (B, F, h, w) at stride 4.
"""

import torch
from torch import Tensor

from trainer.config.method_settings import PsMtConfig, Tvat
from trainer.network.deeplab import DeepLabV3Plus


def adversarial_noise(
    settings: PsMtConfig,
    teachers: list[DeepLabV3Plus],
    features: Tensor,
    start: Tensor,
    *,
    size: tuple[int, ...],
    batch: int,
) -> Tensor:
    """T-VAT: the noise on features that changes the mean prediction of the teachers most.

    One step of power iteration, as in virtual adversarial training (Miyato et al. 2018): the
    gradient, at a small random noise, of the divergence from the prediction without noise. Float32
    whatever the precision of the step, and batch normalisation in evaluation mode.

    Args:
        settings: step and radius.
        teachers: whose decoders predict.
        features: of the student, (B, F, h, w).
        start: random numbers around zero, of that shape.
        size: of the logits, S x S.
        batch: images of the step over all ranks; the divergence is their mean.

    Returns:
        The noise, float32 (B, F, h, w): of each image a constant norm, see `Tvat`.
    """
    features = features.detach().float()
    step: float | Tensor = 1e-6  # constants of the code
    radius: float | Tensor = 2.0
    added = 1e-8
    if settings.tvat is Tvat.intent:
        norm = torch.linalg.vector_norm(features, dim=(1, 2, 3), keepdim=True)
        step, radius, added = settings.tvat_step * norm, settings.tvat_radius * norm, 0.0
    for teacher in teachers:
        teacher.fuse.eval()
    with torch.autocast("cuda" if features.is_cuda else "cpu", enabled=False):
        with torch.no_grad():
            clean = _mean_logits(teachers, features, size).softmax(1)
        start = start.to(features.dtype, memory_format=torch.channels_last)
        direction = _unit(start, added).requires_grad_()
        noisy = _mean_logits(teachers, features + step * direction, size).log_softmax(1)
        # The cross-entropy has the gradient of the Kullback-Leibler divergence.
        distance = -(clean * noisy).sum() / batch
        (gradient,) = torch.autograd.grad(distance, direction)
    for teacher in teachers:
        teacher.fuse.train(teacher.training)
    return radius * _unit(gradient, added)


def _mean_logits(teachers: list[DeepLabV3Plus], features: Tensor, size: tuple[int, ...]) -> Tensor:
    """What the decoders of the teachers make of features, (B, C, S, S)."""
    return torch.stack([teacher.classify(features, size) for teacher in teachers]).mean(0)


def _unit(noise: Tensor, added: float) -> Tensor:
    """The noise of each image divided by its norm, to which a number is added before."""
    # First by the largest entry: the squares of a small gradient would be zero.
    tiny = torch.finfo(noise.dtype).tiny
    largest = noise.abs().amax((1, 2, 3), keepdim=True).clamp(min=tiny)
    noise = noise / largest
    norm = torch.linalg.vector_norm(noise, dim=(1, 2, 3), keepdim=True) + added / largest
    unit: Tensor = noise / norm.clamp(min=tiny)
    return unit
