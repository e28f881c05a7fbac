"""A mean teacher with CutMix and strong views, in the form of recent trainers (AugSeg, 2023).

The host that the paper's text describes: the teacher is an exponential moving average (Sec. III-B).
"""

from dataclasses import dataclass

import torch

from datasets.loading.batches import ViewPlan
from trainer.losses import Target
from trainer.methods import consistency
from trainer.methods.interface import (
    Method,
    MethodContext,
    NetworkSpec,
    Position,
    StepInput,
    StepResult,
)
from trainer.methods.moving_average import growing_decay, move_average
from trainer.network.deeplab import normalise


@dataclass(frozen=True)
class MeanTeacherCutMix(Method):
    """L_o = (L_x + L_s) / 2 with the pseudo-labels of an averaged teacher in evaluation mode."""

    context: MethodContext

    def networks(self) -> dict[str, NetworkSpec]:
        """The student and its average."""
        return consistency.averaged_teacher()

    def deployed(self) -> tuple[str, ...]:
        """The teacher."""
        return ("teacher",)

    def views(self) -> ViewPlan:
        """One strong view with its box and partner."""
        return ViewPlan(strong=1, boxes=1, channel_bits=False)

    def numbers(self, position: Position) -> dict[str, float]:
        """The share of the student in the teacher: all at step 0, then less and less."""
        decay = growing_decay(position.step, self.context.config.method.ema_decay)
        return {"student_share": 1.0 - decay}

    def step(self, given: StepInput) -> StepResult:
        """The teacher on weak views, the student on labelled and strong ones together."""
        context, labelled, unlabelled = self.context, given.labelled, given.unlabelled
        assert unlabelled is not None
        teacher = given.networks["teacher"]
        targets = consistency.TeacherTargets(
            Target.of(
                consistency.eval_logits(teacher, normalise(unlabelled.weak)), ~unlabelled.padded
            ),
            Target.of(
                consistency.eval_logits(teacher, normalise(unlabelled.mix_weak)),
                ~unlabelled.mix_padded,
            ),
        )
        (view,) = consistency.strong_views(unlabelled, ("s1",))
        both = normalise(torch.cat([labelled.images, view.pasted]))
        logits, strong = given.student(both).float().tensor_split([len(labelled.images)])
        loss_x = consistency.labelled_term(context, logits, labelled.masks)
        target = targets.weak.pasted(targets.mix, view.box)
        loss_s = consistency.pixel_term(context, strong, target)
        seen = {view.name: (view, strong)}
        terms = {
            "loss_labelled": loss_x.detach(),
            "loss_strong": loss_s.detach(),
            "mask_ratio": consistency.mask_ratio(context, targets.weak),
        }
        pairs = consistency.strong_pairs(context, given.student, targets, seen)
        return StepResult((loss_x + loss_s) / 2.0, tuple(pairs), terms)

    def after(self, given: StepInput, result: StepResult) -> None:
        """Move the teacher; its batch-norm statistics follow as `method.ema_buffers` says."""
        share, buffers = given.numbers["student_share"], self.context.config.method.ema_buffers
        move_average(given.networks["teacher"], given.student, share=share, buffers=buffers)
