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


_SHARE = (0.0, 1.0)


@dataclass(frozen=True)
class StrongViewConfig:
    """How far strong views are from weak ones; the defaults are UniMatch's, as the paper's."""

    jitter: float = option(0.8, "probability of the four below", neutral=0.8, limits=_SHARE)
    brightness: float = option(0.5, "a factor from 1 - it to 1 + it", neutral=0.5, limits=_SHARE)
    contrast: float = option(0.5, "the same", neutral=0.5, limits=_SHARE)
    saturation: float = option(0.5, "the same", neutral=0.5, limits=_SHARE)
    hue: float = option(
        0.25, "turns of the colour circle, to either side", neutral=0.25, limits=(0.0, 0.5)
    )
    grey: float = option(0.2, "probability that colours are dropped", neutral=0.2, limits=_SHARE)
    blur: float = option(0.5, "probability of a blur", neutral=0.5, limits=_SHARE)
    cutmix: float = option(0.5, "probability of a CutMix box", neutral=0.5, limits=_SHARE)


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
    scales: tuple[float, ...] = option(
        (), "resizes to choose from; empty: any from scale_min to scale_max", neutral=()
    )
    scale_base: int = option(
        0, "long side that a resize multiplies, pixels; 0: the image's own", neutral=0
    )
    scale_halves: bool = option(
        False, "True: one half of the resizes shrinks, the other enlarges", neutral=False
    )
    unlabelled_scale_min: float = option(
        0.0, "scale_min of unlabelled images; 0: the same", neutral=0.0
    )
    mix: MixSource = option(MixSource.same, "partner of CutMix")
    strong: StrongViewConfig = field(
        default_factory=StrongViewConfig, metadata={"neutral": StrongViewConfig()}
    )
    drawn: SyntheticConfig | None = field(default_factory=SyntheticConfig)  # null but in synthetic
