"""UniMatch: two strong views and feature dropout (Yang et al. 2023)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.loading.batches import LabelledBatch, UnlabelledBatch, ViewPlan
from trainer.config.schema import PixelDistance
from trainer.methods import consistency
from trainer.methods.interface import (
    Method,
    MethodContext,
    NetworkSpec,
    Position,
    StepInput,
    StepResult,
    TeacherStudentPair,
)
from trainer.network.deeplab import DeepLabV3Plus, normalise


@dataclass(frozen=True)
class UniMatch(Method):
    """L_o = (L_x + L_s1 / 4 + L_s2 / 4 + L_fp / 2) / 2, the weights of the UniMatch code."""

    context: MethodContext

    def networks(self) -> dict[str, NetworkSpec]:
        """The student, with an EMA teacher if one is wanted."""
        return consistency.student_and_teacher(self.context.config.method)

    def views(self) -> ViewPlan:
        """Two strong views with their boxes and partners, and channel bits."""
        return ViewPlan()

    def numbers(self, position: Position) -> dict[str, float]:
        """Of the EMA teacher, if there is one."""
        return consistency.teacher_numbers(self.context.config.method, position)

    def step(self, given: StepInput) -> StepResult:
        """As FixMatch, with two strong views in one forward and a feature-dropped decoder pass."""
        labelled, unlabelled = given.labelled, given.unlabelled
        assert unlabelled is not None
        context, student = self.context, given.student
        partner = consistency.partner_logits(student, unlabelled)
        views = consistency.strong_views(unlabelled, ("s1", "s2"))
        forward = _weak_forward(student, labelled, unlabelled)
        # Both strong views in one forward: their batch-norm statistics are shared.
        strong = student(normalise(torch.cat([view.pasted for view in views]))).float().chunk(2)
        labels, teacher = consistency.teacher_targets(
            context, given.networks, unlabelled, trained=forward.weak, partner=partner
        )
        loss_x = consistency.labelled_term(context, forward.labelled, labelled.masks)
        loss_1, loss_2 = (
            consistency.pixel_term(context, logits, labels.weak.pasted(labels.mix, view.box))
            for view, logits in zip(views, strong, strict=True)
        )
        loss_fp = consistency.pixel_term(context, forward.weak_dropped, labels.weak)
        loss = (loss_x + 0.25 * loss_1 + 0.25 * loss_2 + 0.5 * loss_fp) / 2.0
        seen = {view.name: (view, q) for view, q in zip(views, strong, strict=True)}
        pairs = consistency.strong_pairs(context, student, teacher, seen)
        terms = {
            "loss_labelled": loss_x.detach(),
            "loss_strong": ((loss_1 + loss_2) / 2.0).detach(),
            "loss_features": loss_fp.detach(),
            "mask_ratio": consistency.mask_ratio(context, labels.weak),
        }
        return StepResult(
            loss, (*pairs, *_feature_pairs(context, teacher, forward, labelled)), terms
        )

    def after(self, given: StepInput, result: StepResult) -> None:
        """Move the EMA teacher, if there is one."""
        consistency.move_teacher(self.context.config.method, given)


@dataclass(frozen=True)
class _Forward:
    """Logits of the joint forward over labelled and weak images, clean and feature-dropped."""

    labelled: Tensor
    labelled_dropped: Tensor
    weak: Tensor
    weak_dropped: Tensor


def _weak_forward(
    student: DeepLabV3Plus, labelled: LabelledBatch, unlabelled: UnlabelledBatch
) -> _Forward:
    """One pass over labelled and weak images, whose batch-norm statistics then span both."""
    images = normalise(torch.cat([labelled.images, unlabelled.weak]))
    keep = torch.cat([labelled.keep, unlabelled.keep])
    clean, dropped = student.forward_perturbed(images, keep)
    cut = [len(labelled.images)]
    return _Forward(
        *(
            part
            for x, y in zip(
                clean.float().tensor_split(cut), dropped.float().tensor_split(cut), strict=True
            )
            for part in (x, y)
        )
    )


def _feature_pairs(
    context: MethodContext,
    teacher: consistency.TeacherTargets,
    forward: _Forward,
    labelled: LabelledBatch,
) -> list[TeacherStudentPair]:
    """Pairs besides the strong views: the view `fp` (A4) and labelled images (A30), if set."""
    loss = context.config.loss
    pairs: list[TeacherStudentPair] = []
    if loss.distance is PixelDistance.none:
        return pairs
    if "fp" in context.config.pair_views:
        pairs.append(
            TeacherStudentPair("fp", teacher.weak.logits, forward.weak_dropped, teacher.weak.valid)
        )
    if loss.on_labeled:
        # 255 marks padding and pixels without label; both stay out of Omega.
        real = labelled.masks != 255
        pairs.append(
            TeacherStudentPair(
                "labelled", forward.labelled.detach(), forward.labelled_dropped, real
            )
        )
    return pairs
