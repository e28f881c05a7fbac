"""The closed choices of a configuration, in the words of the command line.

Letters like A3 name the rows of the README's "Choices where the paper is silent".
"""

from enum import Enum


class Stem(Enum):
    """First layers of the ResNet."""

    deep64 = "deep64"  # three 3x3 convolutions, 64-64-128: the UniMatch code
    conv7 = "conv7"  # one 7x7 convolution: torchvision


class Upsample(Enum):
    """How DeepLabV3+ enlarges features and logits (A25)."""

    nearest = "nearest"  # the paper
    bilinear = "bilinear"  # official UniMatch; two matrix products, align_corners
    nearest_train_only = "nearest_train_only"  # nearest in training, bilinear in evaluation


class Init(Enum):
    """Where the backbone's weights come from."""

    random = "random"
    imagenet = "imagenet"  # the file run.weights


class Algorithm(Enum):
    """The training step: L_o of Eq. 6."""

    supervised = "supervised"
    fixmatch = "fixmatch"
    unimatch = "unimatch"


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


class Distance(Enum):
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
    """Arithmetic of the training step."""

    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"


class Augment(Enum):
    """Where crops are resized and augmented; the bits are the same."""

    auto = "auto"  # on the device when it is CUDA
    host = "host"  # by the loader's workers, with Pillow
    device = "device"  # in batches, by whatever trains


class Cache(Enum):
    """What of the data set is kept in a form that is faster to read."""

    none = "none"
    decoded = "decoded"  # raw pixels: 0.6 MB for an image of VOC, 6.3 MB for one of Cityscapes


class EvaluationMode(Enum):
    """How a validation image passes the network."""

    whole = "whole"
    slide = "slide"  # windows of data.crop, stride two thirds, softmax summed
