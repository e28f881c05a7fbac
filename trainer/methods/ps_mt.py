"""PS-MT: perturbed and strict mean teachers (Liu et al. 2022, arXiv 2111.12903).

Legend: B images of this rank, C classes, S x S pixels of a crop.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from datasets.augment.boxes import uniform_noise
from datasets.augment.host import BoxRule
from datasets.loading.batches import ViewPlan
from trainer.config.method_settings import PsMtConfig, TeacherStart, Tvat
from trainer.config.schema import Buffers, Graph
from trainer.losses import Target
from trainer.methods import consistency
from trainer.methods.adversarial_noise import adversarial_noise
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

_TEACHERS = ("teacher_1", "teacher_2")


@dataclass(frozen=True)
class PerturbedStrictMeanTeachers(Method):
    """L_o = L_x + w L_u: the student, with noise on its features, learns what two teachers predict.

    In the first steps of the run each network learns by itself from labelled images. Then the
    teachers take turns: in odd epochs the first is moved towards the student, in even ones the
    second. L_u is the cross-entropy on pasted images where the mean of the teachers is sure, each
    pixel weighted by its confidence; its mean is over these pixels.
    """

    context: MethodContext

    def __post_init__(self) -> None:
        """Refuse teachers that are missing or never learn, and steps of two kinds in a graph."""
        config, settings = self.context.config, self._settings
        if settings.teachers == 1 and "teacher_2" in config.pair_views:
            raise ValueError(
                "loss.views names teacher_2, and method.ps_mt.teachers=1; use mean or two teachers."
            )
        if not settings.warmup_epochs and settings.teacher_start is TeacherStart.drawn:
            raise ValueError(
                "method.ps_mt.teacher_start=drawn needs a warm-up; with "
                "method.ps_mt.warmup_epochs=0 the teachers start as the student."
            )
        if settings.warmup_epochs and config.run.graph is Graph.step:
            raise ValueError(
                "run.graph=step replays one kind of step, and method=ps_mt has two; use "
                "run.graph=none, or method.ps_mt.warmup_epochs=0."
            )

    @property
    def _settings(self) -> PsMtConfig:
        return self.context.config.method.ps_mt

    @property
    def _teachers(self) -> tuple[str, ...]:
        return _TEACHERS[: self._settings.teachers]

    def networks(self) -> dict[str, NetworkSpec]:
        """The student and its teachers, which differ in their heads if there is a warm-up."""
        if self._settings.warmup_epochs:
            is_drawn = self._settings.teacher_start is TeacherStart.drawn
            specs = {
                name: NetworkSpec(head_key=name, backbone_key=name if is_drawn else "")
                for name in self._teachers
            }
        else:
            copied = NetworkSpec(is_trained=False, copy_of="student")
            specs = dict.fromkeys(self._teachers, copied)
        return {"student": NetworkSpec(), **specs}

    def deployed(self) -> tuple[str, ...]:
        """The teachers, or the first one."""
        return self._teachers if self._settings.scores_all else self._teachers[:1]

    def views(self) -> ViewPlan:
        """A strong view of every image, a partner with boxes, a key of the noise."""
        return ViewPlan(
            strong=1,
            boxes=1,
            box_rule=BoxRule.three if self._settings.three_boxes else BoxRule.half,
            labelled_strong=True,
            channel_bits=False,
            numbers=int(self._settings.tvat is not Tvat.off),
        )

    def numbers(self, position: Position) -> dict[str, float]:
        """Whether the step is in the warm-up; else the weight of L_u, and whose turn it is."""
        settings = self._settings
        done = position.step - settings.warmup_epochs * position.labelled_epoch_steps
        is_warmup = done < 0
        active = 0 if is_warmup else done // position.epoch_steps % settings.teachers
        ramp_steps = settings.ramp_epochs * position.epoch_steps
        ramp = (1.0 - math.cos(math.pi * done / ramp_steps)) / 2.0 if done < ramp_steps else 1.0
        share = 0.0 if is_warmup else 1.0 - self.context.config.method.ema_decay
        shares = {f"share_{i}": share * (i == active) for i in range(settings.teachers)}
        numbers = {"is_warmup": is_warmup, "weight": settings.weight * ramp, "active": active}
        return {name: float(value) for name, value in (numbers | shares).items()}

    def step(self, given: StepInput) -> StepResult:
        """The warm-up, or teachers on weak views, then the student on labelled and pasted ones."""
        if self._settings.warmup_epochs and given.numbers["is_warmup"]:
            return self._warmup(given)
        context, labelled, unlabelled = self.context, given.labelled, given.unlabelled
        assert unlabelled is not None
        (box,) = unlabelled.boxes
        # One forward, so that batch statistics and their running averages move once per step.
        weak = normalise(torch.cat([unlabelled.weak, unlabelled.mix_weak]))
        each = [consistency.train_logits(given.networks[name], weak) for name in self._teachers]
        valid = (~unlabelled.padded, ~unlabelled.mix_padded)
        targets = {
            name: Target.of(base, valid[0]).pasted(Target.of(mix, valid[1]), box)
            for name, (base, mix) in self._predictions(each, given)
        }
        target = targets["mean"]
        logits = self._student_logits(given, labelled.strong, labelled.numbers)
        loss_x = consistency.labelled_term(context, logits, labelled.masks)
        pasted = torch.where(box[:, None], unlabelled.mix_strong[0], unlabelled.strong[0])
        student = self._student_logits(given, pasted, unlabelled.numbers)
        losses = functional.cross_entropy(student, target.classes, reduction="none")
        sure = (target.confidence >= context.config.method.confidence) & target.valid
        num_sure = context.ranks.sum(sure.sum().double())
        loss_u = torch.where(sure, target.confidence * losses, 0.0).sum()
        loss_u = loss_u / num_sure.clamp(min=1.0).to(losses.dtype)
        num_valid = context.ranks.sum(target.valid.sum().double())
        pairs = tuple(
            TeacherStudentPair(name, target.logits, student, target.valid, box)
            for name, target in targets.items()
            if name in context.config.pair_views
        )
        terms = {
            "loss_labelled": loss_x.detach(),
            "loss_consistency": loss_u.detach(),
            "mask_ratio": sure.sum() / num_valid,
        }
        return StepResult(loss_x + given.numbers["weight"] * loss_u, pairs, terms)

    def _predictions(
        self, each: list[Tensor], given: StepInput
    ) -> list[tuple[str, tuple[Tensor, ...]]]:
        """Logits of the mean of the teachers, and of each teacher that a pair asks for.

        Each in two halves: of the images, and of their partners.
        """
        first, second = each[0], each[-1]
        if self._settings.assist:
            # lerp and no branch: at 0 and at 1 it returns one end exactly.
            active = torch.lerp(first, second, given.numbers["active"])
            resting = torch.lerp(second, first, given.numbers["active"])
            first, second = active, _assisting(active, resting)
        named = {"mean": (first + second) / 2.0, **dict(zip(self._teachers, each, strict=True))}
        asked = ("mean", *self.context.config.pair_views)
        return [(name, named[name].chunk(2)) for name in named if name in asked]

    def _warmup(self, given: StepInput) -> StepResult:
        """Every network learns from the labelled images: the student strong views, others weak."""
        labelled = given.labelled
        losses = [
            consistency.labelled_term(
                self.context, network(normalise(images)).float(), labelled.masks
            )
            for network, images in zip(
                given.networks.values(),
                (labelled.strong, *[labelled.images] * len(self._teachers)),
                strict=True,
            )
        ]
        terms = {"loss_labelled": losses[0].detach()}
        return StepResult(torch.stack(losses).sum(), (), terms)

    def _student_logits(self, given: StepInput, images: Tensor, numbers: Tensor) -> Tensor:
        """The student's logits (B, C, S, S), with adversarial noise on its features."""
        student, size = given.student, images.shape[-2:]
        features = student.encode(normalise(images))
        if self._settings.tvat is not Tvat.off:
            teachers = [given.networks[name] for name in self._teachers]
            start = uniform_noise(numbers[:, 0], features.shape) - 0.5
            batch = self.context.config.batch
            noise = adversarial_noise(
                self._settings, teachers, features, start, size=size, batch=batch
            )
            features = features + noise.to(features.dtype)
        logits = student.backbone.run(partial(student.classify, size=size), features)
        return logits.float()

    def after(self, given: StepInput, result: StepResult) -> None:
        """Move the teacher whose turn it is; the other has a share of zero, which moves nothing."""
        for i, name in enumerate(self._teachers):
            share = given.numbers[f"share_{i}"]
            move_average(given.networks[name], given.student, share=share, buffers=Buffers.ema)


def _assisting(active: Tensor, resting: Tensor) -> Tensor:
    """Of the resting teacher its seven best classes, of the active one the others, as the code."""
    others = resting.shape[1] - 7
    if others <= 0:
        return torch.where(resting == 0.0, active, resting)  # the code takes 0 for a gap
    limit = resting.kthvalue(others + 1, dim=1, keepdim=True).values
    return torch.where((resting >= limit) & (resting != 0.0), resting, active)
