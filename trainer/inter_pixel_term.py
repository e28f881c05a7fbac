"""L_IPix of Eq. 6: the inter-pixel loss over the pairs a method hands out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.choices import CutMixPairs, Distance, DivideBy, Resolution, Scope, ViewReduce
from trainer.config import LossConfig
from trainer.inter_pixel import inter_pixel_loss
from trainer.inter_pixel_variants import image_losses
from trainer.methods.step import Pair
from trainer.ranks import Ranks

# Fields that say where the term is applied; the reading of Eq. 2 itself is all the others.
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
_FEATURE_STRIDE = 4  # pixels of the crop per pixel of the decoder


@dataclass(frozen=True)
class InterPixelTerm:
    """The term as a function of pairs; alpha and ramp are the loop's.

    Raises:
        ValueError: `loss.scope=batch` with several ranks.
    """

    loss: LossConfig
    batch: int  # unlabelled images per step over all ranks
    ranks: Ranks

    def __post_init__(self) -> None:
        if self.loss.scope is Scope.batch and self.ranks.world_size > 1:
            raise ValueError(
                "loss.scope=batch spans all images of a step with one softmax, which needs one "
                f"rank; this run has {self.ranks.world_size}. Use loss.scope=image."
            )

    def __call__(self, pairs: Sequence[Pair]) -> Tensor:
        """This rank's share of L_IPix; the shares add up to it."""
        views = [self._view(pair) for pair in pairs if pair.view != "labelled"]
        labelled = [self._view(pair) for pair in pairs if pair.view == "labelled"]
        total = torch.stack(views).sum()
        if self.loss.view_reduce is ViewReduce.mean:
            total = total / len(views)
        return total + sum(labelled)

    def _view(self, pair: Pair) -> Tensor:
        """One pair; two_regions takes the mean of inside and outside the box."""
        valid = pair.valid if self.loss.omega_ignore_padding else torch.ones_like(pair.valid)
        student, teacher, box = pair.student, pair.teacher, pair.box
        if self.loss.resolution is Resolution.feature:
            step = slice(None, None, _FEATURE_STRIDE)
            student, teacher = student[..., step, step], teacher[..., step, step]
            valid = valid[..., step, step]
            box = None if box is None else box[..., step, step]
        if box is None or self.loss.cutmix is CutMixPairs.paste:
            return self._share(student, teacher, valid)
        outside = self._share(student, teacher, valid & ~box)
        if self.loss.cutmix is CutMixPairs.outside_only:
            return outside
        return 0.5 * (outside + self._share(student, teacher, valid & box))

    def _share(self, student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
        """Sum over this rank's images, divided by the images of all ranks."""
        if self._is_plain:
            mean = inter_pixel_loss(
                student,
                teacher,
                valid=valid,
                distance="kl" if self.loss.distance is Distance.kl else "cr",
                threshold=self.loss.threshold,
                temperature=self.loss.temperature,
            )
            return mean * (len(student) / self.batch)
        q, p, ok = student.flatten(2), teacher.flatten(2), valid.flatten(1)
        if self.loss.scope is Scope.batch:
            q, p = (x.transpose(0, 1).flatten(1)[None] for x in (q, p))
            ok = ok.flatten()[None]
        losses, usable = image_losses(q, p, ok, self.loss)
        if self.loss.scope is Scope.batch:
            return losses.sum()
        if self.loss.divide_by is DivideBy.valid_images:
            return losses.sum() / self.ranks.sum(usable.sum()).clamp(min=1)
        return losses.sum() / self.batch

    @property
    def _is_plain(self) -> bool:
        """Whether the reading of Eq. 2 is the default one."""
        placed = {name: getattr(self.loss, name) for name in _PLACEMENT}
        return self.loss == replace(LossConfig(), **placed)
