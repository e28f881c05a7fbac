"""The spec of a dataset: classes, colours and file names. Needs the standard library only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Colour = tuple[int, int, int]
IGNORED = 255  # mask value of a pixel that enters neither loss nor score
_NAMED = 8  # classes that a sentence names


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
        ignored_value: mask value of pixels in neither loss nor score; None when there is none.
        kind: "published" by others, "drawn" by this program, "cut" by it out of larger pictures, or
            "described" by the user in a file at the root.
        validation_list: path below the root of a list of validation ids that the dataset brings
            along; empty when it has none.
        validation_prefix: first characters of the ids of validation images; empty when the ids do
            not show it.
        held_out: prefixes of ids that no training list may contain.
    """

    name: str
    class_names: tuple[str, ...]
    palette: tuple[Colour, ...]
    image_pattern: str
    mask_pattern: str
    mask_values: tuple[int, ...] = ()
    ignored_value: int | None = IGNORED
    kind: Literal["published", "drawn", "cut", "described"] = "published"
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
    """The path of a mask: {id} is the whole id, {stem} the id without its file extension."""
    return pattern.format(id=name, stem=name.rpartition(".")[0] or name)


def voc_colour(label: int) -> Colour:
    """Colour of a label in PASCAL VOC's palette.

    Bits 0, 1, 2 of the label become the highest bits of R, G, B, bits 3, 4, 5 the next, and so on.
    """
    red = green = blue = 0
    for place in range(8):
        red |= (label & 1) << (7 - place)
        green |= (label >> 1 & 1) << (7 - place)
        blue |= (label >> 2 & 1) << (7 - place)
        label >>= 3
    return red, green, blue


def absent_text(names: Sequence[str], rule: str | None = None) -> str:
    """One sentence about the classes that no validation mask shows.

    Args:
        names: of these classes, at least one.
        rule: value of `evaluation.absent`; None is its default.
    """
    shown = f"{', '.join(names[:_NAMED])}{' and more' if len(names) > _NAMED else ''}"
    if rule == "skip":
        return f"no validation mask shows {shown}: left out of the mIoU."
    return (
        f"no validation mask shows {shown}: counted as 0 in the mIoU, as the paper's lineage does; "
        "evaluation.absent=skip leaves such classes out."
    )
