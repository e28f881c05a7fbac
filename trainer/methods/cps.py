"""CPS: cross pseudo supervision of two networks (Chen et al. 2021, arXiv 2106.01226)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.augment.host import BoxRule
from datasets.loading.batches import ViewPlan
from trainer.losses import IGNORED, Target, pseudo_label_loss
from trainer.methods import consistency
from trainer.methods.interface import (
    Method,
    MethodContext,
    NetworkSpec,
    StepInput,
    StepResult,
    TeacherStudentPair,
)
from trainer.network.deeplab import normalise


@dataclass(frozen=True)
class CrossPseudoSupervision(Method):
    """L_o = L_x1 + L_x2 + w (L_12 + L_21): each network learns the classes that the other predicts.

    The networks have one shape and one backbone at step 0, and different heads. With CutMix they
    learn on pasted unlabelled images and predict before pasting; without it they learn on labelled
    and unlabelled images. Every pixel counts but padding, however sure a network is.
    """

    context: MethodContext

    def networks(self) -> dict[str, NetworkSpec]:
        """Two trained networks that differ in their heads."""
        return {"first": NetworkSpec(), "second": NetworkSpec(head_key="second")}

    def deployed(self) -> tuple[str, ...]:
        """The first network."""
        return ("first",)

    def views(self) -> ViewPlan:
        """Weak views; with CutMix a partner and three boxes."""
        cutmix = self.context.config.method.cps.cutmix
        return ViewPlan(
            strong=0,
            boxes=int(cutmix),
            box_rule=BoxRule.three,
            has_partner=cutmix,
            channel_bits=False,
        )

    def step(self, given: StepInput) -> StepResult:
        """Every batch passes both networks, each batch by itself, as in the code."""
        context, settings = self.context, self.context.config.method.cps
        made = _on_pasted(given) if settings.cutmix else _on_all(given)
        loss_x = torch.stack(
            [consistency.labelled_term(context, q, given.labelled.masks) for q in made.labelled]
        ).sum()
        num_pixels = context.ranks.sum(made.targets[0].valid.sum().double())
        loss_cross = torch.stack(
            [
                pseudo_label_loss(student, target, confidence=0.0, num_pixels=num_pixels)
                for student, target in zip(made.students, made.targets[::-1], strict=True)
            ]
        ).sum()
        weight = settings.weight if settings.cutmix else settings.weight_without_cutmix
        terms = {"loss_labelled": loss_x.detach(), "loss_cross": loss_cross.detach()}
        return StepResult(loss_x + weight * loss_cross, made.pairs(), terms)


@dataclass(frozen=True)
class _Predictions:
    """What both networks predict, in their order.

    Attributes:
        labelled: logits (B, C, S, S) of the labelled images.
        students: logits of the images on which they learn from each other; gradients flow here.
        targets: the predictions for these images from which the other one learns.
        first: of these images, the first unlabelled one.
        box: where they are pasted, bool (B, S, S); None without CutMix.
    """

    labelled: list[Tensor]
    students: list[Tensor]
    targets: list[Target]
    first: int = 0
    box: Tensor | None = None

    def pairs(self) -> tuple[TeacherStudentPair, ...]:
        """The first network teaches the second one and the other way round, unlabelled images."""
        rows = slice(self.first, None)
        return tuple(
            TeacherStudentPair(
                view,
                self.targets[teacher].logits[rows],
                self.students[1 - teacher][rows],
                self.targets[teacher].valid[rows],
                self.box,
            )
            for teacher, view in enumerate(("1to2", "2to1"))
        )


def _on_pasted(given: StepInput) -> _Predictions:
    """With CutMix: targets of the images before pasting, in training mode without gradient."""
    unlabelled, networks = given.unlabelled, list(given.networks.values())
    assert unlabelled is not None
    (box,) = unlabelled.boxes
    targets = []
    for network in networks:
        base = consistency.train_logits(network, normalise(unlabelled.weak))
        mix = consistency.train_logits(network, normalise(unlabelled.mix_weak))
        target = Target.of(base, ~unlabelled.padded)
        targets.append(target.pasted(Target.of(mix, ~unlabelled.mix_padded), box))
    pasted = normalise(torch.where(box[:, None], unlabelled.mix_weak, unlabelled.weak))
    images = normalise(given.labelled.images)
    labelled = [network(images).float() for network in networks]
    return _Predictions(labelled, [net(pasted).float() for net in networks], targets, box=box)


def _on_all(given: StepInput) -> _Predictions:
    """Without CutMix: labelled and unlabelled images, their own predictions being the targets."""
    unlabelled, networks = given.unlabelled, list(given.networks.values())
    assert unlabelled is not None
    images, weak = normalise(given.labelled.images), normalise(unlabelled.weak)
    labelled = [network(images).float() for network in networks]
    students = [
        torch.cat([of_labelled, network(weak).float()])
        for of_labelled, network in zip(labelled, networks, strict=True)
    ]
    valid = torch.cat([given.labelled.masks != IGNORED, ~unlabelled.padded])
    targets = [Target.of(logits, valid) for logits in students]
    return _Predictions(labelled, students, targets, first=len(images))
