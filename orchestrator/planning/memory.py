"""How much memory of a card a run needs, from a committed table of counts. Needs no torch.

`python -m benchmarks.memory fit` counts the peak of a step and writes `memory.csv` beside this
file. For one network, method, precision and `run.memory` the peak is affine in the pixels that a
card holds, and the part that logits take is affine in the classes:

    bytes = fixed + memory x classes + images x crop^2 x (per pixel + per class x classes)

where memory is what a method keeps of every class, as U2PL its banks, and images are the labelled
ones on a card; a semi-supervised step has as many unlabelled ones. An EMA teacher adds its weights;
its logits, one or two in a hundred, are left out. The line goes through the counts at crops 321 and
801, and at 21 and 150 classes. What only CUDA has is not counted: its context, the workspaces of
cuDNN and what the allocator loses between blocks.
"""

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import NamedTuple

from trainer.config.schema import (
    OptimiserKind,
    PixelDistance,
    Precision,
    Pyramid,
    Teacher,
    TrainConfig,
)

GIB = 2.0**30
TABLE = Path(__file__).with_suffix(".csv")


class Kind(NamedTuple):
    """What a line of the table is for; runs of one kind differ in images, crop and classes.

    Attributes:
        blocks: bottlenecks of each stage; the first one has 64 channels.
        algorithm: of the method.
        inter_pixel: yes or no, whatever its reading.
        precision: fp32, which tf32 shares, or bf16.
        memory: of `run.memory`.
    """

    blocks: str
    algorithm: str
    inter_pixel: str
    precision: str
    memory: str

    @classmethod
    def of(cls, config: TrainConfig) -> "Kind":
        """The kind of a run."""
        is_half = config.optim.precision is Precision.bf16
        return cls(
            "-".join(map(str, config.model.blocks)),
            config.method.algorithm,
            "no" if config.loss.distance is PixelDistance.none else "yes",
            "bf16" if is_half else "fp32",
            config.run.memory.value,
        )


@dataclass(frozen=True)
class Coefficients:
    """Of the formula above, in bytes; `weights` are those of one network."""

    fixed: float
    per_pixel: float
    per_class: float
    weights: float
    memory_per_class: float

    def bytes(self, *, pixels: int, classes: int, networks: int) -> float:
        """The peak for so many pixels of labelled images, with one network or a teacher, too."""
        fixed = self.fixed + self.weights * (networks - 1) + self.memory_per_class * classes
        return fixed + pixels * (self.per_pixel + self.per_class * classes)


def step_bytes(config: TrainConfig, *, classes: int, images: int) -> float | None:
    """Peak of one rank; None for a network or optimiser that the table does not hold.

    Args:
        config: the run.
        classes: of its data set.
        images: labelled ones on the rank's card.
    """
    model = config.model
    sizes = (model.width, model.head_channels, model.low_level_channels)
    shape = (model.stride, model.pyramid, config.optim.optimiser)
    is_standard = sizes == (64, 256, 48) and shape == (16, Pyramid.one_by_one, OptimiserKind.sgd)
    is_standard = is_standard and not model.facts.is_fixed
    line = read_counts().get(Kind.of(config)) if is_standard else None
    if line is None:
        return None
    networks = 2 if config.method.teacher is Teacher.ema else 1
    pixels = images * config.data.crop**2
    return line.bytes(pixels=pixels, classes=classes, networks=networks)


@cache
def read_counts() -> dict[Kind, Coefficients]:
    """The committed lines."""
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [item.name for item in fields(Coefficients)]
    return {
        Kind(*(row[name] for name in Kind._fields)): Coefficients(
            *(float(row[name]) for name in names)
        )
        for row in rows
    }


def add_counts(lines: Iterable[tuple[Kind, Coefficients]]) -> None:
    """Add lines to the table."""
    names = [*Kind._fields, *(item.name for item in fields(Coefficients))]
    with TABLE.open("a", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        for kind, line in lines:
            numbers = {name: f"{value:.5g}" for name, value in asdict(line).items()}
            writer.writerow(kind._asdict() | numbers)
            file.flush()
