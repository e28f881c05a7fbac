"""CutMix-Seg: a mean teacher on pasted images (French et al. 2020, arXiv 1906.01916)."""

from dataclasses import dataclass

import torch

from datasets.augment.host import BoxRule
from datasets.loading.batches import ViewPlan
from trainer.config.schema import Buffers
from trainer.losses import Target, squared_differences
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
from trainer.methods.moving_average import move_average
from trainer.network.deeplab import normalise


@dataclass(frozen=True)
class CutMixSeg(Method):
    """L_o = L_x + w g L_c on weak views, of which half is pasted into the other.

    With `method.cutmix_seg.colour` the student sees strong views of the same images.

    L_c is the squared difference of student's and teacher's probabilities, summed over classes; its
    mean is over all pixels, padding adding zero. g is the share of pixels of which the teacher is
    sure, one number for the whole batch.
    """

    context: MethodContext

    def networks(self) -> dict[str, NetworkSpec]:
        """The student and its average."""
        return consistency.averaged_teacher()

    def deployed(self) -> tuple[str, ...]:
        """The teacher."""
        return ("teacher",)

    def views(self) -> ViewPlan:
        """Weak views, a partner, and one box of half of the crop; strong views if asked for."""
        colour = self.context.config.method.cutmix_seg.colour
        return ViewPlan(strong=int(colour), boxes=1, box_rule=BoxRule.half, channel_bits=False)

    def numbers(self, position: Position) -> dict[str, float]:
        """The share of the student in the teacher is the same at every step."""
        return {"student_share": 1.0 - self.context.config.method.ema_decay}

    def step(self, given: StepInput) -> StepResult:
        """Student on labelled and on pasted images, teacher on both halves before pasting."""
        context, labelled, unlabelled = self.context, given.labelled, given.unlabelled
        assert unlabelled is not None
        method, (box,) = context.config.method, unlabelled.boxes
        loss_x = consistency.labelled_term(
            context, given.student(normalise(labelled.images)).float(), labelled.masks
        )
        base, mix = (
            Target.of(consistency.train_logits(given.networks["teacher"], normalise(x)), ~padded)
            for x, padded in (
                (unlabelled.weak, unlabelled.padded),
                (unlabelled.mix_weak, unlabelled.mix_padded),
            )
        )
        target = base.pasted(mix, box)
        own, other = unlabelled.weak, unlabelled.mix_weak
        if method.cutmix_seg.colour:
            own, other = unlabelled.strong[0], unlabelled.mix_strong[0]
        pasted = torch.where(box[:, None], other, own)
        student = given.student(normalise(pasted)).float()
        sure = target.confidence >= method.confidence
        num_pixels = context.config.batch * box[0].numel()
        share_sure = context.ranks.sum(sure.sum().double() / num_pixels)
        counted = target.valid & sure if method.cutmix_seg.per_pixel else target.valid
        differences = squared_differences(student, target.logits)
        loss_c = torch.where(counted, differences, 0.0).sum() / num_pixels
        if not method.cutmix_seg.per_pixel:
            loss_c = loss_c * share_sure.to(loss_c.dtype)
        pair = TeacherStudentPair("mixed", target.logits, student, target.valid, box)
        terms = {
            "loss_labelled": loss_x.detach(),
            "loss_consistency": loss_c.detach(),
            "mask_ratio": sure.sum() / num_pixels,
        }
        return StepResult(loss_x + method.cutmix_seg.weight * loss_c, (pair,), terms)

    def after(self, given: StepInput, result: StepResult) -> None:
        """Move the teacher's weights and batch-norm statistics."""
        share = given.numbers["student_share"]
        move_average(given.networks["teacher"], given.student, share=share, buffers=Buffers.ema)
