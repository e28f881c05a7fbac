"""A cell: the coordinates of one number in the benchmark."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

_KEY = re.compile(
    r"(?P<recipe>[^.]+)\.(?P<split>[^.]+)\.(?P<backbone>[^.]+)\.c(?P<crop>\d+)"
    r"\.(?P<method>[^.]+)\.(?P<loss>[^.]+)\.s(?P<seed>\d+)"
)

# Which settings the name of an axis carries; the recipe those of all other groups.
_OF_AXIS = {"recipe": "", "method": "method.", "loss": "loss."}
_POINT = re.compile(r"(?<=\d)p(?=\d)")  # 0p1 of a key, where dots part the axes, is 0.1


@dataclass(frozen=True, order=True)
class Cell:
    """The identity of one training run: six axes and a seed.

    With settings of its own (`with_settings`) the name of an axis says them, such as the loss
    ``kl+alpha@0p1``, so that no other cell has its key.

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

    @property
    def settings(self) -> tuple[str, ...]:
        """Its own settings as the trainer takes them, such as ``loss.alpha=0.1``."""
        words = []
        for axis, prefix in _OF_AXIS.items():
            for part in getattr(self, axis).split("+")[1:]:
                name, _, value = part.partition("@")
                words.append(f"{prefix}{name.replace('-', '.')}={_POINT.sub('.', value)}")
        return tuple(words)

    @property
    def files(self) -> "Cell":
        """The cell with the plain names of its axes, which are files in ``sweeps``."""
        return replace(self, **{axis: getattr(self, axis).partition("+")[0] for axis in _OF_AXIS})

    def with_seed(self, seed: int) -> "Cell":
        """The cell with another seed."""
        # As pickle does it: `replace` takes four times as long, and a grid has thousands of cells.
        cell = object.__new__(Cell)
        cell.__dict__.update(self.__dict__, seed=seed)
        return cell

    def with_settings(self, settings: Mapping[str, object]) -> "Cell":
        """The cell with settings of its own, by dotted name."""
        names = {axis: getattr(self, axis) for axis in _OF_AXIS}
        for setting, value in sorted(settings.items()):
            group = setting.partition(".")[0]
            axis = group if group in ("method", "loss") else "recipe"
            name = setting.removeprefix(_OF_AXIS[axis]).replace(".", "-")
            names[axis] += f"+{name}@{setting_text(value).replace('.', 'p')}"
        return replace(self, **names)

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


def setting_text(value: object) -> str:
    """The value of a setting as it is typed: 1.0 and 1 are the same."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)


def axis_text(name: str) -> str:
    """The name of an axis as people read it: ``kl+alpha@0p1`` is kl, alpha=0.1."""
    first, *settings = name.split("+")
    pairs = (part.partition("@") for part in settings)
    said = [f"{key.replace('-', '.')}={_POINT.sub('.', value)}" for key, _, value in pairs]
    return ", ".join([first, *said])
