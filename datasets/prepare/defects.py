"""What is wrong with files of a dataset, printed once for all files of which the same is true."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets.wording import listed, quantity

SHOWN = 5  # files of which the same is true that `prepare` names


@dataclass(frozen=True)
class Defect:
    """What is wrong with one file, or with several.

    Attributes:
        text: for users, with the cure.
        file: path below the root, for a list of files of which the same is true.
        kind: equal for defects that differ in nothing but the file; empty for any other defect.
    """

    text: str
    file: str = ""
    kind: str = ""


def defect_of(text: str, file: str, *paths: Path) -> Defect:
    """A defect whose kind is its text without the names of its files.

    Args:
        text: for users.
        file: path below the root.
        paths: that the text may name, whole or by their last part.
    """
    kind = text
    for part in (part for path in paths for part in (str(path), path.name, path.stem)):
        kind = kind.replace(part, "*")
    return Defect(text, file, kind)


def lines_of(defects: Iterable[Defect], most: int | None = None) -> Iterator[str]:
    """The lines that say all defects: of each kind the first whole, then files with the same.

    Args:
        defects: in their order.
        most: how many files of one kind are named; None for all.
    """
    kinds: dict[str, list[Defect]] = {}
    for defect in defects:
        kinds.setdefault(defect.kind or defect.text, []).append(defect)
    for first, *others in kinds.values():
        yield first.text
        if others:
            shown = listed([other.file for other in others], (most or len(others) + 1) - 1)
            yield f"  The same of {quantity(len(others), 'other file')}: {shown}."
