"""The data part of a run's configuration; needs neither torch nor Pillow."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class MixSource(Enum):
    """Whose pixels CutMix pastes into an unlabelled image."""

    same = "same"  # the same image, drawn again: what the released UniMatch code does
    batch_roll = "batch_roll"  # the next image of the global batch
    other = "other"  # an image from an independent permutation


def option(default: Any, help: str, **facts: Any) -> Any:
    """A field of a configuration, with the sentence that the help prints for it.

    Args:
        default: its value unless it is set.
        help: what it means, with its unit.
        facts: more of its metadata, such as bounds.
    """
    return field(default=default, metadata={"help": help, **facts})


def execution(default: Any, help: str) -> Any:
    """A field that says where or how fast a run executes; it is not part of the fingerprint."""
    return option(default, help, role="execution")


@dataclass(frozen=True)
class SyntheticConfig:
    """The synthetic dataset: how many scenes, how large, of how many classes."""

    num_train: int = option(240, "scenes with a mask that splits may label")
    num_val: int = option(60, "scenes for evaluation")
    width: int = option(96, "pixels")
    height: int = option(72, "pixels")
    num_classes: int = option(6, "background included")
    seed: int = option(0, "of the drawing, not of the training")


@dataclass(frozen=True)
class DataConfig:
    """Which images, which labelled subset, and how a training crop is cut."""

    dataset: str = option("synthetic", "an entry of datasets/known/registry.py")
    root: str = execution("", "folder or s3://bucket/prefix; empty means data/<dataset>")
    cache: str = execution("", "folder for what comes from s3://; empty means ~/.cache/ipixmatch")
    cache_gib: float = execution(8.0, "bound of that folder's items, GiB")
    split: str = option("1of8", "labelled subset, see `python -m datasets splits`")
    crop: int = option(64, "side of the square training crop, pixels")
    scale_min: float = option(0.5, "smallest resize, as a factor of the image's own long side")
    scale_max: float = option(2.0, "largest resize")
    mix: MixSource = option(MixSource.same, "partner of CutMix")
    drawn: SyntheticConfig | None = field(default_factory=SyntheticConfig)  # null but in synthetic
