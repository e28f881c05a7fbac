"""The schema of one run: every field, its default, its unit. Needs no torch.

Fields made by `execution()` say where or how fast a run executes; all others can change its numbers
and are part of the fingerprint. A3 and so on name rows of docs/ambiguities.md.
"""

from dataclasses import dataclass, field
from enum import Enum

from datasets.config import DataConfig, execution, option
from trainer.config.families import FAMILIES, FamilyFacts, family_facts
from trainer.config.method_settings import (
    AelConfig,
    CacConfig,
    CpsConfig,
    CutMixSegConfig,
    MeanTeacherConfig,
    Pc2SegStyleConfig,
    PsMtConfig,
    StPlusPlusConfig,
    U2plConfig,
)
from trainer.method_registry import METHODS, MethodFacts, method_facts


class Stem(Enum):
    """First layers of the ResNet."""

    deep64 = "deep64"  # three 3x3 convolutions, 64-64-128: the UniMatch code
    conv7 = "conv7"  # one 7x7 convolution: torchvision


class Upsample(Enum):
    """How DeepLabV3+ enlarges features and logits (A25)."""

    nearest = "nearest"  # the paper
    bilinear = "bilinear"  # official UniMatch; two matrix products, align_corners
    nearest_train_only = "nearest_train_only"  # nearest in training, bilinear in evaluation


class Pyramid(Enum):
    """How ASPP makes one map of its branches."""

    one_by_one = "one_by_one"  # each normalised, then a 1x1 convolution: DeepLabV3+
    three_by_three = "three_by_three"  # each normalised, then a 3x3 one: the code of U2PL
    summed = "summed"  # normalised together, the pooled branch added: the code of CPS


class HeadInit(Enum):
    """First weights of the convolutions outside the backbone."""

    uniform = "uniform"  # torch's default
    kaiming = "kaiming"  # normal, by fan in for ReLU: the code of CPS


class Init(Enum):
    """Where the backbone's weights come from."""

    random = "random"
    imagenet = "imagenet"  # the file run.weights


class OptimiserKind(Enum):
    """How gradients move the weights."""

    sgd = "sgd"  # with momentum
    adam = "adam"  # beta 0.9 (optim.momentum) and 0.999; weight decay is added to the gradient


class Criterion(Enum):
    """Loss on labelled pixels."""

    ce = "ce"
    ohem = "ohem"


class Teacher(Enum):
    """Who labels the unlabelled images (A1)."""

    shared = "shared"  # the student itself, gradient stopped
    ema = "ema"  # exponential moving average of the student


class TeacherMode(Enum):
    """Batch-norm mode of the weak forward (A2)."""

    train = "train"  # with the labelled images, as the UniMatch code
    eval = "eval"


class Buffers(Enum):
    """Batch-norm statistics of an EMA teacher (A1)."""

    copy = "copy"
    ema = "ema"


class PseudoLabels(Enum):
    """With an EMA teacher: whose predictions supervise the pixel-wise terms (A1)."""

    student = "student"
    teacher = "teacher"


class PixelDistance(Enum):
    """phi of Eq. 2; none switches the inter-pixel term off."""

    none = "none"
    kl = "kl"
    cr = "cr"


class Direction(Enum):
    """Order of the two distributions in the KL distance (A10)."""

    forward = "forward"  # KL(teacher || student), Eq. 2
    reverse = "reverse"
    js = "js"


class Scope(Enum):
    """Set of pixels one spatial distribution spans (A7)."""

    image = "image"
    batch = "batch"


class DivideBy(Enum):
    """Denominator over images (A8)."""

    all = "all"
    valid_images = "valid_images"


class NormOver(Enum):
    """Pixels the spatial softmax normalises over (A12)."""

    omega = "omega"
    all = "all"


class Classes(Enum):
    """Channels in the mean of Eq. 2 (A16)."""

    all = "all"
    present = "present"


class CorrelateOn(Enum):
    """What Pearson's correlation compares (A19)."""

    probabilities = "probabilities"
    logits = "logits"


class CutMixPairs(Enum):
    """How teacher and student meet under CutMix (A3)."""

    paste = "paste"  # teacher logits pasted as the images were
    outside_only = "outside_only"  # Omega without the box
    two_regions = "two_regions"  # one distribution inside the box, one outside
    uncut = "uncut"  # an extra forward of the strong view before pasting


class ViewReduce(Enum):
    """How the terms of several student views join (A4)."""

    mean = "mean"
    sum = "sum"


class RampUnit(Enum):
    """What the warm-up counts (A21)."""

    step = "step"
    epoch = "epoch"


class Resolution(Enum):
    """Where the inter-pixel loss is taken (A20)."""

    crop = "crop"
    feature = "feature"  # every fourth pixel, the stride of the decoder


class Precision(Enum):
    """Arithmetic of the training step (A33)."""

    fp32 = "fp32"  # float32 on every card
    tf32 = "tf32"  # convolutions in TF32, as torch and the UniMatch code leave it
    bf16 = "bf16"  # forward and backward in bfloat16, the losses and all that is kept in float32


class Augment(Enum):
    """Where crops are resized and augmented; the bits are the same."""

    auto = "auto"  # on the device when it is CUDA
    host = "host"  # by the loader's workers, with Pillow
    device = "device"  # in batches, by whatever trains


class Cache(Enum):
    """What of the data set is kept in a form that is faster to read."""

    none = "none"
    decoded = "decoded"  # raw pixels: 0.6 MB for an image of VOC, 6.3 MB for one of Cityscapes


class Memory(Enum):
    """What a step keeps on the device for its backward pass; the bits are the same."""

    full = "full"  # every activation
    recompute = "recompute"  # the inputs of blocks; each block's forward runs once more
    offload = "offload"  # the same, and the inputs wait in the memory of the host


class Graph(Enum):
    """How a step is launched; the bits are the same."""

    none = "none"  # one operation after another
    step = "step"  # on CUDA as two graphs, which spares the host most of its work


class Track(Enum):
    """What surrounds the algorithm of a method: network, optimiser, augmentation, evaluation."""

    common = "common"  # that of UniMatch*, the same for every method
    released = "released"  # that of the method's released code, see docs/released.md


class EvaluationMode(Enum):
    """How a validation image passes the network."""

    whole = "whole"
    slide = "slide"  # windows of data.crop, stride two thirds, softmax summed
    slide_inside = "slide_inside"  # the same, all windows inside, logits summed: the code of CPS
    whole_resized = "whole_resized"  # sides enlarged to multiples of 8: the code of PS-MT
    whole_reflected = "whole_reflected"  # borders reflected, to multiples of 8: the code of CAC


class Absent(Enum):
    """What a class that no validation mask shows adds to the mIoU (A34)."""

    zero = "zero"  # an IoU of 0: the UniMatch code
    skip = "skip"  # nothing: the mean is over the other classes


@dataclass(frozen=True)
class ModelConfig:
    """DeepLabV3+ on a backbone."""

    backbone: str = option("resnet14_w16", "name of the file in sweeps/model")
    family: str = option(
        "resnet", "the network that makes the features", choices=tuple(FAMILIES), neutral="resnet"
    )
    blocks: tuple[int, ...] = option((1, 1, 1, 1), "bottlenecks per stage")
    width: int = option(16, "channels of the first stage; 64 for RN-50/101")
    head_channels: int = option(64, "inside ASPP and decoder; 256 for RN-50/101")
    low_level_channels: int = option(12, "of the skip connection; 48 for RN-50/101")
    dilations: tuple[int, ...] = option((6, 12, 18), "of ASPP, at stride 16")
    stride: int = option(16, "pixels of an image per pixel of the last stage: 8 or 16", neutral=16)
    last_dilations: tuple[int, ...] = option(
        (),
        "of the blocks of the last stage (multi-grid); empty: 1 in the first, 2 in others; at "
        "stride 8 twice that",
        neutral=(),
    )
    pyramid: Pyramid = option(
        Pyramid.one_by_one, "how ASPP makes one map of its branches", neutral=Pyramid.one_by_one
    )
    decoder_bias: bool = option(
        False, "biases in the convolutions of decoder and embedding", neutral=False
    )
    head_init: HeadInit = option(
        HeadInit.uniform, "first weights outside the backbone", neutral=HeadInit.uniform
    )
    frozen_norm: bool = option(
        False, "batch norm of the backbone keeps the statistics it starts with", neutral=False
    )
    stem: Stem = Stem.deep64
    upsample: Upsample = Upsample.nearest
    init: Init = Init.random

    @property
    def facts(self) -> FamilyFacts:
        """What is known of the family."""
        return family_facts(self.family)


@dataclass(frozen=True)
class MethodConfig:
    """The semi-supervised method and the numbers of its step."""

    name: str = option("unimatch_star", "the name of the file in sweeps/method")
    algorithm: str = option("unimatch", "the training step, L_o of Eq. 6", choices=tuple(METHODS))
    track: Track = option(
        Track.common,
        "what surrounds the method: what UniMatch* has, or its own released code; track= sets it",
        neutral=Track.common,
    )
    batch_factor: int = option(1, "multiplies optim.batch: 2 in official UniMatch, 4 in supervised")
    lr_factor: float = option(1.0, "multiplies optim.lr: 2 in the official presets")
    confidence: float = option(
        0.95,
        "the lowest confidence of a pseudo-label that counts; the recipe sets it (0.95 "
        "VOC, 0 Cityscapes) unless the method has its own",
    )
    teacher: Teacher = Teacher.shared
    teacher_mode: TeacherMode = TeacherMode.train
    ema_decay: float = option(
        0.996,
        "the most that an averaged teacher keeps in a step, which is min(1 - 1 / (step + 1), this)",
    )
    ema_buffers: Buffers = Buffers.copy
    pseudo_labels: PseudoLabels = PseudoLabels.student
    match_iters: bool = option(False, "True gives supervised as many steps as UniMatch has")
    mean_teacher: MeanTeacherConfig = field(
        default_factory=MeanTeacherConfig, metadata={"algorithms": ("mean_teacher",)}
    )
    cutmix_seg: CutMixSegConfig = field(
        default_factory=CutMixSegConfig, metadata={"algorithms": ("cutmix_seg",)}
    )
    cps: CpsConfig = field(default_factory=CpsConfig, metadata={"algorithms": ("cps",)})
    ps_mt: PsMtConfig = field(default_factory=PsMtConfig, metadata={"algorithms": ("ps_mt",)})
    pc2seg_style: Pc2SegStyleConfig = field(
        default_factory=Pc2SegStyleConfig, metadata={"algorithms": ("pc2seg_style",)}
    )
    cac: CacConfig = field(default_factory=CacConfig, metadata={"algorithms": ("cac",)})
    u2pl: U2plConfig = field(default_factory=U2plConfig, metadata={"algorithms": ("u2pl",)})
    ael: AelConfig = field(default_factory=AelConfig, metadata={"algorithms": ("ael",)})
    st_plusplus: StPlusPlusConfig = field(
        default_factory=StPlusPlusConfig, metadata={"algorithms": ("st_plusplus",)}
    )

    @property
    def facts(self) -> MethodFacts:
        """What the algorithm needs."""
        return method_facts(self.algorithm)


@dataclass(frozen=True)
class LossConfig:
    """The inter-pixel term L_IPix; every alternative reading of the paper is a field."""

    name: str = option("none", "name of the file in sweeps/loss")
    distance: PixelDistance = PixelDistance.none
    alpha: float = option(1.0, "weight in Eq. 6 (A6)")
    threshold: float = option(0.8, "tau of Eq. 3, strict (A14)")
    temperature: float = option(4.0, "t of Eq. 4")
    warmup_epochs: int = option(5, "of the Gaussian ramp; 0 is none; 5 VOC, 30 Cityscapes (A22)")
    ramp_unit: RampUnit = RampUnit.step
    views: tuple[str, ...] = option(
        ("s1", "s2"), "pairs it compares; at the default or empty, the method's own (A4)"
    )
    view_reduce: ViewReduce = ViewReduce.mean
    cutmix: CutMixPairs = CutMixPairs.paste
    inside_half: bool = option(False, "True: alpha counts inside UniMatch's division by two (A5)")
    scope: Scope = Scope.image
    divide_by: DivideBy = DivideBy.all
    min_pixels: int = option(2, "images with fewer confident pixels add zero (A9)")
    direction: Direction = Direction.forward
    t2_scale: bool = option(
        False, "times temperature squared, as channel-wise distillation does (A11)"
    )
    norm_over: NormOver = NormOver.omega
    omega_ignore_padding: bool = option(True, "padding never enters Omega (A15)")
    classes: Classes = Classes.all
    log_norm: bool = option(True, "divide by ln |Omega|, also for CR (A18)")
    cr_on: CorrelateOn = CorrelateOn.probabilities
    resolution: Resolution = Resolution.crop
    on_labeled: bool = option(False, "also on labelled images (A30)")


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser, by default SGD with momentum, and the polynomial schedule."""

    epochs: int = option(
        80, "passes over the unlabelled list (labelled list for supervised); 0: by optim.steps"
    )
    steps: int = option(
        0, "with optim.epochs=0: of the run, to the nearest number of whole epochs", neutral=0
    )
    optimiser: OptimiserKind = option(
        OptimiserKind.sgd, "how gradients move the weights", neutral=OptimiserKind.sgd
    )
    batch: int = option(4, "labelled images per step over all ranks; as many unlabelled (A23)")
    lr: float = option(0.0005, "of the backbone")
    head_lr_factor: float = option(10.0, "parameters outside the backbone; 10 VOC, 1 Cityscapes")
    momentum: float = option(0.9, "of SGD, without Nesterov")
    weight_decay: float = option(1e-4, "on every parameter")
    decays_all: bool = option(
        True, "False: no weight decay on biases and batch normalisation", neutral=True
    )
    power: float = option(0.9, "of the polynomial; 0 is a constant rate")
    lag: bool = option(False, "True: steps 0 and 1 share the first rate, as the UniMatch code")
    sampler_ranks: int = option(
        1, "an epoch has the steps that this many GPUs count; UniMatch code: 4", neutral=1
    )
    criterion: Criterion = Criterion.ce
    ohem_threshold: float = option(0.7, "OHEM keeps pixels at or below this probability")
    ohem_min_kept_per_image: int = option(
        100000, "OHEM keeps at least this many, times the batch (A24)"
    )
    precision: Precision = Precision.fp32


@dataclass(frozen=True)
class EvaluationConfig:
    """When and how validation runs."""

    mode: EvaluationMode = EvaluationMode.whole
    every_epochs: int = option(1, "the last epoch is scored in any case")
    absent: Absent = option(
        Absent.zero,
        "a class that no validation mask shows counts 0 in the mean, or not at all: skip (A34)",
        neutral=Absent.zero,
    )


@dataclass(frozen=True)
class RunConfig:
    """Where and how fast; none of it enters the fingerprint."""

    device: str = execution("auto", "auto, cpu or cuda; auto refuses a GPU that torch cannot use")
    threads: int = execution(1, "CPU threads per rank; guarded at resume, it moves the last bits")
    loader_workers: int | str = execution(
        "auto", "processes that prepare images, per rank; auto: none on a CPU, 1 to 4 on a card"
    )
    augment: Augment = execution(Augment.auto, "host or device, the same bits")
    cache: Cache = execution(Cache.none, "decoded: images are decoded once")
    cache_folder: str = execution("", "empty means <folder of the dataset>.decoded")
    graph: Graph = execution(Graph.none, "step: on CUDA each step is replayed as a CUDA graph")
    memory: Memory = execution(Memory.full, "full, recompute or offload: less memory, same bits")
    checkpoint_minutes: float = execution(5.0, "between two checkpoints")
    checkpoint_steps: int = execution(0, "also every so many steps; 0 is never")
    log_steps: int = execution(20, "steps between two lines of metrics.jsonl")
    tensorboard: bool = execution(False, "also write TensorBoard events beside metrics.jsonl")
    weights: str = execution("", "file of ImageNet weights for model.init=imagenet")
    folder: str = execution("", "of `python -m trainer`; empty means outputs/runs/<key>")


_LARGE_CROP = 640  # pixels: VOC is cut at 321 or 513, Cityscapes at 801


@dataclass(frozen=True)
class TrainConfig:
    """The whole configuration of one run, one part per axis of a cell."""

    recipe: str = option("synthetic", "name of the file in sweeps/recipe")
    seed: int = option(12345, "the one source of all randomness")
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def batch(self) -> int:
        """Labelled images per step over all ranks."""
        return self.optim.batch * self.method.batch_factor

    @property
    def pair_views(self) -> tuple[str, ...]:
        """Views whose pairs the inter-pixel term takes: those of `loss.views`, or the method's."""
        own = self.method.facts.pairs
        return own if self.loss.views in ((), LossConfig().views) else self.loss.views

    @property
    def lr(self) -> float:
        """Learning rate of the backbone at step 0."""
        return self.optim.lr * self.method.lr_factor

    def loader_workers(self, device_type: str) -> int:
        """Processes that prepare images for one rank on a device of this type.

        With `run.loader_workers=auto` none on a CPU, whose cores train. On CUDA enough of them that
        a card need not wait, by the CPU time of an image beside that of a step: both grow with the
        batch, so only the kind of images decides (docs/running/performance.md).
        """
        asked = self.run.loader_workers
        if isinstance(asked, int):
            return asked
        if device_type != "cuda":
            return 0
        if self.run.augment is Augment.host:
            return 4
        is_slow_to_decode = self.data.crop > _LARGE_CROP and self.run.cache is Cache.none
        return 2 if is_slow_to_decode else 1

    @property
    def key(self) -> str:
        """Readable name of the run, the same as its cell's."""
        place = f"{self.recipe}.{self.data.split}.{self.model.backbone}.c{self.data.crop}"
        return f"{place}.{self.method.name}.{self.loss.name}.s{self.seed}"
