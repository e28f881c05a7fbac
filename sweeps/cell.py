"""A cell: the coordinates of one number in the benchmark."""

import re
from dataclasses import dataclass

_KEY = re.compile(
    r"(?P<recipe>[^.]+)\.(?P<split>[^.]+)\.(?P<backbone>[^.]+)\.c(?P<crop>\d+)"
    r"\.(?P<method>[^.]+)\.(?P<loss>[^.]+)\.s(?P<seed>\d+)"
)


@dataclass(frozen=True, order=True)
class Cell:
    """The identity of one training run: six axes and a seed.

    Attributes:
        recipe: dataset and its schedule, a file of ``sweeps/recipe``.
        split: labelled subset of the recipe's dataset.
        backbone: a file of ``sweeps/model``.
        crop: side of the square training crop, pixels.
        method: semi-supervised method L_o of Eq. 6, a file of ``sweeps/method``.
        loss: inter-pixel term added to it, a file of ``sweeps/loss``; "none" for the baseline.
        seed: the one source of all randomness.
    """

    recipe: str
    split: str
    backbone: str
    crop: int
    method: str
    loss: str
    seed: int = 12345

    @property
    def key(self) -> str:
        """Name of the cell in paths, logs and the results table."""
        place = f"{self.recipe}.{self.split}.{self.backbone}.c{self.crop}"
        return f"{place}.{self.method}.{self.loss}.s{self.seed}"

    @classmethod
    def parse(cls, key: str) -> "Cell":
        """The cell a key names.

        Raises:
            ValueError: the text is no key.
        """
        match = _KEY.fullmatch(key)
        if match is None:
            raise ValueError(
                f"{key!r} is no cell key; one reads like "
                "voc.p1_1of16.resnet50.c321.unimatch_star.kl.s12345."
            )
        parts = match.groupdict()
        names = {axis: parts[axis] for axis in ("recipe", "split", "backbone", "method", "loss")}
        return cls(**names, crop=int(parts["crop"]), seed=int(parts["seed"]))
