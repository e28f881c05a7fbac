"""The interface of a method: what it gets at every step and what it returns."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from datasets.loading.samples import LabelledBatch, UnlabelledBatch
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks
from trainer.network.deeplab import DeepLabV3Plus


@dataclass(frozen=True)
class Networks:
    """The student and, for `method.teacher=ema`, its moving average."""

    student: DeepLabV3Plus
    ema: DeepLabV3Plus | None


@dataclass(frozen=True)
class TeacherStudentPair:
    """Logits of teacher (p) and student (q) on the same pixels, as Eq. 2 compares them.

    Attributes:
        view: s1 or s2 (strong), fp (dropped features), or labelled.
        teacher: logits (B, C, H, W), detached.
        student: logits (B, C, H, W).
        valid: (B, H, W) bool, False on padding.
        box: (B, H, W) bool, the pasted region; None without CutMix.
    """

    view: str
    teacher: Tensor
    student: Tensor
    valid: Tensor
    box: Tensor | None = None


@dataclass(frozen=True)
class StepResult:
    """The losses of one step on this rank.

    Attributes:
        loss: this rank's share of L_o, a scalar; the shares of all ranks add up to it.
        pairs: for the inter-pixel term; empty when the run has none.
        terms: shares of the parts of L_o, detached, for the log.
    """

    loss: Tensor
    pairs: tuple[TeacherStudentPair, ...]
    terms: dict[str, Tensor]


class Method(Protocol):
    """A semi-supervised method: computes L_o and the pairs of a batch."""

    def __call__(
        self, networks: Networks, labelled: LabelledBatch, unlabelled: UnlabelledBatch | None
    ) -> StepResult:
        """Run the forward passes of one step; the loop runs the backward pass."""


@dataclass(frozen=True)
class MethodContext:
    """The arguments of every method's constructor."""

    config: TrainConfig
    ranks: Ranks
