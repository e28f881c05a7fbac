"""Weak-to-strong consistency: what FixMatch and UniMatch share.

The teacher predicts a weakly augmented image, the student learns that prediction on strongly
augmented ones: Sohn et al., FixMatch (2020), in the segmentation form of Yang et al., UniMatch
(2023). A1 and so on name rows of docs/ambiguities.md.
Legend: B images of this rank, C classes, S x S pixels of a crop.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from datasets.loading.batches import UnlabelledBatch
from trainer.config.schema import (
    CutMixPairs,
    MethodConfig,
    PixelDistance,
    PseudoLabels,
    Teacher,
    TeacherMode,
)
from trainer.losses import Target, labelled_loss, pseudo_label_loss
from trainer.methods.interface import (
    MethodContext,
    NetworkSpec,
    Position,
    StepInput,
    TeacherStudentPair,
)
from trainer.methods.moving_average import growing_decay, move_average
from trainer.network.deeplab import DeepLabV3Plus, normalise
from trainer.network.heads import Head


@torch.no_grad()
def eval_logits(network: DeepLabV3Plus, images: Tensor) -> Tensor:
    """Logits (B, C, S, S), float32, in evaluation mode; the network's mode is restored."""
    was_training = network.training
    network.eval()
    logits = network(images).float()
    network.train(was_training)
    return logits  # type: ignore[no-any-return]


@torch.no_grad()
def train_logits(network: DeepLabV3Plus, images: Tensor) -> Tensor:
    """Logits (B, C, S, S), float32, in training mode without gradient; the mode is restored.

    By batch statistics; the running ones move.
    """
    was_training = network.training
    network.train()
    logits = network(images).float()
    network.train(was_training)
    return logits  # type: ignore[no-any-return]


def labelled_term(context: MethodContext, logits: Tensor, masks: Tensor) -> Tensor:
    """This rank's share of L_x; `logits` are (B, C, S, S)."""
    config = context.config
    return labelled_loss(logits, masks, optim=config.optim, batch=config.batch, ranks=context.ranks)


def weak_logits(
    method: MethodConfig, student: DeepLabV3Plus, weak: Tensor, trained: Tensor
) -> Tensor:
    """The student's logits of the weak view, for pixel-wise pseudo-labels.

    Args:
        method: names the batch-norm mode in which they are computed (A2).
        student: the network that is trained.
        weak: normalised images (B, 3, S, S).
        trained: logits (B, C, S, S) of the same images in the student's training forward; used
            again in the default mode, so that it costs no second forward.
    """
    if method.teacher_mode is TeacherMode.train:
        return trained.detach()
    return eval_logits(student, weak)


def student_and_teacher(method: MethodConfig) -> dict[str, NetworkSpec]:
    """The student and, unless it is its own teacher (A1), its moving average."""
    networks = {"student": NetworkSpec()}
    if method.teacher is Teacher.ema:
        networks["ema"] = NetworkSpec(is_trained=False, copy_of="student")
    return networks


def averaged_teacher(heads: tuple[Head, ...] = ()) -> dict[str, NetworkSpec]:
    """A student, and a teacher that starts as its copy and is averaged."""
    return {
        "student": NetworkSpec(heads=heads),
        "teacher": NetworkSpec(is_trained=False, copy_of="student", heads=heads),
    }


def teacher_numbers(method: MethodConfig, position: Position) -> dict[str, float]:
    """The share of the student in the EMA teacher after a step; nothing without one."""
    if method.teacher is not Teacher.ema:
        return {}
    return {"student_share": 1.0 - growing_decay(position.step + 1, method.ema_decay)}


def move_teacher(method: MethodConfig, given: StepInput) -> None:
    """Move the EMA teacher (Sec. III-B) towards the student; nothing without one."""
    teacher = given.networks.get("ema")
    if teacher is not None:
        share = given.numbers["student_share"]
        move_average(teacher, given.student, share=share, buffers=method.ema_buffers)


def uses_ema_pseudo_labels(method: MethodConfig) -> bool:
    """Whether the EMA teacher also gives the pixel-wise pseudo-labels (A1)."""
    return method.teacher is Teacher.ema and method.pseudo_labels is PseudoLabels.teacher


@dataclass(frozen=True)
class TeacherTargets:
    """A teacher's predictions for the weak views of a batch.

    Attributes:
        weak: for the unlabelled images.
        mix: for their CutMix partners.
    """

    weak: Target
    mix: Target


@dataclass(frozen=True)
class View:
    """One strong view of the unlabelled images, before and after CutMix.

    Attributes:
        name: s1 or s2.
        pasted: with the partner's pixels inside the box, uint8 (B, 3, S, S).
        uncut: before pasting, uint8 (B, 3, S, S).
        box: True where the partner is pasted, bool (B, S, S).
        mix_padded: True where the partner is padding, bool (B, S, S).
    """

    name: str
    pasted: Tensor
    uncut: Tensor
    box: Tensor
    mix_padded: Tensor


def strong_views(unlabelled: UnlabelledBatch, names: tuple[str, ...]) -> list[View]:
    """The first `len(names)` strong views, with the partner's pixels inside their boxes."""
    views = []
    for name, strong, mix, box in zip(
        names, unlabelled.strong, unlabelled.mix_strong, unlabelled.boxes, strict=False
    ):
        pasted = torch.where(box[:, None], mix, strong)
        views.append(View(name, pasted, strong, box, unlabelled.mix_padded))
    return views


def partner_logits(student: DeepLabV3Plus, unlabelled: UnlabelledBatch) -> Tensor:
    """The student's logits (B, C, S, S) of the CutMix partner, in evaluation mode (A2).

    To be called before the training forward, which moves the running batch-norm statistics that
    evaluation mode uses; the UniMatch code has this order.
    """
    return eval_logits(student, normalise(unlabelled.mix_weak))


def teacher_targets(
    context: MethodContext,
    networks: dict[str, DeepLabV3Plus],
    unlabelled: UnlabelledBatch,
    *,
    trained: Tensor,
    partner: Tensor,
) -> tuple[TeacherTargets, TeacherTargets]:
    """The predictions that give pseudo-labels, and those the inter-pixel term compares with.

    They are the same unless there is an EMA teacher (A1).

    Args:
        context: of the run.
        networks: student and EMA teacher.
        unlabelled: the batch.
        trained: logits (B, C, S, S) of the weak view in the student's training forward.
        partner: logits (B, C, S, S) of the CutMix partner, see `partner_logits`.
    """
    method = context.config.method
    weak = normalise(unlabelled.weak)
    valid, mix_valid = ~unlabelled.padded, ~unlabelled.mix_padded
    own = TeacherTargets(
        Target.of(weak_logits(method, networks["student"], weak, trained), valid),
        Target.of(partner, mix_valid),
    )
    ema = networks.get("ema")
    if ema is None:
        return own, own
    averaged = TeacherTargets(
        Target.of(eval_logits(ema, weak), valid),
        Target.of(eval_logits(ema, normalise(unlabelled.mix_weak)), mix_valid),
    )
    return (averaged if uses_ema_pseudo_labels(method) else own), averaged


def pixel_term(context: MethodContext, student: Tensor, target: Target) -> Tensor:
    """This rank's share of the pseudo-label loss; `student` are logits (B, C, S, S)."""
    num_pixels = context.ranks.sum(target.valid.sum().to(torch.float64))
    confidence = context.config.method.confidence
    return pseudo_label_loss(student, target, confidence=confidence, num_pixels=num_pixels)


def strong_pairs(
    context: MethodContext,
    student: DeepLabV3Plus,
    teacher: TeacherTargets,
    views: dict[str, tuple[View, Tensor]],
) -> list[TeacherStudentPair]:
    """The pairs of the inter-pixel term, one per strong view named in `loss.views` (A4).

    Under CutMix the teacher's logits are pasted as the images were; `loss.cutmix=uncut` runs the
    student once more on the views before pasting instead (A3).
    """
    loss = context.config.loss
    chosen = {name: views[name] for name in context.config.pair_views if name in views}
    if loss.distance is PixelDistance.none:
        return []
    if loss.cutmix is CutMixPairs.uncut:
        uncut = student(normalise(torch.cat([view.uncut for view, _ in chosen.values()]))).float()
        weak = teacher.weak
        return [
            TeacherStudentPair(name, weak.logits, logits, weak.valid)
            for name, logits in zip(chosen, uncut.chunk(len(chosen)), strict=True)
        ]
    pairs = []
    for name, (view, logits) in chosen.items():
        target = teacher.weak.pasted(teacher.mix, view.box)
        pairs.append(TeacherStudentPair(name, target.logits, logits, target.valid, view.box))
    return pairs


def touched_cells(pixels: Tensor, maps: Tensor) -> Tensor:
    """The cells of stride 8 of which some pixel is True, bool (B, h, w).

    Args:
        pixels: bool (B, S, S), such as padding.
        maps: at stride 8, (B, C, h, w); at the right and below, a part of a cell is no cell.
    """
    cells = functional.max_pool2d(pixels.float(), 8, ceil_mode=True) > 0.0
    return cells[:, : maps.shape[-2], : maps.shape[-1]]


def mask_ratio(context: MethodContext, target: Target) -> Tensor:
    """This rank's share of the fraction of pixels, padding apart, whose pseudo-label is used."""
    sure = (target.confidence >= context.config.method.confidence) & target.valid
    total = context.ranks.sum(target.valid.sum().to(torch.float64))
    return sure.sum() / total
