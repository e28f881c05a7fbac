"""The other readings of Eqs. 2 to 5, each behind a field of LossConfig.

With every field at its default `image_losses` equals `trainer.inter_pixel.inter_pixel_loss` (a test
holds that), which the training step then uses. Shapes: B images, C classes, N pixels.
"""

import math

import torch
from torch import Tensor

from trainer.choices import Classes, CorrelateOn, Direction, Distance, NormOver
from trainer.config import LossConfig


def image_losses(
    student: Tensor, teacher: Tensor, valid: Tensor, loss: LossConfig
) -> tuple[Tensor, Tensor]:
    """Eq. 2 for every image.

    Args:
        student: logits (B, C, N); gradients flow here.
        teacher: logits (B, C, N), a constant.
        valid: (B, N) bool, False where a pixel may not enter Omega.
        loss: which reading.

    Returns:
        Losses (B,), zero where an image has too few confident pixels, and which have enough.
    """
    confident = (teacher.softmax(1).amax(1) > loss.threshold) & valid  # Omega, (B, N)
    num_pixels = confident.sum(1)
    usable = num_pixels >= loss.min_pixels
    # Images that do not count run on all their pixels: no NaN, the graph stays whole.
    keep = (confident | ~usable[:, None])[:, None]
    over = torch.ones_like(keep) if loss.norm_over is NormOver.all else keep
    log_p = _log_distribution(teacher / loss.temperature, over)
    log_q = _log_distribution(student / loss.temperature, over)
    if loss.distance is Distance.kl:
        per_class = _divergence(log_p, log_q, keep, loss.direction)
    elif loss.cr_on is CorrelateOn.logits:
        per_class = 1.0 - _correlation(teacher, student, keep)
    else:
        per_class = 1.0 - _correlation(log_p.exp(), log_q.exp(), keep)
    per_image = _class_mean(per_class, teacher, confident, loss.classes)
    if loss.log_norm:
        per_image = per_image / num_pixels.clamp(min=2).to(per_image.dtype).log()
    if loss.t2_scale:
        per_image = per_image * loss.temperature**2
    return torch.where(usable, per_image, 0.0), usable


def _log_distribution(logits: Tensor, over: Tensor) -> Tensor:
    """Eq. 4 in logs over the pixels of `over`; minus infinity elsewhere."""
    return logits.masked_fill(~over, -torch.inf).log_softmax(2)


def _divergence(log_p: Tensor, log_q: Tensor, keep: Tensor, direction: Direction) -> Tensor:
    """KL over pixels in the chosen order, (B, C)."""
    if direction is Direction.reverse:
        return _kl(log_q, log_p, keep)
    if direction is Direction.forward:
        return _kl(log_p, log_q, keep)
    # Zeros outside keep: logaddexp(-inf, -inf) has a NaN gradient even where it is masked later.
    left, right = (torch.where(keep, x, 0.0) for x in (log_p, log_q))
    middle = torch.logaddexp(left, right) - math.log(2.0)
    return 0.5 * (_kl(left, middle, keep) + _kl(right, middle, keep))


def _kl(log_p: Tensor, log_q: Tensor, keep: Tensor) -> Tensor:
    return torch.where(keep, log_p.exp() * torch.where(keep, log_p - log_q, 0.0), 0.0).sum(2)


def _correlation(u: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    """Pearson's correlation over the kept pixels, (B, C); 0 for a constant."""
    count = keep.sum(2, keepdim=True)
    u, v = (torch.where(keep, x, 0.0) for x in (u, v))
    u, v = (torch.where(keep, x - x.sum(2, keepdim=True) / count, 0.0) for x in (u, v))
    return torch.nn.functional.cosine_similarity(u, v, dim=2)


def _class_mean(per_class: Tensor, teacher: Tensor, confident: Tensor, classes: Classes) -> Tensor:
    """Mean over all channels, or over those that win at some confident pixel (A16)."""
    if classes is Classes.all:
        return per_class.mean(1)
    winner = torch.nn.functional.one_hot(teacher.argmax(1), teacher.shape[1])  # (B, N, C)
    present = (winner.bool() & confident[:, :, None]).any(1)
    return torch.where(present, per_class, 0.0).sum(1) / present.sum(1).clamp(min=1)
