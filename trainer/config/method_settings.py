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


@dataclass(frozen=True)
class CpsConfig:
    """Cross pseudo supervision (Chen et al. 2021)."""

    cutmix: bool = option(True, "networks learn on pasted images")
    weight: float = option(1.0, "of the cross terms; 1 VOC, 5 Cityscapes", limits=(0, 1e6))
    weight_without_cutmix: float = option(1.5, "the same; 1.5 VOC, 6 Cityscapes", limits=(0, 1e6))
