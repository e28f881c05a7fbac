"""U2PL: using unreliable pseudo-labels (Wang et al. 2022, arXiv 2203.03884).

Legend: B images of this rank, C classes, S x S pixels of a crop.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from datasets.augment.host import BoxRule
from datasets.loading.batches import UnlabelledBatch, ViewPlan
from datasets.location import num_classes
from trainer.config.method_settings import Compat, U2plConfig
from trainer.config.schema import Graph
from trainer.losses import IGNORED, Target
from trainer.methods import consistency
from trainer.methods.contrast.feature_bank import NewRows, gather_images
from trainer.methods.contrast.u2pl_contrast import Contrast, Pixels
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
from trainer.network.heads import Head, Outputs


@dataclass(frozen=True)
class U2PL(Method):
    """L_o = L_x + L_u + w L_c: pixels of low entropy have pseudo-labels, others are negatives.

    In the first epochs the student learns from labelled images alone. Then an averaged teacher, in
    evaluation mode, gives pseudo-labels; in training mode, on the pasted images, it says by its
    entropy which of them count (L_u), and gives the embeddings of the contrastive loss (L_c).
    """

    context: MethodContext

    def __post_init__(self) -> None:
        """Refuse steps of two kinds in one graph."""
        if self._settings.sup_only_epochs and self.context.config.run.graph is Graph.step:
            raise ValueError(
                "run.graph=step replays one kind of step, and method=u2pl has two; use "
                "run.graph=none, or method.u2pl.sup_only_epochs=0."
            )

    @property
    def _settings(self) -> U2plConfig:
        return self.context.config.method.u2pl

    @cached_property  # the classes of a user's folder are read from a file
    def _contrast(self) -> Contrast:
        config = self.context.config
        classes = num_classes(config.data)
        return Contrast(self._settings, classes, config.batch, self.context.ranks)

    @property
    def _contrasts(self) -> bool:
        return self._settings.contrast_weight > 0.0

    @property
    def _has_auxiliary(self) -> bool:
        return self._settings.auxiliary_weight > 0.0

    def networks(self) -> dict[str, NetworkSpec]:
        """The student and its average, with the heads that the losses need."""
        wanted = {Head.embedding: self._contrasts, Head.auxiliary: self._has_auxiliary}
        heads = tuple(head for head, is_wanted in wanted.items() if is_wanted)
        return {
            "student": NetworkSpec(heads=heads),
            "teacher": NetworkSpec(is_trained=False, copy_of="student", heads=heads),
        }

    def deployed(self) -> tuple[str, ...]:
        """The teacher."""
        return ("teacher",)

    def views(self) -> ViewPlan:
        """A box of half of the crop and a partner; whether to paste, and a key of all choices."""
        return ViewPlan(
            strong=int(self._settings.strong),
            boxes=1,
            box_rule=BoxRule.half,
            channel_bits=False,
            numbers=2,
        )

    def memory(self) -> dict[str, Tensor]:
        """Banks of negatives."""
        channels = self.context.config.model.head_channels
        return self._contrast.memory(channels) if self._contrasts else {}

    def numbers(self, position: Position) -> dict[str, float]:
        """Whether only labelled images count, epochs done and in all, the student's share.

        The teacher is a copy of the student until it is averaged: as long as there are labelled
        images alone and, in the code, for one epoch more.
        """
        epoch, first = position.step // position.epoch_steps, self._settings.sup_only_epochs
        averaged_from = first + (self._settings.compat is Compat.released)
        decay = 0.0
        if epoch >= averaged_from:
            steps = position.step - first * position.epoch_steps
            decay = growing_decay(steps, self.context.config.method.ema_decay)
        return {
            "is_sup_only": float(epoch < first),
            "epoch": float(epoch),
            "epochs": float(-(-position.total_steps // position.epoch_steps)),
            "student_share": 1.0 - decay,
        }

    def step(self, given: StepInput) -> StepResult:
        """Teacher on weak views; student, then teacher, on labelled and pasted images together."""
        if self._settings.sup_only_epochs and given.numbers["is_sup_only"]:
            return self._sup_only(given)
        context, labelled, unlabelled = self.context, given.labelled, given.unlabelled
        assert unlabelled is not None
        teacher, num_labelled = given.networks["teacher"], len(labelled.images)
        box = unlabelled.boxes[0] & (unlabelled.numbers[:, 0] < 0.5)[:, None, None]
        target = _pseudo_labels(teacher, unlabelled, box)
        base, mix = unlabelled.weak, unlabelled.mix_weak
        if self._settings.strong:
            base, mix = unlabelled.strong[0], unlabelled.mix_strong[0]
        both = normalise(torch.cat([labelled.images, torch.where(box[:, None], mix, base)]))
        learnt, averaged = given.student.outputs(both), _train_outputs(teacher, both)
        pasted = learnt.logits[num_labelled:].float()
        loss_x = self._labelled_term(learnt, labelled.masks)
        teacher_logits = averaged.logits[num_labelled:].float()
        sureness = self._sureness(teacher_logits, target, given)
        loss_u, mask_ratio = self._unlabelled_term(pasted, target.classes, sureness)
        loss, kept = loss_x + loss_u, {}
        terms = {
            "loss_labelled": loss_x.detach(),
            "loss_unlabelled": loss_u.detach(),
            "mask_ratio": mask_ratio,
        }
        if self._contrasts:
            pixels = _at_stride_4(teacher, (learnt, averaged), labelled.masks, target, sureness)
            key = gather_images(unlabelled.numbers, context.config.batch, context.ranks)[0, 1]
            with torch.autocast("cuda" if loss.is_cuda else "cpu", enabled=False):
                loss_c, new = self._contrast.loss(given.memory, pixels, key)
            loss = loss + self._settings.contrast_weight * loss_c
            terms["loss_contrast"] = loss_c.detach()
            kept = {"features": new.rows["features"], "order": new.order, "counts": new.counts}
        teachers = {"teacher_eval": target.logits, "teacher_train": teacher_logits}
        pairs = tuple(
            TeacherStudentPair(name, teachers[name], pasted, target.valid, box)
            for name in context.config.pair_views
        )
        return StepResult(loss, pairs, terms, kept)

    def _sup_only(self, given: StepInput) -> StepResult:
        """L_x alone; the teacher sees the same images, which moves its batch statistics."""
        images = normalise(given.labelled.images)
        learnt = given.student.outputs(images)
        consistency.train_logits(given.networks["teacher"], images)
        loss = self._labelled_term(learnt, given.labelled.masks)
        return StepResult(loss, (), {"loss_labelled": loss.detach()})

    def _labelled_term(self, learnt: Outputs, masks: Tensor) -> Tensor:
        """This rank's share of L_x, of the first images; with that of the auxiliary logits."""
        count = len(masks)
        loss = consistency.labelled_term(self.context, learnt.logits[:count].float(), masks)
        if learnt.auxiliary is None:
            return loss
        auxiliary = learnt.auxiliary[:count].float()
        other = consistency.labelled_term(self.context, auxiliary, masks)
        return loss + self._settings.auxiliary_weight * other

    def _sureness(self, logits: Tensor, target: Target, given: StepInput) -> "_Sureness":
        """The entropy of the teacher in training mode, and its limits at this epoch.

        Percentiles are of all pixels of the global batch that count, as numpy.percentile has them.
        """
        context, settings = self.context, self._settings
        # In the code padding counts, too.
        counts_all = settings.compat is Compat.released
        valid = torch.ones_like(target.valid) if counts_all else target.valid
        log_p = logits.log_softmax(1)
        entropy = -(log_p.exp() * log_p).sum(1)
        every = torch.where(valid, entropy, torch.inf)
        every = gather_images(every, context.config.batch, context.ranks, fill=torch.inf)
        ordered = every.flatten().sort().values
        count = context.ranks.sum(valid.sum())
        # In float64 also where numbers are tensors, so that `run.graph` changes no bit.
        zero = torch.zeros_like(count, dtype=torch.float64)
        epoch, epochs = (zero + given.numbers[name] for name in ("epoch", "epochs"))
        percent = settings.unreliable_percent * (1.0 - epoch / epochs)
        low, high = (percentile(ordered, count, x) for x in (percent, 100.0 - percent))
        if settings.unreliable_percent == 0.0:  # every pixel counts, the one at the top too
            high = torch.full_like(high, torch.inf)
        return _Sureness(entropy, valid, low, high)

    def _unlabelled_term(
        self, student: Tensor, classes: Tensor, sureness: "_Sureness"
    ) -> tuple[Tensor, Tensor]:
        """This rank's shares of L_u, and of the fraction of pixels that have pseudo-labels.

        The mean over these pixels, divided by their fraction of those that count.
        """
        kept = sureness.valid & (sureness.entropy < sureness.high)
        counts = torch.stack([sureness.valid.sum(), kept.sum()]).double()
        num_valid, num_kept = self.context.ranks.sum(counts).clamp(min=1.0).unbind()
        losses = functional.cross_entropy(student, classes, reduction="none")
        mean = torch.where(kept, losses, 0.0).sum() / num_kept.to(losses.dtype)
        return mean * (num_valid / num_kept).to(losses.dtype), kept.sum() / num_valid

    def after(self, given: StepInput, result: StepResult) -> None:
        """Move the teacher, whose batch statistics are its own, and fill the banks."""
        share, teacher = given.numbers["student_share"], given.networks["teacher"]
        move_average(teacher, given.student, share=share, buffers=None)
        if result.kept:
            rows = {"features": result.kept["features"]}
            new = NewRows(rows, result.kept["order"], result.kept["counts"])
            self._contrast.bank.push(given.memory, new)


@dataclass(frozen=True)
class _Sureness:
    """How sure the teacher is of the pasted images.

    Attributes:
        entropy: (B, S, S).
        valid: pixels that count, bool (B, S, S).
        low: entropies up to it are low, a scalar.
        high: entropies from it on are high, a scalar: such pixels have no pseudo-label.
    """

    entropy: Tensor
    valid: Tensor
    low: Tensor
    high: Tensor


def percentile(ordered: Tensor, count: Tensor, percent: Tensor) -> Tensor:
    """numpy.percentile of the first values, a scalar; of none NaN, below which nothing is.

    Args:
        ordered: sorted values.
        count: of the values that count, a scalar.
        percent: in [0, 100], a float64 scalar.
    """
    place = percent / 100.0 * (count - 1).clamp(min=0)
    below = place.floor()
    ends = torch.stack([below, below + 1]).long().minimum((count - 1).clamp(min=0))
    low, high = ordered.index_select(0, ends).unbind()
    return torch.lerp(low, high, (place - below).to(ordered.dtype))


@torch.no_grad()
def _train_outputs(network: DeepLabV3Plus, images: Tensor) -> Outputs:
    """All that a teacher gives, by batch statistics, without gradient; its running ones move."""
    outputs = network.train().outputs(images)
    network.eval()
    return outputs


def _pseudo_labels(teacher: DeepLabV3Plus, unlabelled: UnlabelledBatch, box: Tensor) -> Target:
    """What the teacher predicts in evaluation mode before pasting, pasted as the images are."""
    weak, mix = (
        Target.of(consistency.eval_logits(teacher, normalise(images)), ~padded)
        for images, padded in (
            (unlabelled.weak, unlabelled.padded),
            (unlabelled.mix_weak, unlabelled.mix_padded),
        )
    )
    return weak.pasted(mix, box)


def _at_stride_4(
    teacher: DeepLabV3Plus,
    outputs: tuple[Outputs, Outputs],
    masks: Tensor,
    target: Target,
    sureness: _Sureness,
) -> Pixels:
    """What the contrastive loss needs, its maps by the nearest pixel.

    Args:
        teacher: whose classifier gives its logits at stride 4.
        outputs: of student and teacher, on labelled and pasted images.
        masks: of the labelled images, (B, S, S).
        target: classes of the pasted images.
        sureness: of the pasted images.
    """
    learnt, averaged = outputs
    assert learnt.embedding is not None
    assert averaged.embedding is not None
    with torch.no_grad():
        logits = teacher.classifier(averaged.fused).float()
    labels = torch.cat([masks, target.classes.masked_fill(~sureness.valid, IGNORED)])
    entropy = torch.cat([torch.zeros_like(sureness.entropy), sureness.entropy])
    maps = torch.stack([labels.to(entropy.dtype), entropy], 1)
    labels, entropy = functional.interpolate(maps, logits.shape[-2:], mode="nearest").unbind(1)
    valid = labels != IGNORED
    is_labelled = torch.arange(len(labels), device=labels.device)[:, None, None] < len(masks)
    return Pixels(
        student=learnt.embedding,
        teacher=averaged.embedding,
        logits=logits,
        classes=labels.long(),
        low=valid & (is_labelled | (entropy <= sureness.low)),
        high=valid & (is_labelled | (entropy >= sureness.high)),
    )
