"""AEL: adaptive equalization learning (Hu et al. 2021, arXiv 2110.05474).

Legend: B images of this rank, C classes, N unlabelled images, S x S pixels of a crop.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from datasets.augment.boxes import uniform_noise
from datasets.augment.components import component_boxes
from datasets.augment.host import BoxRule
from datasets.loading.batches import UnlabelledBatch, ViewPlan
from datasets.loading.hint import Hint
from datasets.location import num_classes
from trainer.config.method_settings import AbsentClass, AelConfig
from trainer.losses import IGNORED, Target
from trainer.methods import consistency
from trainer.methods.contrast.feature_bank import gather_images
from trainer.methods.interface import (
    Method,
    MethodContext,
    NetworkSpec,
    Position,
    StepInput,
    StepResult,
    TeacherStudentPair,
)
from trainer.methods.moving_average import growing_decay, move_average
from trainer.network.deeplab import DeepLabV3Plus, normalise
from trainer.network.heads import Head

_NEVER_PASTED = (0, 1, 2, 8, 10)  # in the code: road and other large classes of Cityscapes


@dataclass(frozen=True)
class AdaptiveEqualizationLearning(Method):
    """L_o = L_x + w (L_u + L_l): classes that the student is less sure of are shown more.

    The memory holds how sure the student is of each class (`confidence`), and which unlabelled
    images show it by the teacher's prediction (`presence`). By them CutMix partners and pasted
    classes are drawn, an epoch at a time; the box of CutMix holds a component of the class that the
    partner was drawn for. The consistency losses weight a pixel by its confidence to a power, and
    drop pixels of classes of which the student is surer than of others.
    """

    context: MethodContext

    def __post_init__(self) -> None:
        """Refuse to paste by the code's rule where it leaves no class."""
        classes = num_classes(self.context.config.data)
        if self._settings.released_paste and set(range(classes)) <= set(_NEVER_PASTED):
            raise ValueError(
                f"method.ael.released_paste=true never pastes the classes {_NEVER_PASTED}, and "
                f"there are {classes}; use method.ael.released_paste=false."
            )

    @property
    def _settings(self) -> AelConfig:
        return self.context.config.method.ael

    def networks(self) -> dict[str, NetworkSpec]:
        """The student and its average, with auxiliary logits if they are learnt."""
        return consistency.averaged_teacher(
            (Head.auxiliary,) if self._settings.auxiliary_weight else ()
        )

    def deployed(self) -> tuple[str, ...]:
        """The teacher."""
        return ("teacher",)

    def views(self) -> ViewPlan:
        """Weak views, chosen partners, pasted classes; a box where the partner has no component."""
        return ViewPlan(
            strong=0,
            boxes=1,
            box_rule=BoxRule.half,
            chosen_partner=True,
            pasted_classes=self._settings.pasted_classes,
            channel_bits=False,
            numbers=2,  # which pixels are dropped, which component is pasted
        )

    def memory(self) -> dict[str, Tensor]:
        """No class is known, and no image shows any."""
        classes = num_classes(self.context.config.data)
        presence = torch.zeros(classes, self.context.num_unlabelled, dtype=torch.bool)
        return {"confidence": torch.zeros(classes), "presence": presence}

    def hint(self, memory: Mapping[str, Tensor]) -> Hint:
        """Classes by the softmax of what is missing to full confidence."""
        gaps = 1.0 - memory["confidence"].double()
        pasted = gaps
        if self._settings.released_paste:
            classes = torch.arange(len(gaps), device=gaps.device)
            never = (classes[:, None] == classes.new_tensor(_NEVER_PASTED)).any(1)
            pasted = gaps.sqrt().masked_fill(never, -torch.inf)
        return Hint(gaps.softmax(0), pasted.softmax(0), memory["presence"].clone())

    def numbers(self, position: Position) -> dict[str, float]:
        """The share of the student in the teacher: all at step 0, then less and less."""
        decay = growing_decay(position.step, self.context.config.method.ema_decay)
        return {"student_share": 1.0 - decay}

    def step(self, given: StepInput) -> StepResult:
        """Teacher and student on labelled images, then on unlabelled ones, as in the code."""
        context, labelled, unlabelled = self.context, given.labelled, given.unlabelled
        assert unlabelled is not None
        teacher, images = given.networks["teacher"], normalise(labelled.images)
        has_label = labelled.masks != IGNORED
        target_x = Target.of(consistency.train_logits(teacher, images), has_label)
        weak = normalise(torch.cat([unlabelled.weak, unlabelled.mix_weak]))
        base, mix = consistency.train_logits(teacher, weak).chunk(2)
        own = Target.of(base, ~unlabelled.padded)
        partner = Target.of(mix, ~unlabelled.mix_padded)
        box = self._box(partner, unlabelled)
        target = own.pasted(partner, box)
        logits, loss_x = self._labelled(given.student, images, labelled.masks)
        pasted = torch.where(box[:, None], unlabelled.mix_weak, unlabelled.weak)
        student = given.student(normalise(pasted)).float()

        confidence = self._confidence(given.memory["confidence"], logits, labelled.masks)
        loss = self._consistency(student, target, unlabelled.numbers[:, 0], confidence)
        terms = {"loss_labelled": loss_x.detach(), "loss_consistency": loss.detach()}
        if self._settings.labelled_consistency:
            loss_l = self._consistency(logits, target_x, labelled.numbers[:, 0], confidence)
            terms["loss_consistency_labelled"] = loss_l.detach()
            loss = loss + loss_l
        pairs = {
            "mixed": TeacherStudentPair("mixed", target.logits, student, target.valid, box),
            "labelled": TeacherStudentPair("labelled", target_x.logits, logits, has_label),
        }
        return StepResult(
            loss_x + self._settings.weight * loss,
            tuple(pairs[name] for name in pairs if name in context.config.pair_views),
            terms,
            {"confidence": confidence, "areas": _areas(own, partner, unlabelled)},
        )

    def _labelled(
        self, student: DeepLabV3Plus, images: Tensor, masks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, C, S, S) of labelled images, and L_x with that of the auxiliary logits."""
        weight = self._settings.auxiliary_weight
        if not weight:
            logits = student(images).float()
            return logits, consistency.labelled_term(self.context, logits, masks)
        outputs = student.outputs(images)
        assert outputs.auxiliary is not None
        logits, auxiliary = outputs.logits.float(), outputs.auxiliary.float()
        loss = consistency.labelled_term(self.context, logits, masks)
        return logits, loss + weight * consistency.labelled_term(self.context, auxiliary, masks)

    def _box(self, partner: Target, unlabelled: UnlabelledBatch) -> Tensor:
        """Where partners are pasted, bool (B, S, S): around a component, or the drawn box."""
        assert unlabelled.chosen is not None
        (drawn,) = unlabelled.boxes
        wanted = partner.classes == unlabelled.chosen.classes[:, None, None]
        least = self._settings.component_area * drawn[0].numel()
        box, exists = component_boxes(
            wanted & partner.valid, larger_than=least, keys=unlabelled.numbers[:, 1]
        )
        return torch.where(exists[:, None, None], box, drawn)

    def _confidence(self, before: Tensor, logits: Tensor, masks: Tensor) -> Tensor:
        """How sure the student is of each class now, (C,): a running mean over labelled pixels.

        With `method.ael.per_image` over images that show the class, first over pixels of each.
        """
        classes = torch.arange(len(before), device=before.device)
        truth = masks[:, None] == classes[:, None, None]  # (B, C, S, S)
        shares = torch.where(truth, logits.detach().softmax(1), 0.0).sum((2, 3)).double()
        counts = truth.sum((2, 3)).double()
        if self._settings.per_image:
            shares, counts = shares / counts.clamp(min=1.0), (counts > 0).double()
        sums = self.context.ranks.sum(torch.stack([shares.sum(0), counts.sum(0)]))
        mean = (sums[0] / sums[1].clamp(min=1.0)).to(before.dtype)
        after = before.lerp(mean, 1.0 - self._settings.decay)
        if self._settings.absent_class is AbsentClass.skip:
            return torch.where(sums[1] > 0, after, before)
        return after

    def _consistency(
        self, student: Tensor, target: Target, keys: Tensor, confidence: Tensor
    ) -> Tensor:
        """This rank's share of L_u or L_l: the weighted mean of the cross-entropy.

        Args:
            student: logits (B, C, S, S).
            target: the teacher's prediction.
            keys: in [0, 1), of the numbers that drop pixels, (B,).
            confidence: of each class, (C,).
        """
        settings, config, ranks = self._settings, self.context.config, self.context.ranks
        gaps = 1.0 - confidence
        rates = (gaps / gaps.max().clamp(min=1e-12)) ** settings.sampling_power
        classes = student.detach().argmax(1)
        drawn = uniform_noise(keys, classes[:, None].shape)[:, 0]
        stays = drawn < rates.index_select(0, classes.flatten()).view(classes.shape)
        weights = target.confidence**settings.confidence_power
        weights = torch.where(stays & target.valid, weights, 0.0)
        losses = functional.cross_entropy(student, target.classes, reduction="none")
        # An unsure pixel stays in the denominator, as in the code.
        counted = weights * torch.where(target.confidence >= config.method.confidence, losses, 0.0)
        sums, totals = counted.sum((1, 2)), weights.sum((1, 2))
        if settings.per_image:
            return (sums / (totals + 1e-12)).sum() / config.batch
        total = ranks.sum(totals.sum().double()) + 1e-12
        return sums.sum() / total.to(sums.dtype)

    def after(self, given: StepInput, result: StepResult) -> None:
        """Move the teacher, whose batch statistics are its own, and the memory."""
        move_average(
            given.networks["teacher"],
            given.student,
            share=given.numbers["student_share"],
            buffers=None,
        )
        memory, config, ranks = given.memory, self.context.config, self.context.ranks
        memory["confidence"].copy_(result.kept["confidence"])
        rows = gather_images(result.kept["areas"], config.batch, ranks).flatten(0, 1)
        least = self._settings.presence_area * config.data.crop**2
        presence = memory["presence"]
        presence.copy_(_renewed(presence, rows[:, 0], rows[:, 1:] >= least))


def _areas(own: Target, partner: Target, unlabelled: UnlabelledBatch) -> Tensor:
    """Of every image and its partner: its place in the list, from 1, and pixels of each class.

    Returns:
        int64 (B, 2, 1 + C).
    """
    assert unlabelled.chosen is not None
    places = (unlabelled.chosen.places, unlabelled.chosen.mix_places)
    rows = []
    for place, target in zip(places, (own, partner), strict=True):
        classes = torch.arange(target.logits.shape[1], device=place.device)[:, None, None]
        shown = (target.classes[:, None] == classes) & target.valid[:, None]
        rows.append(torch.cat([place[:, None] + 1, shown.sum((2, 3))], 1))
    return torch.stack(rows, 1)


def _renewed(presence: Tensor, places: Tensor, shown: Tensor) -> Tensor:
    """Which images show a class, (C, N), after a step; of an image seen twice the later one counts.

    Args:
        presence: before, bool (C, N).
        places: of P images in the list, from 1; 0 is none, int64 (P,).
        shown: which classes they show, bool (P, C).
    """
    order = torch.arange(1, len(places) + 1, device=places.device)
    images = torch.arange(1, presence.shape[1] + 1, device=places.device)
    last = torch.where(places[:, None] == images, order[:, None], 0).amax(0)  # (N,)
    return torch.where(last > 0, shown.index_select(0, (last - 1).clamp(min=0)).mT, presence)
