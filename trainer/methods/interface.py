"""What a method is given at every step and what it hands back."""

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
    """Teacher and student on the same pixels: what the inter-pixel term compares.

    Attributes:
        view: s1, s2, fp or labelled.
        teacher: logits (B, C, H, W), a constant.
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
    """One step's losses.

    Attributes:
        loss: this rank's share of L_o; the shares add up to it.
        pairs: for the inter-pixel term.
        terms: shares of the parts of L_o, detached, for the log.
    """

    loss: Tensor
    pairs: tuple[TeacherStudentPair, ...]
    terms: dict[str, Tensor]


class Method(Protocol):
    """A semi-supervised method: losses from a batch."""

    def __call__(
        self, networks: Networks, labelled: LabelledBatch, unlabelled: UnlabelledBatch | None
    ) -> StepResult:
        """Run the forward passes of one step; backward is the loop's."""


@dataclass(frozen=True)
class MethodContext:
    """What every method is built from."""

    config: TrainConfig
    ranks: Ranks
