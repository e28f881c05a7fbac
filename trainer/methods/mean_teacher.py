"""Mean Teacher (Tarvainen & Valpola 2017) as the code of CPS (Chen et al. 2021) has it."""

from dataclasses import dataclass

import torch

from trainer.losses import IGNORED, squared_differences
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
class MeanTeacher(Method):
    """L_o = L_x + w L_c: student and teacher agree on all images, labelled and not.

    L_c is the squared difference of their probabilities, its mean over pixels and classes; padding
    and pixels without label stay out. Both see the same weak view in training mode, so the teacher
    makes its own batch statistics and only its weights are averaged.
    """

    context: MethodContext

    def networks(self) -> dict[str, NetworkSpec]:
        """The student and its average."""
        return consistency.averaged_teacher()

    def deployed(self) -> tuple[str, ...]:
        """The student, as in the code, or the teacher."""
        return (self.context.config.method.mean_teacher.scored.value,)

    def numbers(self, position: Position) -> dict[str, float]:
        """The share of the student in the teacher is the same at every step."""
        return {"student_share": 1.0 - self.context.config.method.ema_decay}

    def step(self, given: StepInput) -> StepResult:
        """Four forwards: labelled and unlabelled images through student and teacher."""
        context, labelled, unlabelled = self.context, given.labelled, given.unlabelled
        assert unlabelled is not None
        images = (normalise(labelled.images), normalise(unlabelled.weak))
        valid = (labelled.masks != IGNORED, ~unlabelled.padded)
        student = [given.student(x).float() for x in images]
        teacher = [consistency.train_logits(given.networks["teacher"], x) for x in images]
        loss_x = consistency.labelled_term(context, student[0], labelled.masks)
        counted = torch.cat(valid)
        differences = squared_differences(torch.cat(student), torch.cat(teacher))
        num_values = context.ranks.sum(counted.sum().double()) * student[0].shape[1]
        loss_c = torch.where(counted, differences, 0.0).sum() / num_values.to(differences.dtype)
        pair = TeacherStudentPair("weak", teacher[1], student[1], valid[1])
        terms = {"loss_labelled": loss_x.detach(), "loss_consistency": loss_c.detach()}
        return StepResult(
            loss_x + context.config.method.mean_teacher.weight * loss_c, (pair,), terms
        )

    def after(self, given: StepInput, result: StepResult) -> None:
        """Move the teacher's weights."""
        share = given.numbers["student_share"]
        move_average(given.networks["teacher"], given.student, share=share, buffers=None)
