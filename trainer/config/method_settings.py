"""The settings of single methods: one group each, below `method`. Needs no torch.

`MethodConfig` holds them, with the algorithms that read each: a group enters the fingerprint of
their runs only, so a new group moves no other hash.
"""

from dataclasses import dataclass
from enum import Enum

from datasets.config import option


class Scored(Enum):
    """Which network of a mean teacher is scored and exported."""

    student = "student"
    teacher = "teacher"


@dataclass(frozen=True)
class MeanTeacherConfig:
    """Mean Teacher (Tarvainen & Valpola 2017) as the CPS code has it."""

    weight: float = option(100.0, "of the squared difference", limits=(0, 1e6))
    scored: Scored = Scored.student


@dataclass(frozen=True)
class CutMixSegConfig:
    """CutMix-Seg (French et al. 2020)."""

    weight: float = option(1.0, "of the squared difference", limits=(0, 1e6))
    per_pixel: bool = option(
        False, "True: unsure pixels are dropped; False: their share scales the whole loss"
    )
    colour: bool = option(
        False, "True: the student sees strong views, the teacher weak ones", neutral=False
    )


@dataclass(frozen=True)
class CpsConfig:
    """Cross pseudo supervision (Chen et al. 2021)."""

    cutmix: bool = option(True, "networks learn on pasted images")
    weight: float = option(1.0, "of the cross terms; 1 VOC, 5 Cityscapes", limits=(0, 1e6))
    weight_without_cutmix: float = option(1.5, "the same; 1.5 VOC, 6 Cityscapes", limits=(0, 1e6))


class Tvat(Enum):
    """The adversarial noise on the student's features."""

    off = "off"
    intent = "intent"  # step and radius are fractions of the norm of the features
    released = "released"  # the constants of the code, whose noise is almost zero in float32


class TeacherStart(Enum):
    """First backbones of teachers that have a warm-up."""

    student = "student"  # the same as the student's
    drawn = "drawn"  # at random, each its own, also where the student's is loaded: the code


@dataclass(frozen=True)
class PsMtConfig:
    """Perturbed and strict mean teachers (Liu et al. 2022)."""

    weight: float = option(
        1.5,
        "of the unlabelled loss; VOC P1 1.5, P2 0.6 and 0.06 at 92; Cityscapes 3",
        limits=(0, 1e6),
    )
    ramp_epochs: int = option(12, "until the full weight, after the warm-up", limits=(0, 10**6))
    warmup_epochs: int = option(
        5,
        "passes over the labelled list before; 0: teachers start as the student",
        limits=(0, 10**6),
    )
    teachers: int = option(2, "that take turns by epoch", limits=(1, 2))
    teacher_start: TeacherStart = option(
        TeacherStart.student,
        "first backbones of the teachers; drawn: at random, as the code",
        neutral=TeacherStart.student,
    )
    assist: bool = option(
        False, "True: the resting teacher gives its 7 best classes only, as the code"
    )
    tvat: Tvat = Tvat.intent
    tvat_step: float = option(
        0.01, "intent: first step, times the norm of the features", limits=(1e-6, 1)
    )
    tvat_radius: float = option(0.05, "intent: the noise, times the same norm", limits=(0, 10))
    three_boxes: bool = option(
        False, "True: CutMix of three boxes, as the code on Cityscapes; else one of half the crop"
    )
    scores_all: bool = option(True, "mean logits of the teachers; False: the first, as Cityscapes")


class PairDirection(Enum):
    """Where one crop teaches the other by the inter-pixel term."""

    directional = "directional"  # where it is the surer one
    symmetric = "symmetric"  # in the whole overlap


@dataclass(frozen=True)
class CacConfig:
    """Context-aware consistency (Lai et al. 2021)."""

    weight: float = option(0.1, "of the contrastive loss", limits=(0, 1e6))
    temperature: float = option(0.1, "of the contrastive loss", limits=(0.03, 1e3))
    supervised_epochs: int = option(5, "before, with labels alone", limits=(0, 10**6))
    saved_steps: int = option(
        1,
        "whose cells stay negatives; VOC 1, with ResNet-101 2; Cityscapes 0",
        limits=(0, 1000),
    )
    padded_negatives: bool = option(False, "True: padding is a negative too, as in the code")
    pairs: PairDirection = PairDirection.directional


class Compat(Enum):
    """Whose form of a method: where its paper and its code differ."""

    paper = "paper"
    released = "released"  # with the errors of the code


class BankPrecision(Enum):
    """How features are kept in a bank."""

    half = "half"  # float16
    single = "single"  # float32


@dataclass(frozen=True)
class U2plConfig:
    """U2PL, using unreliable pseudo-labels (Wang et al. 2022)."""

    compat: Compat = Compat.paper
    contrast_weight: float = option(
        0.1, "of the contrastive loss; the paper's; in the code 1; 0: none", limits=(0, 1e6)
    )
    auxiliary_weight: float = option(
        0.0,
        "of a second labelled loss, on the third stage; Cityscapes, in the code 0.4",
        limits=(0, 1e6),
    )
    unreliable_percent: float = option(
        20.0, "pixels without pseudo-label, at first; less and less, linearly", limits=(0, 50)
    )
    sup_only_epochs: int = option(
        1, "with labelled images alone, at first; 1 VOC, 0 Cityscapes", limits=(0, 10**6)
    )
    strong: bool = option(False, "True: strong views are pasted, as in UniMatch; False: weak ones")
    temperature: float = option(0.5, "of the contrastive loss", limits=(1e-6, 1e6))
    anchors: int = option(256, "drawn of each class and step", limits=(1, 10**6))
    negatives: int = option(50, "drawn for each anchor", limits=(1, 10**6))
    anchor_confidence: float = option(0.3, "anchors have a higher probability", limits=(0, 1))
    rank_low: int = option(
        3, "a class is unlikely from this place of the order of classes on", limits=(0, 1000)
    )
    rank_high: int = option(
        20, "and too unlikely to learn from, from this one on", limits=(0, 1000)
    )
    bank_rows: int = option(30000, "negatives kept of each class", limits=(1, 10**7))
    bank_rows_first: int = option(50000, "and of class 0", limits=(1, 10**7))
    bank_precision: BankPrecision = BankPrecision.half


class AbsentClass(Enum):
    """What happens to the confidence of a class that no labelled image of a step shows."""

    decay = "decay"  # as if it were zero in this step: the code
    skip = "skip"  # nothing


@dataclass(frozen=True)
class AelConfig:
    """Adaptive equalization learning (Hu et al. 2021)."""

    weight: float = option(1.0, "of the consistency losses", limits=(0, 1e6))
    auxiliary_weight: float = option(
        0.0,
        "of a second labelled loss, on the third stage; in the code 0.4",
        limits=(0, 1e6),
        neutral=0.0,
    )
    labelled_consistency: bool = option(
        False, "True: one of labelled images too, as the code; False: the paper's equations"
    )
    per_image: bool = option(
        True,
        "True: weights and confidence of classes are of each image, as the paper; "
        "False: of the batch, as the code",
    )
    confidence_power: float = option(2.0, "of a pixel's confidence in its weight", limits=(0, 100))
    sampling_power: float = option(
        1.0, "of the rate at which pixels of a class stay; 0 keeps all", limits=(0, 100)
    )
    decay: float = option(0.999, "of the running confidence of classes", limits=(0, 1))
    absent_class: AbsentClass = AbsentClass.decay
    pasted_classes: int = option(
        1, "drawn for every second labelled image; 1 VOC, 3 Cityscapes, 0 none", limits=(0, 1000)
    )
    released_paste: bool = option(
        False, "True: by the root of the gap, and never classes 0, 1, 2, 8 and 10, as the code"
    )
    component_area: float = option(
        0.03, "of the crop; smaller components get no box; 0.005 Cityscapes", limits=(0, 1)
    )
    presence_area: float = option(
        0.03, "of the crop, from which on an image shows a class; 0.01 Cityscapes", limits=(0, 1)
    )


class StageTeacher(Enum):
    """Which network of a training predicts masks for the next one."""

    last = "last"
    best = "best"  # by the validation masks, which the next training so learns from: the code


@dataclass(frozen=True)
class StPlusPlusConfig:
    """ST++ (Yang et al. 2022): self-training in several trainings."""

    plus: bool = option(True, "False: ST, which adds all unlabelled images at once")
    teacher: StageTeacher = StageTeacher.last


@dataclass(frozen=True)
class Pc2SegStyleConfig:
    """In the style of PC2Seg (Zhong et al. 2021), which has no code: the choices are ours."""

    consistency_weight: float = option(1.0, "of the squared distance", limits=(0, 1e6))
    ramp_epochs: int = option(5, "until its full weight", limits=(0, 10**6))
    contrast_weight: float = option(0.1, "of the contrastive loss", limits=(0, 1e6))
    temperature: float = option(0.07, "of the contrastive loss", limits=(0.03, 1e3))
    anchors: int = option(1024, "cells of stride 8 of each image, at most", limits=(1, 10**6))
    negatives: int = option(200, "of each anchor, from other images", limits=(1, 10**6))
    cutout: bool = option(False, "True: strong views have holes, which no loss counts")
