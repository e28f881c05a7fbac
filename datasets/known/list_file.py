"""List files of a split: lines `image mask` of paths below the root, as UniMatch has them."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from datasets.errors import DataError
from datasets.files import atomic_write
from datasets.spec import DatasetSpec


def read_lines(path: Path) -> list[str]:
    """The lines of a list file, blank ones left out.

    Raises:
        DataError: it is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors of Windows begin with a mark
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error.reason}). Save it as UTF-8.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def parse_lines(spec: DatasetSpec, lines: Sequence[str], *, where: str) -> list[str]:
    """Ids of `image mask` lines.

    Raises:
        DataError: a line fits neither the dataset's layout nor the form.
    """
    before, after = (re.escape(part) for part in spec.image_pattern.split("{id}"))
    pattern = re.compile(f"{before}(?P<id>.+){after}")
    ids = []
    for number, line in enumerate(lines, start=1):
        match = pattern.fullmatch(line.split(" ")[0])
        if match is None or line_of(spec, match["id"]) != line:
            raise DataError(
                f"{where}, line {number}: {line!r} is no line of {spec.name}; one reads like "
                f"{line_of(spec, 'ID')!r}. Correct the list, or check the dataset's name."
            )
        ids.append(match["id"])
    return ids


def line_of(spec: DatasetSpec, name: str) -> str:
    """The `image mask` line of an id."""
    return f"{spec.image_file(name)} {spec.mask_file(name)}"


def lines_sha256(lines: Iterable[str]) -> str:
    """sha256 of the lines of a list, whatever its line ends; identifies a published list."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_list(path: Path, lines: Iterable[str]) -> None:
    """Write a list file atomically; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, "".join(f"{line}\n" for line in lines))
