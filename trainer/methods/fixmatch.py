"""FixMatch (Sohn et al. 2020) in the segmentation form of the UniMatch code."""

from dataclasses import dataclass

import torch

from datasets.loading.batches import ViewPlan
from trainer.methods import consistency
from trainer.methods.interface import (
    Method,
    MethodContext,
    NetworkSpec,
    Position,
    StepInput,
    StepResult,
)
from trainer.network.deeplab import normalise


@dataclass(frozen=True)
class FixMatch(Method):
    """L_o = (L_x + L_s) / 2 with one strong view."""

    context: MethodContext

    def networks(self) -> dict[str, NetworkSpec]:
        """The student, with an EMA teacher if one is wanted."""
        return consistency.student_and_teacher(self.context.config.method)

    def views(self) -> ViewPlan:
        """One strong view with its box and partner."""
        return ViewPlan(strong=1, boxes=1, channel_bits=False)

    def numbers(self, position: Position) -> dict[str, float]:
        """Of the EMA teacher, if there is one."""
        return consistency.teacher_numbers(self.context.config.method, position)

    def step(self, given: StepInput) -> StepResult:
        """One forward of labelled and weak images together, then one of the strong view."""
        labelled, unlabelled = given.labelled, given.unlabelled
        assert unlabelled is not None
        context, student = self.context, given.student
        partner = consistency.partner_logits(student, unlabelled)
        (view,) = consistency.strong_views(unlabelled, ("s1",))
        # Together, so that the batch-norm statistics span labelled and unlabelled images.
        num_labelled = len(labelled.images)
        both = normalise(torch.cat([labelled.images, unlabelled.weak]))
        logits, weak = student(both).float().tensor_split([num_labelled])
        strong = student(normalise(view.pasted)).float()
        labels, teacher = consistency.teacher_targets(
            context, given.networks, unlabelled, trained=weak, partner=partner
        )
        loss_x = consistency.labelled_term(context, logits, labelled.masks)
        target = labels.weak.pasted(labels.mix, view.box)
        loss_s = consistency.pixel_term(context, strong, target)
        pairs = consistency.strong_pairs(context, student, teacher, {"s1": (view, strong)})
        terms = {
            "loss_labelled": loss_x.detach(),
            "loss_strong": loss_s.detach(),
            "mask_ratio": consistency.mask_ratio(context, labels.weak),
        }
        return StepResult((loss_x + loss_s) / 2.0, tuple(pairs), terms)

    def after(self, given: StepInput, result: StepResult) -> None:
        """Move the EMA teacher, if there is one."""
        consistency.move_teacher(self.context.config.method, given)
