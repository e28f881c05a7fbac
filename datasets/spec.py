"""What a dataset looks like: classes, colours, file names. Needs the standard library only."""

from dataclasses import dataclass
from typing import Literal

Colour = tuple[int, int, int]
IGNORED = 255  # mask value of a pixel that counts nowhere


@dataclass(frozen=True)
class DatasetSpec:
    """What is known about a dataset without reading an image.

    Attributes:
        name: entry of `datasets.known.registry.KNOWN`.
        class_names: by class index; their number is the number of classes.
        palette: a colour per class, RGB of 0 to 255.
        image_pattern: path of an image below the root, with {id}.
        mask_pattern: path of a mask of class indices below the root, with {id}, or with {stem}
            where ids have a suffix.
        mask_values: mask value by class index; empty when the values are the classes themselves.
        ignored_value: mask value of a pixel that counts nowhere; None when there is none.
        kind: "published" by others, "drawn" by this program, or "described" by the user in a
            file at the root.
        validation_list: path below the root of a list of validation ids that the dataset brings
            along; empty when it has none.
        validation_prefix: with which the ids of validation images begin; empty when they do not
            tell.
        held_out: beginnings of ids that no list for training takes.
    """

    name: str
    class_names: tuple[str, ...]
    palette: tuple[Colour, ...]
    image_pattern: str
    mask_pattern: str
    mask_values: tuple[int, ...] = ()
    ignored_value: int | None = IGNORED
    kind: Literal["published", "drawn", "described"] = "published"
    validation_list: str = ""
    validation_prefix: str = ""
    held_out: tuple[str, ...] = ()

    def image_file(self, name: str) -> str:
        """Path below the root of the image of an id."""
        return self.image_pattern.format(id=name)

    def mask_file(self, name: str) -> str:
        """Path below the root of the mask of an id."""
        return mask_file(self.mask_pattern, name)


def mask_file(pattern: str, name: str) -> str:
    """The path of a mask by pattern and id."""
    return pattern.format(id=name, stem=name.rpartition(".")[0] or name)


def voc_colour(label: int) -> Colour:
    """Colour of PASCAL VOC's own palette: the label's bits, dealt to R, G, B from the top."""
    red = green = blue = 0
    for place in range(8):
        red |= (label & 1) << (7 - place)
        green |= (label >> 1 & 1) << (7 - place)
        blue |= (label >> 2 & 1) << (7 - place)
        label >>= 3
    return red, green, blue
