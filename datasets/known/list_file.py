"""List files of a split: lines `image mask` of paths below the root, as UniMatch has them.

Names may hold blanks. A list may also hold nothing but ids, as those of VOC do.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from datasets.errors import DataError
from datasets.files import atomic_write
from datasets.spec import DatasetSpec

_LINE_END = re.compile(r"\r\n|\n|\r")  # str.splitlines also cuts at characters that names may hold
_TWO_PATHS = re.compile(r"\.\w+\s")  # the end of a file name within a line


def read_lines(path: Path) -> list[str]:
    """The lines of a list file, blank ones left out.

    Raises:
        DataError: it is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors of Windows begin with a mark
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error.reason}). Save it as UTF-8.") from error
    return [line.strip() for line in _LINE_END.split(text) if line.strip()]


def parse_lines(spec: DatasetSpec, lines: Sequence[str], *, where: str) -> list[str]:
    """Ids of `image mask` lines; or the lines themselves, if the first one is an id alone.

    Raises:
        DataError: a line fits neither the dataset's layout nor the form.
    """
    ids = []
    is_plain = bool(lines) and _is_id(spec, lines[0])
    for number, line in enumerate(lines, start=1):
        name = line if is_plain and _is_id(spec, line) else _id_of_pair(spec, line)
        if name is None:
            raise DataError(
                f"{where}, line {number}: {line!r} is no line of {spec.name}; one reads like "
                f"{line_of(spec, 'ID')!r}. Correct the list, or "
                f"{'dataset.yaml' if spec.kind == 'described' else 'the name of the dataset'}."
            )
        ids.append(name)
    return ids


def can_be_listed(spec: DatasetSpec, name: str) -> bool:
    """Whether the line of an id, written to a list file, reads as that id again.

    It does not where the name holds a line end, is no Unicode text, or begins or ends with blanks
    that no path of the dataset goes around.
    """
    line = line_of(spec, name)
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return line == line.strip() and not _LINE_END.search(line) and _id_of_pair(spec, line) == name


def _is_id(spec: DatasetSpec, line: str) -> bool:
    """Whether a line may be an id: neither a path of the dataset nor the two paths of another."""
    before = spec.image_pattern.split("{id}")[0]
    is_path = before != "" and line.startswith(before)
    return not is_path and not _TWO_PATHS.search(line) and _id_of_pair(spec, line) is None


def _id_of_pair(spec: DatasetSpec, line: str) -> str | None:
    """The id of an `image mask` line; None if it is none."""
    before, after = spec.image_pattern.split("{id}")
    # Any blank may be the one between the two paths; the mask's path decides which it is.
    for blank in re.finditer(r"\s", line):
        image = line[: blank.start()]
        if not image.startswith(before) or not image.endswith(after):
            continue
        name = image[len(before) : len(image) - len(after)]
        if name and line_of(spec, name) == line:
            return name
    return None


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
