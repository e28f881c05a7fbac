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

    weight: float = option(
        100.0, "the weight of the squared difference in the loss", limits=(0, 1e6)
    )
    scored: Scored = Scored.student


@dataclass(frozen=True)
class CutMixSegConfig:
    """CutMix-Seg (French et al. 2020)."""

    weight: float = option(1.0, "the weight of the squared difference in the loss", limits=(0, 1e6))
    per_pixel: bool = option(
        False, "True drops unsure pixels; False scales the whole loss by the share of sure ones"
    )
    colour: bool = option(
        False, "True shows the student strong views and the teacher weak ones", neutral=False
    )


@dataclass(frozen=True)
class CpsConfig:
    """Cross pseudo supervision (Chen et al. 2021)."""

    cutmix: bool = option(True, "True lets the networks learn on pasted images")
    weight: float = option(
        1.0, "the weight of the cross terms: 1 on VOC, 5 on Cityscapes", limits=(0, 1e6)
    )
    weight_without_cutmix: float = option(
        1.5, "their weight where cutmix=false: 1.5 on VOC, 6 on Cityscapes", limits=(0, 1e6)
    )


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
        "the weight of the unlabelled loss: on VOC 1.5 (P1), 0.6 (P2) and 0.06 (P2, "
        "92); on Cityscapes 3",
        limits=(0, 1e6),
    )
    ramp_epochs: int = option(
        12, "the epochs after the warm-up until the loss has its full weight", limits=(0, 10**6)
    )
    warmup_epochs: int = option(
        5,
        "the passes over the labelled list before the method begins; with 0 the "
        "teachers start as the student",
        limits=(0, 10**6),
    )
    teachers: int = option(2, "how many teachers take turns by epoch", limits=(1, 2))
    teacher_start: TeacherStart = option(
        TeacherStart.student,
        "where the first backbones of the teachers come from; drawn takes them at "
        "random, as the code does",
        neutral=TeacherStart.student,
    )
    assist: bool = option(
        False, "True lets the resting teacher give its 7 best classes only, as the code does"
    )
    tvat: Tvat = Tvat.intent
    tvat_step: float = option(
        0.01,
        "the first step of tvat=intent, as a part of the norm of the features",
        limits=(1e-6, 1),
    )
    tvat_radius: float = option(
        0.05, "the length of the noise of tvat=intent, as a part of the same norm", limits=(0, 10)
    )
    three_boxes: bool = option(
        False, "True pastes three boxes, as the code does on Cityscapes; False one of half the crop"
    )
    scores_all: bool = option(
        True,
        "True scores the mean logits of the teachers; False the first teacher, as on Cityscapes",
    )


class PairDirection(Enum):
    """Where one crop teaches the other by the inter-pixel term."""

    directional = "directional"  # where it is the surer one
    symmetric = "symmetric"  # in the whole overlap


@dataclass(frozen=True)
class CacConfig:
    """Context-aware consistency (Lai et al. 2021)."""

    weight: float = option(0.1, "the weight of the contrastive loss", limits=(0, 1e6))
    temperature: float = option(0.1, "the temperature of the contrastive loss", limits=(0.03, 1e3))
    supervised_epochs: int = option(
        5, "the epochs with labels alone before the method begins", limits=(0, 10**6)
    )
    saved_steps: int = option(
        1,
        "how many earlier steps leave their cells as negatives: 1 on VOC (2 with "
        "ResNet-101), 0 on Cityscapes",
        limits=(0, 1000),
    )
    padded_negatives: bool = option(False, "True takes padding for negatives too, as the code does")
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
        0.1,
        "the weight of the contrastive loss: 0.1 in the paper, 1 in the code; 0 leaves it out",
        limits=(0, 1e6),
    )
    auxiliary_weight: float = option(
        0.0,
        "the weight of a second labelled loss on the third stage: 0.4 on Cityscapes in the code",
        limits=(0, 1e6),
    )
    unreliable_percent: float = option(
        20.0,
        "the percentage of pixels that have no pseudo-label at first; it falls linearly to 0",
        limits=(0, 50),
    )
    sup_only_epochs: int = option(
        1,
        "the first epochs, which have labelled images alone: 1 on VOC, 0 on Cityscapes",
        limits=(0, 10**6),
    )
    strong: bool = option(False, "True pastes strong views, as UniMatch does; False weak ones")
    temperature: float = option(0.5, "the temperature of the contrastive loss", limits=(1e-6, 1e6))
    anchors: int = option(
        256, "how many anchors are drawn of each class in a step", limits=(1, 10**6)
    )
    negatives: int = option(50, "how many negatives are drawn for each anchor", limits=(1, 10**6))
    anchor_confidence: float = option(
        0.3, "the probability of its class that an anchor must exceed", limits=(0, 1)
    )
    rank_low: int = option(
        3, "from which place in a pixel's order of classes a class is unlikely", limits=(0, 1000)
    )
    rank_high: int = option(
        20, "from which place in that order a class is too unlikely to learn from", limits=(0, 1000)
    )
    bank_rows: int = option(
        30000, "how many negatives are kept of each class but class 0", limits=(1, 10**7)
    )
    bank_rows_first: int = option(
        50000, "how many negatives are kept of class 0", limits=(1, 10**7)
    )
    bank_precision: BankPrecision = BankPrecision.half


class AbsentClass(Enum):
    """What happens to the confidence of a class that no labelled image of a step shows."""

    decay = "decay"  # as if it were zero in this step: the code
    skip = "skip"  # nothing


@dataclass(frozen=True)
class AelConfig:
    """Adaptive equalization learning (Hu et al. 2021)."""

    weight: float = option(1.0, "the weight of the consistency losses", limits=(0, 1e6))
    auxiliary_weight: float = option(
        0.0,
        "the weight of a second labelled loss on the third stage; 0.4 in the code",
        limits=(0, 1e6),
        neutral=0.0,
    )
    labelled_consistency: bool = option(
        False,
        "True adds the consistency loss of labelled images, as the code does; False "
        "follows the paper's equations",
    )
    per_image: bool = option(
        True,
        "True takes weights and confidence of classes over each image, as the paper; "
        "False over the batch, as the code",
    )
    confidence_power: float = option(
        2.0, "the power of a pixel's confidence in its weight", limits=(0, 100)
    )
    sampling_power: float = option(
        1.0, "the power of the rate at which pixels of a class stay; 0 keeps all", limits=(0, 100)
    )
    decay: float = option(0.999, "the decay of the running confidence of classes", limits=(0, 1))
    absent_class: AbsentClass = AbsentClass.decay
    pasted_classes: int = option(
        1,
        "how many classes are pasted into every second labelled image: 1 on VOC, 3 on "
        "Cityscapes, 0 for none",
        limits=(0, 1000),
    )
    released_paste: bool = option(
        False,
        "True draws classes by the root of the gap, and never 0, 1, 2, 8 and 10, as the code does",
    )
    component_area: float = option(
        0.03,
        "the part of the crop below which a component gets no box; 0.005 on Cityscapes",
        limits=(0, 1),
    )
    presence_area: float = option(
        0.03,
        "the part of the crop from which on an image shows a class; 0.01 on Cityscapes",
        limits=(0, 1),
    )


class StageTeacher(Enum):
    """Which network of a training predicts masks for the next one."""

    last = "last"
    best = "best"  # by the validation masks, which the next training so learns from: the code


@dataclass(frozen=True)
class StPlusPlusConfig:
    """ST++ (Yang et al. 2022): self-training in several trainings."""

    plus: bool = option(True, "True is ST++; False is ST, which adds all unlabelled images at once")
    teacher: StageTeacher = StageTeacher.last


@dataclass(frozen=True)
class Pc2SegStyleConfig:
    """In the style of PC2Seg (Zhong et al. 2021), which has no code: the choices are ours."""

    consistency_weight: float = option(
        1.0, "the weight of the squared distance between two views", limits=(0, 1e6)
    )
    ramp_epochs: int = option(
        5, "the epochs until the squared distance has its full weight", limits=(0, 10**6)
    )
    contrast_weight: float = option(0.1, "the weight of the contrastive loss", limits=(0, 1e6))
    temperature: float = option(0.07, "the temperature of the contrastive loss", limits=(0.03, 1e3))
    anchors: int = option(
        1024, "the most anchors of an image, which are cells of stride 8", limits=(1, 10**6)
    )
    negatives: int = option(
        200, "how many negatives each anchor has, all from other images", limits=(1, 10**6)
    )
    cutout: bool = option(False, "True cuts holes into strong views, which no loss counts")
