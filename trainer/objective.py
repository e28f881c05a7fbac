"""What a step minimises: L_o + alpha L_IPix of Eq. 6, with every reading of the inter-pixel term.

With default settings L_IPix is `trainer.inter_pixel.inter_pixel_loss`. Where the paper leaves
Eqs. 2 to 5 open, `image_losses` computes the other readings; A7, A16 and so on name rows of
docs/ambiguities.md. Legend: B images of this rank, C classes, N pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.config.schema import (
    Classes,
    CorrelateOn,
    CutMixPairs,
    Direction,
    DivideBy,
    LossConfig,
    NormOver,
    PixelDistance,
    Resolution,
    Scope,
    TrainConfig,
    ViewReduce,
)
from trainer.distributed import Ranks
from trainer.inter_pixel import Distance, inter_pixel_loss
from trainer.methods.interface import (
    Method,
    MethodContext,
    StepInput,
    StepResult,
    TeacherStudentPair,
    new_method,
)
from trainer.state import autocast


def image_losses(
    student: Tensor, teacher: Tensor, valid: Tensor, loss: LossConfig
) -> tuple[Tensor, Tensor]:
    """Eq. 2 for every image, in any of the readings that a configuration can ask for.

    Args:
        student: logits (B, C, N); gradients flow here.
        teacher: logits (B, C, N), a constant.
        valid: (B, N) bool, False where a pixel may not enter Omega.
        loss: names the reading.

    Returns:
        Losses (B,), and (B,) bool: False where an image has too few confident pixels and adds 0.
    """
    confident = (teacher.softmax(1).amax(1) > loss.threshold) & valid  # Omega, (B, N)
    num_pixels = confident.sum(1)
    usable = num_pixels >= loss.min_pixels
    # An image with too few pixels is computed over all of them and set to zero at the end: an empty
    # softmax would be NaN, and choosing images by a mask would make the host wait for the device.
    keep = (confident | ~usable[:, None])[:, None]
    over = torch.ones_like(keep) if loss.norm_over is NormOver.all else keep
    log_p = _log_distribution(teacher / loss.temperature, over)
    log_q = _log_distribution(student / loss.temperature, over)
    if loss.distance is PixelDistance.kl:
        per_class = _divergence(log_p, log_q, keep, loss.direction)
    elif loss.cr_on is CorrelateOn.logits:
        per_class = 1.0 - _correlation(teacher, student, keep)
    else:
        per_class = 1.0 - _correlation(log_p.exp(), log_q.exp(), keep)
    per_image = _class_mean(per_class, teacher, confident, loss.classes)
    if loss.log_norm:
        # At least 2, since log 1 = 0 divides; `usable` drops such images below (A9).
        per_image = per_image / num_pixels.clamp(min=2).to(per_image.dtype).log()
    if loss.t2_scale:
        per_image = per_image * loss.temperature**2
    return torch.where(usable, per_image, 0.0), usable


def _log_distribution(logits: Tensor, over: Tensor) -> Tensor:
    """Logarithm of Eq. 4 over the pixels where `over` is True, (B, C, N); -inf elsewhere."""
    return logits.masked_fill(~over, -torch.inf).log_softmax(2)


def _divergence(log_p: Tensor, log_q: Tensor, keep: Tensor, direction: Direction) -> Tensor:
    """KL or Jensen-Shannon divergence over the kept pixels, (B, C); A10 names the directions."""
    if direction is Direction.reverse:
        return _kl(log_q, log_p, keep)
    if direction is Direction.forward:
        return _kl(log_p, log_q, keep)
    # Zeros outside keep: logaddexp(-inf, -inf) has a NaN gradient even where it is masked later.
    left, right = (torch.where(keep, x, 0.0) for x in (log_p, log_q))
    middle = torch.logaddexp(left, right) - math.log(2.0)
    return 0.5 * (_kl(left, middle, keep) + _kl(right, middle, keep))


def _kl(log_p: Tensor, log_q: Tensor, keep: Tensor) -> Tensor:
    """KL(p || q) over the kept pixels, (B, C)."""
    # where() and not a product: outside keep the difference is -inf - -inf, and 0 * NaN is NaN.
    return torch.where(keep, log_p.exp() * torch.where(keep, log_p - log_q, 0.0), 0.0).sum(2)


def _correlation(u: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    """Pearson's correlation (Eq. 5) over the kept pixels, (B, C); 0 for a constant (A19)."""
    count = keep.sum(2, keepdim=True)
    u, v = (torch.where(keep, x, 0.0) for x in (u, v))
    u, v = (torch.where(keep, x - x.sum(2, keepdim=True) / count, 0.0) for x in (u, v))
    # The cosine of centred vectors is Pearson's correlation; its epsilon makes 0 / 0 a zero.
    return torch.nn.functional.cosine_similarity(u, v, dim=2)


def _class_mean(per_class: Tensor, teacher: Tensor, confident: Tensor, classes: Classes) -> Tensor:
    """Mean over all classes, or over those on top at some confident pixel (A16): (B, C) to (B,)."""
    if classes is Classes.all:
        return per_class.mean(1)
    winner = torch.nn.functional.one_hot(teacher.argmax(1), teacher.shape[1])  # (B, N, C)
    present = (winner.bool() & confident[:, :, None]).any(1)
    return torch.where(present, per_class, 0.0).sum(1) / present.sum(1).clamp(min=1)


# Fields that `InterPixelTerm` or the loop applies, or that inter_pixel_loss takes as arguments. If
# all other fields have their defaults, Eq. 2 is read as inter_pixel_loss reads it.
_PLACEMENT = (
    "name",
    "alpha",
    "threshold",
    "temperature",
    "distance",
    "warmup_epochs",
    "ramp_unit",
    "views",
    "view_reduce",
    "cutmix",
    "inside_half",
    "omega_ignore_padding",
    "resolution",
    "on_labeled",
)
_PLAIN: dict[PixelDistance, Distance] = {PixelDistance.kl: "kl", PixelDistance.cr: "cr"}
_FEATURE_STRIDE = 4  # pixels of the crop per pixel of the decoder


@dataclass(frozen=True)
class InterPixelTerm:
    """L_IPix as a function of teacher-student pairs, without alpha and its ramp.

    Attributes:
        loss: names the reading of Eqs. 2 to 5.
        batch: unlabelled images per step over all ranks.
        ranks: those that share the batch.

    Raises:
        ValueError: `loss.scope=batch` with several ranks.
    """

    loss: LossConfig
    batch: int
    ranks: Ranks

    def __post_init__(self) -> None:
        if self.loss.scope is Scope.batch and self.ranks.world_size > 1:
            raise ValueError(
                "loss.scope=batch spans all images of a step with one softmax, which needs one "
                f"rank; this run has {self.ranks.world_size}. Use loss.scope=image."
            )

    def __call__(self, pairs: Sequence[TeacherStudentPair]) -> Tensor:
        """This rank's share of L_IPix, a scalar; the shares of all ranks add up to it."""
        views = [self._view(pair) for pair in pairs if pair.view != "labelled"]
        labelled = [self._view(pair) for pair in pairs if pair.view == "labelled"]
        if not views:
            return torch.stack(labelled).sum()
        total = torch.stack(views).sum()
        if self.loss.view_reduce is ViewReduce.mean:
            total = total / len(views)
        return total + sum(labelled)

    def _view(self, pair: TeacherStudentPair) -> Tensor:
        """This rank's share for one pair, in the resolution and under the CutMix rule asked for.

        A3: `paste` compares the whole pasted image, `outside_only` leaves out the box,
        `two_regions` takes the mean of the losses inside and outside the box.
        """
        valid = pair.valid if self.loss.omega_ignore_padding else torch.ones_like(pair.valid)
        student, teacher, box = pair.student, pair.teacher, pair.box
        if self.loss.resolution is Resolution.feature:
            step = slice(None, None, _FEATURE_STRIDE)
            student, teacher = student[..., step, step], teacher[..., step, step]
            valid = valid[..., step, step]
            box = None if box is None else box[..., step, step]
        if box is None or self.loss.cutmix is CutMixPairs.paste:
            return self._share(student, teacher, valid, pair.num_images)
        outside = self._share(student, teacher, valid & ~box, pair.num_images)
        if self.loss.cutmix is CutMixPairs.outside_only:
            return outside
        return 0.5 * (outside + self._share(student, teacher, valid & box, pair.num_images))

    def _share(
        self, student: Tensor, teacher: Tensor, valid: Tensor, num_images: Tensor | None
    ) -> Tensor:
        """Sum over this rank's images, divided by the number of images of all ranks."""
        total = self.batch if num_images is None else num_images
        if self._is_plain:
            mean = inter_pixel_loss(
                student,
                teacher,
                valid=valid,
                distance=_PLAIN[self.loss.distance],
                threshold=self.loss.threshold,
                temperature=self.loss.temperature,
            )
            return mean * (len(student) / total)
        q, p, ok = student.flatten(2), teacher.flatten(2), valid.flatten(1)
        if self.loss.scope is Scope.batch:
            # All images side by side, as if they were one image of B * N pixels (A7).
            q, p = (x.transpose(0, 1).flatten(1)[None] for x in (q, p))
            ok = ok.flatten()[None]
        losses, usable = image_losses(q, p, ok, self.loss)
        if self.loss.scope is Scope.batch:
            return losses.sum()
        if self.loss.divide_by is DivideBy.valid_images:
            return losses.sum() / self.ranks.sum(usable.sum()).clamp(min=1)
        return losses.sum() / total

    @property
    def _is_plain(self) -> bool:
        """Whether Eq. 2 is read in the default way, which `inter_pixel_loss` computes faster."""
        placed = {name: getattr(self.loss, name) for name in _PLACEMENT}
        return self.loss == replace(LossConfig(), **placed)


@dataclass(frozen=True)
class Objective:
    """L_sum = L_o + alpha L_IPix (Eq. 6) of one run, as a function of a batch."""

    config: TrainConfig
    ranks: Ranks
    method: Method
    term: InterPixelTerm

    @classmethod
    def of(cls, config: TrainConfig, ranks: Ranks) -> "Objective":
        """The objective that a configuration names."""
        method = new_method(MethodContext(config, ranks))
        return cls(config, ranks, method, InterPixelTerm(config.loss, config.batch, ranks))

    def __call__(self, given: StepInput, *, weight: float | Tensor) -> StepResult:
        """This rank's share of the loss, and detached shares of its parts for the log.

        The pairs are gone from the result, so that their logits are free during the backward pass.

        Args:
            given: the step's networks and batches.
            weight: alpha of the inter-pixel term at this step, ramp included.
        """
        with autocast(self.config.optim.precision, self.ranks.device):
            result = self.method.step(given)
        loss, terms = result.loss, dict(result.terms)
        if self.config.loss.distance is not PixelDistance.none:
            # Outside autocast: bfloat16 cannot sum over the pixels of Omega.
            added = self.term(result.pairs) if result.pairs else torch.zeros_like(loss)
            terms["loss_inter_pixel"] = added.detach()
            loss = loss + weight * added
        terms["loss"] = loss.detach()
        return StepResult(loss, (), terms, result.kept)
